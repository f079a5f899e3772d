package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"posthorn/events"
	"posthorn/services/internal/eventlog"
	"posthorn/services/internal/ledger"
	"posthorn/services/internal/postgres"
	"posthorn/services/internal/replay"
	"posthorn/services/internal/sender"
	"posthorn/services/internal/subscription"
)

// Delivery is one event owed to one subscription.
type Delivery struct {
	ID             string     `json:"id" example:"dlv_42_019a0000-0000-7000-8000-000000000000"`
	EventID        string     `json:"eventId"`
	EventType      string     `json:"eventType"`
	Position       int64      `json:"position"`
	SubscriptionID string     `json:"subscriptionId"`
	Status         string     `json:"status" enum:"pending,retrying,delivered,dead,cancelled"`
	Cause          string     `json:"cause" doc:"live, replay, redrive or test"`
	Run            int        `json:"run" doc:"0, and one more with each replay or redrive"`
	Attempts       int        `json:"attempts" doc:"How many attempts were made in this run"`
	LastStatus     int        `json:"lastStatus,omitempty" doc:"The HTTP status of the last attempt"`
	ErrorClass     string     `json:"errorClass,omitempty" doc:"The class of the last attempt's failure"`
	LastError      string     `json:"lastError,omitempty"`
	NextAttemptAt  *time.Time `json:"nextAttemptAt,omitempty"`
	CreatedAt      *time.Time `json:"createdAt"`
	FinishedAt     *time.Time `json:"finishedAt,omitempty"`
}

// DeliveryList is one page.
type DeliveryList struct {
	Items      []Delivery `json:"items" nullable:"false"`
	NextCursor string     `json:"nextCursor,omitempty" doc:"Give it as cursor to get the next page; absent on the last one"`
}

// RequestMade is a request as it was made last, or will be made.
type RequestMade struct {
	Method  string            `json:"method"`
	URL     string            `json:"url" doc:"The subscription's URL as it is now"`
	Headers map[string]string `json:"headers" doc:"Those of the last attempt; credentials are not kept"`
	Body    string            `json:"body"`
	Curl    string            `json:"curl" doc:"The line that repeats it. Its signature is the last attempt's, and so is its time"`
}

// DeliveryDetail is a delivery with all that is known of it.
type DeliveryDetail struct {
	Delivery
	AttemptsMade []Attempt    `json:"attemptsMade" nullable:"false" doc:"Of all its runs, the first one first"`
	MoreAttempts bool         `json:"moreAttempts,omitempty" doc:"There were others before these; the list of the subscription's attempts has them"`
	Request      *RequestMade `json:"request,omitempty" doc:"Left out when the event or the subscription is gone"`
}

func showDelivery(d ledger.Delivery) Delivery {
	return Delivery{
		ID: d.String(), EventID: d.EventID, EventType: d.EventType, Position: d.Position, SubscriptionID: string(d.Subscription),
		Status: string(d.Status), Cause: d.Cause, Run: d.Run, Attempts: d.Attempts, LastStatus: d.LastStatus, ErrorClass: d.ErrorClass,
		LastError: d.LastError, NextAttemptAt: timeOrNil(d.NextAttemptAt), CreatedAt: timeOrNil(d.CreatedAt), FinishedAt: timeOrNil(d.FinishedAt),
	}
}

func (a *API) routeDeadLetters() {
	op := func(id, method, path, tag, summary string) huma.Operation {
		return huma.Operation{OperationID: id, Method: method, Path: path, Summary: summary, Tags: []string{tag}}
	}
	register(a, op("list-dead-letters", http.MethodGet, "/dead-letters", "Dead letters", "List dead deliveries, those of the latest events first"), a.listDeadLetters)
	register(a, op("get-dead-letter", http.MethodGet, "/dead-letters/{id}", "Dead letters", "Show a dead delivery, its attempts and its request"), a.getDelivery(true))
	redrive := op("redrive-dead-letters", http.MethodPost, "/dead-letters/redrive", "Dead letters", "Put dead deliveries, and those that wait for a retry, back to work")
	redrive.Description = "Either those that are named, or those of a subscription. Each subscription's are a replay, which can be watched, paused and cancelled."
	redrive.DefaultStatus = http.StatusAccepted
	register(a, redrive, a.redriveDeadLetters)
	register(a, op("purge-dead-letters", http.MethodDelete, "/dead-letters", "Dead letters", "Give dead deliveries up; their number has to be confirmed"), a.purgeDeadLetters)
	register(a, op("get-delivery", http.MethodGet, "/deliveries/{id}", "Deliveries", "Show a delivery, its attempts and its request"), a.getDelivery(false))
	retry := op("retry-delivery", http.MethodPost, "/deliveries/{id}/retry", "Deliveries", "Make a delivery anew, at once, that is finished or waits for a retry")
	retry.DefaultStatus = http.StatusAccepted
	register(a, retry, a.retryDelivery)
}

