package operate

import (
	"context"
	"fmt"
	"strings"
	"time"

	"posthorn/events"
	"posthorn/services/internal/account"
	"posthorn/services/internal/eventlog"
	"posthorn/services/internal/ledger"
	"posthorn/services/internal/postgres"
	"posthorn/services/internal/replay"
	"posthorn/services/internal/subscription"
)

// ReplayRequest is a request to deliver past events again to one subscription.
// The zero value of a field selects all.
type ReplayRequest struct {
	Subscription     string
	From, To         eventlog.Place
	EventTypes       []string
	Subjects         []string
	EventIDs         []string
	OnlyDead         bool
	IgnoreEventTypes bool // the subscription's
	Rate             int
}

// Selection converts the request, or returns a subscription.InvalidError that
// names the fields as the HTTP API does.
func (r ReplayRequest) Selection(by account.Actor) (replay.Selection, error) {
	s := replay.Selection{
		Account: by.Account, Cause: ledger.CauseReplay, From: r.From, To: r.To, Subjects: r.Subjects, EventIDs: r.EventIDs,
		OnlyDead: r.OnlyDead, Unfiltered: r.IgnoreEventTypes, Rate: r.Rate,
	}
	var wrong subscription.InvalidError
	add := func(field, message string) {
		wrong = append(wrong, subscription.FieldError{Field: field, Message: message})
	}
	var err error
	if s.Subscription, err = subscription.ParseID(r.Subscription); err != nil {
		add("subscription", err.Error())
	}
	if r.Rate < 0 {
		add("rate", "must not be negative")
	}
	for i, t := range r.EventTypes {
		p, err := events.ParsePattern(t)
		if err != nil {
			add(fmt.Sprintf("eventTypes[%d]", i), strings.TrimPrefix(err.Error(), events.ErrInvalid.Error()+": event type: "))
		}
		s.EventTypes = append(s.EventTypes, p)
	}
	for i, subject := range r.Subjects {
		if subject == "" || events.ValidateSubject(subject) != nil {
			add(fmt.Sprintf("subjects[%d]", i), "is not a subject")
		}
	}
	for i, id := range r.EventIDs {
		if events.ValidateID(id) != nil {
			add(fmt.Sprintf("eventIds[%d]", i), "is not the id of an event")
		}
	}
	if wrong != nil {
		return s, wrong
	}
	return s, nil
}

// Replay returns one of the actor's replays.
func (o *Operations) Replay(ctx context.Context, by account.Actor, id replay.ID) (replay.Replay, error) {
	return replay.ByID(ctx, o.db, by.Account, id)
}

// Replays returns a page of the actor's replays, latest first.
func (o *Operations) Replays(ctx context.Context, by account.Actor, f replay.Filter) (postgres.Page[replay.Replay], error) {
	f.Account = by.Account
	return replay.List(ctx, o.db, f)
}

// SetReplayStatus pauses, resumes or cancels a replay. If its state does not
// allow that, it returns the unchanged replay with postgres.ErrState.
func (o *Operations) SetReplayStatus(ctx context.Context, by account.Actor, id replay.ID, status replay.Status) (replay.Replay, error) {
	return replay.SetStatus(ctx, o.db, by.Account, id, status)
}

// StartReplay begins a replay.
func (o *Operations) StartReplay(ctx context.Context, by account.Actor, r ReplayRequest) (replay.Replay, error) {
	s, err := r.Selection(by)
	if err != nil {
		return replay.Replay{}, err
	}
	return replay.Create(ctx, o.db, s)
}

// PreviewReplay counts the events of a replay, shows the first ones, and
// changes nothing.
func (o *Operations) PreviewReplay(ctx context.Context, by account.Actor, r ReplayRequest, first int) (replay.Preview, error) {
	s, err := r.Selection(by)
	if err != nil {
		return replay.Preview{}, err
	}
	return replay.PreviewOf(ctx, o.db, s, first)
}

// RedriveRequest is a request to redrive deliveries: the given ones, or those of a subscription
// that are dead or wait for a retry.
type RedriveRequest struct {
	IDs          []string
	Subscription string
	Dead         ledger.DeadFilter
	// Finished includes given deliveries that were delivered or cancelled.
	Finished bool
	Rate     int
}

