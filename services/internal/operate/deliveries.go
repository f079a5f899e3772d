package operate

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"posthorn/services/internal/account"
	"posthorn/services/internal/eventlog"
	"posthorn/services/internal/ledger"
	"posthorn/services/internal/payload"
	"posthorn/services/internal/postgres"
	"posthorn/services/internal/sender"
	"posthorn/services/internal/subscription"
)

// Delivery is a delivery as front ends show it.
type Delivery struct {
	ID             string     `json:"id" example:"dlv_42_019a0000-0000-7000-8000-000000000000"`
	EventID        string     `json:"eventId"`
	EventType      string     `json:"eventType"`
	Position       int64      `json:"position"`
	SubscriptionID string     `json:"subscriptionId"`
	Status         string     `json:"status" enum:"pending,retrying,delivered,dead,cancelled"`
	Cause          string     `json:"cause" doc:"live, replay, redrive or test"`
	Run            int        `json:"run" doc:"0, incremented by each replay or redrive"`
	Attempts       int        `json:"attempts" doc:"Attempts made in this run"`
	LastStatus     int        `json:"lastStatus,omitempty" doc:"The HTTP status of the last attempt"`
	ErrorClass     string     `json:"errorClass,omitempty" doc:"The class of the last attempt's failure"`
	LastError      string     `json:"lastError,omitempty"`
	NextAttemptAt  *time.Time `json:"nextAttemptAt,omitempty"`
	CreatedAt      *time.Time `json:"createdAt"`
	FinishedAt     *time.Time `json:"finishedAt,omitempty"`
}

// ShowDelivery shows a delivery.
func ShowDelivery(d ledger.Delivery) Delivery {
	return Delivery{
		ID: d.String(), EventID: d.EventID, EventType: d.EventType, Position: d.Position, SubscriptionID: string(d.Subscription),
		Status: string(d.Status), Cause: string(d.Cause), Run: d.Run, Attempts: d.Attempts, LastStatus: d.LastStatus, ErrorClass: d.ErrorClass,
		LastError: d.LastError, NextAttemptAt: timeOrNil(d.NextAttemptAt), CreatedAt: timeOrNil(d.CreatedAt), FinishedAt: timeOrNil(d.FinishedAt),
	}
}

// Attempt is one HTTP request of a delivery as front ends show it.
type Attempt struct {
	DeliveryID      string            `json:"deliveryId"`
	EventID         string            `json:"eventId"`
	EventType       string            `json:"eventType"`
	Run             int               `json:"run" doc:"Run of the delivery: 0, incremented by each replay or redrive"`
	Number          int               `json:"number" doc:"In its run, from 1"`
	Cause           string            `json:"cause" doc:"live, retry, replay, redrive or test"`
	StartedAt       time.Time         `json:"startedAt"`
	DurationMS      float64           `json:"durationMs"`
	Status          int               `json:"status,omitempty" doc:"The HTTP status, if there was a response"`
	Outcome         string            `json:"outcome" doc:"ok, or the class of the failure"`
	Error           string            `json:"error,omitempty"`
	RequestHeaders  map[string]string `json:"requestHeaders,omitempty"`
	ResponseHeaders map[string]string `json:"responseHeaders,omitempty"`
	ResponseBody    string            `json:"responseBody,omitempty" doc:"Truncated"`
	Next            string            `json:"next" doc:"Status of the delivery after the attempt"`
}

// ShowAttempt shows an attempt.
func ShowAttempt(t ledger.LoggedAttempt) Attempt {
	return Attempt{
		DeliveryID: ledger.DeliveryID{Position: t.Position, Subscription: t.Subscription}.String(),
		EventID:    t.EventID, EventType: t.EventType, Run: t.Run, Number: t.Number, Cause: string(t.Cause), StartedAt: t.StartedAt.UTC(),
		DurationMS: float64(t.Duration.Microseconds()) / 1000, Status: t.HTTPStatus, Outcome: t.ErrorClass, Error: t.Error,
		RequestHeaders: t.RequestHeaders, ResponseHeaders: t.ResponseHeaders,
		ResponseBody: strings.ToValidUTF8(string(t.ResponseBody), "\uFFFD"), Next: string(t.Attempt.Status),
	}
}