// DeadLetterParams select dead deliveries.
type DeadLetterParams struct {
	Subscription string    `query:"subscription" doc:"Those to this subscription"`
	ErrorClass   string    `query:"errorClass" maxLength:"32" doc:"Those whose last attempt failed this way: status, timeout, connect, address, tls, protocol"`
	Status       int       `query:"status" minimum:"100" maximum:"999" doc:"Those whose last attempt was answered with this HTTP status"`
	Since        Timestamp `query:"since" doc:"Those that died at this time or later"`
	Until        Timestamp `query:"until" doc:"Those that died before this time"`
}

func (in DeadLetterParams) filter() (ledger.DeadFilter, error) {
	var issues []FieldIssue
	filter := ledger.DeadFilter{
		ErrorClass: in.ErrorClass, LastStatus: in.Status,
		Since: in.Since.time("query", "since", &issues), Until: in.Until.time("query", "until", &issues),
	}
	if issues != nil {
		return ledger.DeadFilter{}, invalid(issues...)
	}
	return filter, nil
}

func (a *API) listDeadLetters(ctx context.Context, in *struct {
	DeadLetterParams
	PageParams
},
) (*struct{ Body DeliveryList }, error) {
	dead, err := in.filter()
	if err != nil {
		return nil, err
	}
	filter := ledger.DeadLetterFilter{Account: events.DefaultAccount, DeadFilter: dead, Limit: in.Limit}
	out := &struct{ Body DeliveryList }{Body: DeliveryList{Items: []Delivery{}}}
	if in.Subscription != "" {
		if filter.Subscription, err = subscription.ParseID(in.Subscription); err != nil {
			return out, nil //nolint:nilerr // nothing has a subscription with such an id
		}
	}
	if in.Cursor != "" {
		place, err := openCursor("dead-letters", in.Cursor)
		if err != nil {
			return nil, err
		}
		before, err := ledger.ParseDeliveryID(place)
		if err != nil {
			return nil, badCursor()
		}
		filter.Before = &before
	}
	if err := a.reserve(ctx); err != nil {
		return nil, err
	}
	page, err := ledger.DeadLetters(ctx, a.cfg.DB, filter)
	if err != nil {
		return nil, fmt.Errorf("list dead letters: %w", err)
	}
	out.Body.Items, out.Body.NextCursor = showPage(page, "dead-letters", showDelivery, ledger.Delivery.String)
	return out, nil
}

// DeliveryParam is the delivery in a path.
type DeliveryParam struct {
	ID string `path:"id" doc:"The delivery's id" example:"dlv_42_019a0000-0000-7000-8000-000000000000"`
}

func (a *API) getDelivery(onlyDead bool) func(context.Context, *DeliveryParam) (*struct{ Body DeliveryDetail }, error) {
	return func(ctx context.Context, in *DeliveryParam) (*struct{ Body DeliveryDetail }, error) {
		id, err := ledger.ParseDeliveryID(in.ID)
		if err != nil {
			return nil, err
		}
		if err := a.reserve(ctx); err != nil {
			return nil, err
		}
		d, err := ledger.ByID(ctx, a.cfg.DB, events.DefaultAccount, id)
		if err != nil {
			return nil, fmt.Errorf("read delivery: %w", err)
		}
		if onlyDead && d.Status != ledger.Dead {
			return nil, problem(http.StatusNotFound, "The delivery is "+string(d.Status)+", not dead.")
		}
		out := &struct{ Body DeliveryDetail }{Body: DeliveryDetail{Delivery: showDelivery(d), AttemptsMade: []Attempt{}}}
		attempts, err := ledger.DeliveryAttempts(ctx, a.cfg.DB, id)
		if err != nil {
			return nil, fmt.Errorf("read delivery: %w", err)
		}
		var headers map[string]string
		out.Body.MoreAttempts = attempts.More
		for _, t := range attempts.Items {
			t.EventID, t.EventType = d.EventID, d.EventType
			out.Body.AttemptsMade = append(out.Body.AttemptsMade, showAttempt(t))
			headers = t.RequestHeaders
		}
		out.Body.Request, err = a.requestOf(ctx, d, headers)
		return out, err
	}
}

// requestOf is the request of a delivery: the body as it is sent, the headers
// as they were sent last.
func (a *API) requestOf(ctx context.Context, d ledger.Delivery, headers map[string]string) (*RequestMade, error) {
	record, err := eventlog.At(ctx, a.cfg.DB, d.Position)
	if errors.Is(err, postgres.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read event of delivery: %w", err)
	}
	sub, err := subscription.ByID(ctx, a.cfg.DB, d.Subscription)
	if err != nil {
		return nil, fmt.Errorf("read subscription of delivery: %w", err)
	}
	if headers == nil {
		headers = map[string]string{"Content-Type": "application/json", "Webhook-Id": d.EventID}
	}
	body := record.AppendBody(nil)
	return &RequestMade{Method: http.MethodPost, URL: sub.URL, Headers: headers, Body: string(body), Curl: sender.CurlLine(sub.URL, headers, body)}, nil
}

