package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"posthorn/services/internal/ledger"
	"posthorn/services/internal/operate"
	"posthorn/services/internal/subscription"
)

// DeliveryList is one page.
type DeliveryList struct {
	Items      []operate.Delivery `json:"items" nullable:"false"`
	NextCursor string             `json:"nextCursor,omitempty" doc:"Pass as cursor to get the next page; absent on the last page"`
}

// DeliveryDetail is a delivery with its attempts and its request.
type DeliveryDetail struct {
	operate.Delivery
	AttemptsMade []operate.Attempt    `json:"attemptsMade" nullable:"false" doc:"Attempts of all runs, oldest first"`
	MoreAttempts bool                 `json:"moreAttempts,omitempty" doc:"Whether earlier attempts exist; see the attempts of the subscription"`
	Request      *operate.RequestMade `json:"request,omitempty" doc:"Omitted if the event is no longer in the log"`
}

func (a *API) routeDeadLetters() {
	op := func(id, method, path, tag, summary string) huma.Operation {
		return huma.Operation{OperationID: id, Method: method, Path: path, Summary: summary, Tags: []string{tag}}
	}
	register(a, op("list-dead-letters", http.MethodGet, "/dead-letters", "Dead letters", "List dead letters, latest events first"), a.listDeadLetters)
	register(a, op("get-dead-letter", http.MethodGet, "/dead-letters/{id}", "Dead letters", "Show a dead letter with its attempts and its request"), a.getDelivery(true))
	redrive := op("redrive-dead-letters", http.MethodPost, "/dead-letters/redrive", "Dead letters", "Redrive dead letters and deliveries that are waiting for a retry")
	redrive.Description = "Redrives the given deliveries, or those of a subscription. Each subscription gets a replay, which can be watched, paused and cancelled."
	redrive.DefaultStatus = http.StatusAccepted
	register(a, redrive, a.redriveDeadLetters)
	register(a, op("purge-dead-letters", http.MethodDelete, "/dead-letters", "Dead letters", "Cancel dead letters; the request has to confirm their number"), a.purgeDeadLetters)
	register(a, op("get-delivery", http.MethodGet, "/deliveries/{id}", "Deliveries", "Show a delivery with its attempts and its request"), a.getDelivery(false))
	retry := op("retry-delivery", http.MethodPost, "/deliveries/{id}/retry", "Deliveries", "Retry a delivery now, whatever its status, except for a pending one")
	retry.DefaultStatus = http.StatusAccepted
	register(a, retry, a.retryDelivery)
}