// RequestMade is the last request of a delivery, or its next one if there was none.
type RequestMade struct {
	Method  string            `json:"method"`
	URL     string            `json:"url" doc:"The subscription's current URL"`
	Headers map[string]string `json:"headers" doc:"Headers of the last attempt; credentials are redacted"`
	Body    string            `json:"body"`
	Curl    string            `json:"curl" doc:"A curl command that repeats the request, with the signature and timestamp of the last attempt"`
}

// DeliveryDetail is a delivery with its attempts and its request.
type DeliveryDetail struct {
	Delivery
	// Status is the delivery's status, typed.
	Status ledger.Status
	// Attempts of all runs, oldest first; More reports whether there are earlier ones.
	Attempts []Attempt
	More     bool
	// Request is nil if the event is no longer in the log.
	Request *RequestMade
}

// Delivery returns one of the actor's deliveries with its attempts and its request.
func (o *Operations) Delivery(ctx context.Context, by account.Actor, id ledger.DeliveryID) (DeliveryDetail, error) {
	d, err := ledger.ByID(ctx, o.db, by.Account, id)
	if err != nil {
		return DeliveryDetail{}, err
	}
	page, err := ledger.DeliveryAttempts(ctx, o.db, id)
	if err != nil {
		return DeliveryDetail{}, err
	}
	detail := DeliveryDetail{Delivery: ShowDelivery(d), Status: d.Status, Attempts: make([]Attempt, len(page.Items)), More: page.More}
	var headers map[string]string
	for i, t := range page.Items {
		t.EventID, t.EventType = d.EventID, d.EventType
		detail.Attempts[i], headers = ShowAttempt(t), t.RequestHeaders
	}
	detail.Request, err = o.requestOf(ctx, d, headers)
	return detail, err
}

// requestOf returns the request of a delivery: the body as sent, the headers of its last attempt
// (nil if there was none), and the curl command that repeats it. It returns nil if the event is no
// longer in the log.
func (o *Operations) requestOf(ctx context.Context, d ledger.Delivery, headers map[string]string) (*RequestMade, error) {
	record, err := eventlog.At(ctx, o.db, d.Position)
	if errors.Is(err, postgres.ErrNotFound) {
		return nil, nil //nolint:nilnil // there is no request to show
	}
	if err != nil {
		return nil, fmt.Errorf("read event of delivery: %w", err)
	}
	sub, err := subscription.ByID(ctx, o.db, d.Subscription)
	if err != nil {
		return nil, fmt.Errorf("read subscription of delivery: %w", err)
	}
	p := payload.Render(&record)
	if headers == nil {
		headers = p.Shown()
	}
	return &RequestMade{
		Method: http.MethodPost, URL: sub.URL, Headers: headers, Body: string(p.Body), Curl: sender.CurlLine(sub.URL, headers, p.Body),
	}, nil
}

// Attempts returns a page of a subscription's attempts, latest first, starting
// before one of them; with failed only the failed ones.
func (o *Operations) Attempts(ctx context.Context, by account.Actor, id subscription.ID, failed bool, before *ledger.AttemptKey, limit int) (postgres.Page[ledger.LoggedAttempt], error) {
	if _, err := subscription.OfAccount(ctx, o.db, by.Account, id); err != nil {
		return postgres.Page[ledger.LoggedAttempt]{}, err
	}
	return ledger.Attempts(ctx, o.db, id, failed, before, limit)
}

// DeadLetters returns a page of the actor's dead letters, those of the latest events first.
func (o *Operations) DeadLetters(ctx context.Context, by account.Actor, f ledger.DeadLetterFilter) (postgres.Page[ledger.Delivery], error) {
	f.Account = by.Account
	return ledger.DeadLetters(ctx, o.db, f)
}

// PurgeDeadLetters cancels dead letters of a subscription if their number is the confirmed one.
// Otherwise it returns their number with ledger.ErrCount.
func (o *Operations) PurgeDeadLetters(ctx context.Context, by account.Actor, id subscription.ID, f ledger.DeadFilter, confirmed int64) (int64, error) {
	return ledger.PurgeDeadLetters(ctx, o.db, by.Account, id, f, confirmed)
}