func (a *API) retryDelivery(ctx context.Context, in *DeliveryParam) (*replayOutput, error) {
	id, err := ledger.ParseDeliveryID(in.ID)
	if err != nil {
		return nil, err
	}
	r, err := replay.RedriveDelivery(ctx, a.cfg.DB, events.DefaultAccount, id)
	if errors.Is(err, postgres.ErrState) {
		return nil, problem(http.StatusConflict, "The delivery is under way: its first attempt is yet to be made.")
	}
	if err != nil {
		return nil, fmt.Errorf("redrive delivery: %w", err)
	}
	out := createdReplay(r)
	out.Status = http.StatusAccepted
	return out, nil
}

// Redrive says which deliveries to put back to work: dead ones, and those that
// wait for a retry.
type Redrive struct {
	IDs          []string  `json:"ids,omitempty" maxItems:"1000" doc:"These"`
	Subscription string    `json:"subscription,omitempty" doc:"Those of this subscription, dead or waiting for a retry, all or by the fields below"`
	ErrorClass   string    `json:"errorClass,omitempty" maxLength:"32" doc:"Whose last attempt failed this way"`
	Status       int       `json:"status,omitempty" minimum:"100" maximum:"999" doc:"Whose last attempt was answered with this HTTP status"`
	Since        Timestamp `json:"since,omitempty" doc:"That died at this time or later"`
	Until        Timestamp `json:"until,omitempty" doc:"That died before this time"`
	Rate         int       `json:"rate,omitempty" minimum:"1" maximum:"100000" doc:"How many are sent in a second at most; left out for no limit"`
}

// Redriven are the replays that do it.
type Redriven struct {
	Replays []Replay `json:"replays" nullable:"false"`
}

func (in Redrive) selections() ([]replay.Selection, error) {
	base := replay.Selection{
		Account: events.DefaultAccount, Cause: replay.CauseRedrive, OnlyDead: true, Unfiltered: true, Rate: in.Rate,
		Dead: ledger.DeadFilter{ErrorClass: in.ErrorClass, LastStatus: in.Status},
	}
	var issues []FieldIssue
	base.Dead.Since, base.Dead.Until = in.Since.time("body", "since", &issues), in.Until.time("body", "until", &issues)
	if issues != nil {
		return nil, invalid(issues...)
	}
	if (in.Subscription == "") == (len(in.IDs) == 0) {
		return nil, invalid(inBody("", "give either ids or a subscription"))
	}
	if in.Subscription != "" {
		id, err := subscription.ParseID(in.Subscription)
		if err != nil {
			return nil, invalid(inBody("subscription", "does not exist"))
		}
		base.Subscription = id
		return []replay.Selection{base}, nil
	}
	ids := make([]ledger.DeliveryID, len(in.IDs))
	for i, text := range in.IDs {
		id, err := ledger.ParseDeliveryID(text)
		if err != nil {
			return nil, invalid(inBody("ids["+strconv.Itoa(i)+"]", "is not the id of a delivery"))
		}
		ids[i] = id
	}
	return replay.SelectionsOf(base, ids), nil
}

func (a *API) redriveDeadLetters(ctx context.Context, in *struct{ Body Redrive }) (*struct{ Body Redriven }, error) {
	selections, err := in.Body.selections()
	if err != nil {
		return nil, err
	}
	out := &struct{ Body Redriven }{Body: Redriven{Replays: []Replay{}}}
	for _, s := range selections {
		r, err := replay.Create(ctx, a.cfg.DB, s)
		if err != nil {
			return nil, replayProblem(err)
		}
		out.Body.Replays = append(out.Body.Replays, showReplay(r))
	}
	return out, nil
}

// Purged says how many dead deliveries were given up.
type Purged struct {
	Purged int64 `json:"purged"`
}

func (a *API) purgeDeadLetters(ctx context.Context, in *struct {
	DeadLetterParams
	Confirm int64 `query:"confirm" required:"true" minimum:"0" doc:"How many there are"`
},
) (*struct{ Body Purged }, error) {
	dead, err := in.filter()
	if err != nil {
		return nil, err
	}
	id, err := subscription.ParseID(in.Subscription)
	if err != nil {
		return nil, invalid(FieldIssue{Location: "query", Field: "subscription", Message: "is required"})
	}
	n, err := ledger.PurgeDeadLetters(ctx, a.cfg.DB, events.DefaultAccount, id, dead, in.Confirm)
	if errors.Is(err, ledger.ErrCount) {
		return nil, problem(http.StatusConflict, fmt.Sprintf("There are %d dead letters, not %d; nothing was done. Confirm with confirm=%d.", n, in.Confirm, n))
	}
	if err != nil {
		return nil, fmt.Errorf("purge dead letters: %w", err)
	}
	return &struct{ Body Purged }{Body: Purged{Purged: n}}, nil
}