// DeadLetterParams select dead deliveries.
type DeadLetterParams struct {
	Subscription string    `query:"subscription" doc:"Only those of this subscription"`
	ErrorClass   string    `query:"errorClass" maxLength:"32" doc:"Only those whose last attempt failed with this class: status, timeout, connect, address, tls or protocol"`
	Status       int       `query:"status" minimum:"100" maximum:"999" doc:"Only those whose last attempt got this HTTP status"`
	Since        Timestamp `query:"since" doc:"Only dead letters that died at or after this time"`
	Until        Timestamp `query:"until" doc:"Only dead letters that died before this time"`
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
	filter := ledger.DeadLetterFilter{DeadFilter: dead, Limit: in.Limit}
	out := &struct{ Body DeliveryList }{Body: DeliveryList{Items: []operate.Delivery{}}}
	if in.Subscription != "" {
		if filter.Subscription, err = subscription.ParseID(in.Subscription); err != nil {
			return out, nil //nolint:nilerr // no dead letter has such a subscription
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
	page, err := a.cfg.Operations.DeadLetters(ctx, actor(ctx), filter)
	if err != nil {
		return nil, fmt.Errorf("list dead letters: %w", err)
	}
	out.Body.Items, out.Body.NextCursor = showPage(page, "dead-letters", operate.ShowDelivery, ledger.Delivery.String)
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
		d, err := a.cfg.Operations.Delivery(ctx, actor(ctx), id)
		if err != nil {
			return nil, fmt.Errorf("read delivery: %w", err)
		}
		if onlyDead && d.Status != ledger.Dead {
			return nil, problem(http.StatusNotFound, "The delivery is "+string(d.Status)+", not dead.")
		}
		return &struct{ Body DeliveryDetail }{Body: DeliveryDetail{
			Delivery: d.Delivery, AttemptsMade: d.Attempts, MoreAttempts: d.More, Request: d.Request,
		}}, nil
	}
}

func (a *API) retryDelivery(ctx context.Context, in *DeliveryParam) (*replayOutput, error) {
	id, err := ledger.ParseDeliveryID(in.ID)
	if err != nil {
		return nil, err
	}
	r, err := a.cfg.Operations.Retry(ctx, actor(ctx), id)
	if err != nil {
		return nil, fmt.Errorf("redrive delivery: %w", err)
	}
	out := createdReplay(r)
	out.Status = http.StatusAccepted
	return out, nil
}

// Redrive selects the deliveries to redrive: dead ones, and those that wait for
// a retry.
type Redrive struct {
	IDs          []string  `json:"ids,omitempty" maxItems:"1000" doc:"Redrive these deliveries"`
	Subscription string    `json:"subscription,omitempty" doc:"Redrive the dead letters and waiting retries of this subscription, all or filtered by the fields below"`
	ErrorClass   string    `json:"errorClass,omitempty" maxLength:"32" doc:"Only those whose last attempt failed with this class"`
	Status       int       `json:"status,omitempty" minimum:"100" maximum:"999" doc:"Only those whose last attempt got this HTTP status"`
	Since        Timestamp `json:"since,omitempty" doc:"Only dead letters that died at or after this time"`
	Until        Timestamp `json:"until,omitempty" doc:"Only dead letters that died before this time"`
	Rate         int       `json:"rate,omitempty" minimum:"1" maximum:"100000" doc:"Maximum number sent per second; no limit if omitted"`
}

// Redriven lists the replays that carry out a redrive.
type Redriven struct {
	Replays []Replay `json:"replays" nullable:"false"`
}

func (a *API) redriveDeadLetters(ctx context.Context, in *struct{ Body Redrive }) (*struct{ Body Redriven }, error) {
	b := in.Body
	dead := ledger.DeadFilter{ErrorClass: b.ErrorClass, LastStatus: b.Status}
	var issues []FieldIssue
	dead.Since, dead.Until = b.Since.time("body", "since", &issues), b.Until.time("body", "until", &issues)
	if issues != nil {
		return nil, invalid(issues...)
	}
	replays, err := a.cfg.Operations.Redrive(ctx, actor(ctx),
		operate.RedriveRequest{IDs: b.IDs, Subscription: b.Subscription, Dead: dead, Rate: b.Rate})
	if err != nil {
		return nil, replayProblem(err)
	}
	out := &struct{ Body Redriven }{Body: Redriven{Replays: make([]Replay, len(replays))}}
	for i, r := range replays {
		out.Body.Replays[i] = showReplay(r)
	}
	return out, nil
}

// Purged is the number of dead deliveries that were given up.
type Purged struct {
	Purged int64 `json:"purged"`
}

func (a *API) purgeDeadLetters(ctx context.Context, in *struct {
	DeadLetterParams
	Confirm int64 `query:"confirm" required:"true" minimum:"0" doc:"The number of dead letters"`
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
	n, err := a.cfg.Operations.PurgeDeadLetters(ctx, actor(ctx), id, dead, in.Confirm)
	if errors.Is(err, ledger.ErrCount) {
		return nil, problem(http.StatusConflict, fmt.Sprintf("There are %d dead letters, not %d; nothing was done. Confirm with confirm=%d.", n, in.Confirm, n))
	}
	if err != nil {
		return nil, fmt.Errorf("purge dead letters: %w", err)
	}
	return &struct{ Body Purged }{Body: Purged{Purged: n}}, nil
}