// selections returns one selection for each subscription, or a subscription.InvalidError.
func (r RedriveRequest) selections(by account.Actor) ([]replay.Selection, error) {
	invalid := func(field, message string) ([]replay.Selection, error) {
		return nil, subscription.InvalidError{{Field: field, Message: message}}
	}
	base := replay.Selection{Account: by.Account, Cause: ledger.CauseRedrive, OnlyDead: !r.Finished || len(r.IDs) == 0, Unfiltered: true, Rate: r.Rate, Dead: r.Dead}
	switch {
	case (r.Subscription == "") == (len(r.IDs) == 0):
		return invalid("", "give either ids or a subscription")
	case r.Rate < 0:
		return invalid("rate", "must not be negative")
	case r.Subscription != "":
		id, err := subscription.ParseID(r.Subscription)
		if err != nil {
			return invalid("subscription", "does not exist")
		}
		base.Subscription = id
		return []replay.Selection{base}, nil
	}
	ids := make([]ledger.DeliveryID, len(r.IDs))
	for i, text := range r.IDs {
		id, err := ledger.ParseDeliveryID(text)
		if err != nil {
			return invalid(fmt.Sprintf("ids[%d]", i), "is not the id of a delivery")
		}
		ids[i] = id
	}
	return replay.SelectionsOf(base, ids), nil
}

// Redrive begins a replay with the cause redrive for each subscription with
// deliveries in the request.
func (o *Operations) Redrive(ctx context.Context, by account.Actor, r RedriveRequest) ([]replay.Replay, error) {
	selections, err := r.selections(by)
	if err != nil {
		return nil, err
	}
	replays := make([]replay.Replay, 0, len(selections))
	for _, s := range selections {
		begun, err := replay.Create(ctx, o.db, s)
		if err != nil {
			return replays, fmt.Errorf("redrive to %s: %w", s.Subscription, err)
		}
		replays = append(replays, begun)
	}
	return replays, nil
}

// Retry starts a new run of one delivery, however it ended, or at once if it
// waits for a retry. It returns StateError if its first attempt has not been
// made yet.
func (o *Operations) Retry(ctx context.Context, by account.Actor, id ledger.DeliveryID) (replay.Replay, error) {
	d, err := ledger.ByID(ctx, o.db, by.Account, id)
	if err != nil {
		return replay.Replay{}, err
	}
	if d.Status == ledger.Pending {
		return replay.Replay{}, StateError{"The delivery is pending: its first attempt has not been made yet."}
	}
	return replay.Create(ctx, o.db, replay.Selection{
		Account: by.Account, Subscription: id.Subscription, Cause: ledger.CauseRedrive, Positions: []int64{id.Position}, Unfiltered: true,
	})
}

// Replay is a replay as front ends show it.
type Replay struct {
	ID           string     `json:"id,omitempty" example:"rpl_019a0000-0000-7000-8000-000000000000"`
	Subscription string     `json:"subscription"`
	Cause        string     `json:"cause" doc:"replay or redrive; also the cause of its first attempts"`
	From         int64      `json:"from" doc:"First position considered"`
	To           int64      `json:"to" doc:"Last position considered; later events are not part of the replay"`
	EventTypes   []string   `json:"eventTypes,omitempty"`
	Subjects     []string   `json:"subjects,omitempty"`
	EventIDs     []string   `json:"eventIds,omitempty"`
	OnlyDead     bool       `json:"onlyDead"`
	Filter       string     `json:"filter" enum:"subscription,none"`
	Rate         int        `json:"rate,omitempty"`
	Status       string     `json:"status" enum:"running,paused,cancelled,done,failed,dryRun" doc:"done: everything is sent; deliveries may still be in progress"`
	Position     int64      `json:"position" doc:"Current position"`
	Progress     float64    `json:"progress" doc:"Progress from 0 to 1"`
	Matched      int64      `json:"matched" doc:"Events selected so far, or with dryRun, that would be selected"`
	Sent         int64      `json:"sent" doc:"Events sent"`
	Skipped      int64      `json:"skipped" doc:"Events skipped because their delivery is in progress"`
	Error        string     `json:"error,omitempty"`
	CreatedAt    *time.Time `json:"createdAt,omitempty"`
	UpdatedAt    *time.Time `json:"updatedAt,omitempty"`
	FinishedAt   *time.Time `json:"finishedAt,omitempty"`
}

// ShowReplay shows a replay.
func ShowReplay(r replay.Replay) Replay {
	v := Replay{
		ID: string(r.ID), Subscription: string(r.Subscription), Cause: string(r.Cause), From: r.After + 1, To: r.Through,
		Subjects: r.Subjects, EventIDs: r.EventIDs, OnlyDead: r.OnlyDead, Filter: "subscription", Rate: r.Rate,
		Status: string(r.Status), Position: r.Position, Progress: 1, Matched: r.Matched, Sent: r.Sent, Skipped: r.Skipped, Error: r.Error,
		CreatedAt: timeOrNil(r.CreatedAt), UpdatedAt: timeOrNil(r.UpdatedAt), FinishedAt: timeOrNil(r.FinishedAt),
	}
	if r.Unfiltered {
		v.Filter = "none"
	}
	if r.Through > r.After {
		v.Progress = float64(r.Position-r.After) / float64(r.Through-r.After)
	}
	for _, p := range r.EventTypes {
		v.EventTypes = append(v.EventTypes, string(p))
	}
	return v
}

func timeOrNil(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}
