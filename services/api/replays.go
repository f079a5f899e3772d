package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"github.com/danielgtaylor/huma/v2"

	"posthorn/services/internal/account"
	"posthorn/services/internal/eventlog"
	"posthorn/services/internal/operate"
	"posthorn/services/internal/postgres"
	"posthorn/services/internal/replay"
	"posthorn/services/internal/subscription"
)

// Place is a place in the log: a number or text.
type Place string

// UnmarshalJSON accepts a number as its text.
func (p *Place) UnmarshalJSON(b []byte) error {
	if firstByte(b) != '"' {
		*p = Place(b)
		return nil
	}
	var text string
	if err := json.Unmarshal(b, &text); err != nil {
		return fmt.Errorf("read place: %w", err)
	}
	*p = Place(text)
	return nil
}

// Schema describes both forms.
func (Place) Schema(huma.Registry) *huma.Schema {
	zero, most := 0.0, 64
	return &huma.Schema{OneOf: []*huma.Schema{{Type: huma.TypeString, MaxLength: &most}, {Type: huma.TypeInteger, Minimum: &zero}}}
}

// place reads a field of the body.
func (p Place) place(field string, wrong *subscription.InvalidError) eventlog.Place {
	place, err := eventlog.ParsePlace(string(p))
	if err != nil {
		*wrong = append(*wrong, subscription.FieldError{Field: field, Message: err.Error()})
	}
	return place
}

// NewReplay is the body of POST /replays.
type NewReplay struct {
	Subscription string   `json:"subscription" doc:"Subscription to deliver the events to" example:"sub_019a0000-0000-7000-8000-000000000000"`
	From         Place    `json:"from,omitempty" doc:"First event: a position, a time, or beginning (the default)"`
	To           Place    `json:"to,omitempty" doc:"Last event: a position, an end time (exclusive), or now (the default)"`
	EventTypes   []string `json:"eventTypes,omitempty" maxItems:"250" doc:"Only events of these types; patterns as in a subscription"`
	Subjects     []string `json:"subjects,omitempty" maxItems:"1000" doc:"Only events about these subjects"`
	EventIDs     []string `json:"eventIds,omitempty" maxItems:"1000" doc:"Only these events"`
	OnlyDead     bool     `json:"onlyDead,omitempty" doc:"Only events whose delivery is dead"`
	Filter       string   `json:"filter,omitempty" enum:"subscription,none" doc:"subscription (the default): only events that match the subscription's current event types; none: all events"`
	Rate         int      `json:"rate,omitempty" minimum:"1" maximum:"100000" doc:"Maximum number of events sent per second; no limit if omitted"`
	DryRun       bool     `json:"dryRun,omitempty" doc:"Count the events and show the first 20, and change nothing"`
}

// request converts the body into a request to operate.
func (in NewReplay) request(by account.Actor) (operate.ReplayRequest, error) {
	var wrong subscription.InvalidError
	r := operate.ReplayRequest{
		Subscription: in.Subscription, From: in.From.place("from", &wrong), To: in.To.place("to", &wrong), EventTypes: in.EventTypes,
		Subjects: in.Subjects, EventIDs: in.EventIDs, OnlyDead: in.OnlyDead, IgnoreEventTypes: in.Filter == "none", Rate: in.Rate,
	}
	// Report all invalid fields at once.
	if _, err := r.Selection(by); err != nil {
		var more subscription.InvalidError
		if !errors.As(err, &more) {
			return r, err
		}
		wrong = append(wrong, more...)
	}
	if wrong != nil {
		return r, wrong
	}
	return r, nil
}

// Replay delivers past events again to one subscription.
type Replay struct {
	operate.Replay
	First []Event `json:"first,omitempty" doc:"With dryRun, the first 20 events, or fewer if they exceed a megabyte"`
}

// ReplayList is one page.
type ReplayList struct {
	Items      []Replay `json:"items" nullable:"false"`
	NextCursor string   `json:"nextCursor,omitempty" doc:"Pass as cursor to get the next page; absent on the last page"`
}

func showReplay(r replay.Replay) Replay { return Replay{Replay: operate.ShowReplay(r)} }

type replayOutput struct {
	Status   int
	Location string `header:"Location"`
	Body     Replay
}

func (a *API) routeReplays() {
	op := func(id, method, path, summary string) huma.Operation {
		return huma.Operation{OperationID: id, Method: method, Path: path, Summary: summary, Tags: []string{"Replays"}}
	}
	create := op("create-replay", http.MethodPost, "/replays", "Deliver past events again, to one subscription")
	create.Description = "The requests keep their original webhook-id. Deliveries that are pending or in flight are skipped. " +
		"With dryRun the events are counted, nothing is changed, and the response is a 200."
	create.DefaultStatus = http.StatusCreated
	register(a, create, a.createReplay)
	register(a, op("list-replays", http.MethodGet, "/replays", "List replays, latest first"), a.listReplays)
	register(a, op("get-replay", http.MethodGet, "/replays/{id}", "Show a replay and its progress"), a.getReplay)
	register(a, op("pause-replay", http.MethodPost, "/replays/{id}/pause", "Pause a replay"), a.setReplay(replay.Paused))
	register(a, op("resume-replay", http.MethodPost, "/replays/{id}/resume", "Resume a replay that is paused or has failed"),
		a.setReplay(replay.Running))
	register(a, op("cancel-replay", http.MethodPost, "/replays/{id}/cancel", "Cancel a replay; deliveries that were sent are still made"),
		a.setReplay(replay.Cancelled))
	register(a, op("delete-replay", http.MethodDelete, "/replays/{id}", "Cancel a replay, like POST /replays/{id}/cancel"),
		a.setReplay(replay.Cancelled))
}

func (a *API) createReplay(ctx context.Context, in *struct{ Body NewReplay }) (*replayOutput, error) {
	request, err := in.Body.request(actor(ctx))
	if err != nil {
		return nil, err
	}
	if in.Body.DryRun {
		if err := a.reserve(ctx); err != nil {
			return nil, err
		}
		preview, err := a.cfg.Operations.PreviewReplay(ctx, actor(ctx), request, 20)
		if err != nil {
			return nil, replayProblem(err)
		}
		r := showReplay(preview.Replay)
		r.ID, r.Status, r.Progress, r.Position = "", "dryRun", 0, preview.After
		r.Matched, r.Skipped = preview.Matched, preview.Skipped
		for _, e := range preview.First {
			r.First = append(r.First, showEvent(eventlog.Record{Kind: eventlog.KindEvent, Event: e}))
		}
		return &replayOutput{Status: http.StatusOK, Body: r}, nil
	}
	r, err := a.cfg.Operations.StartReplay(ctx, actor(ctx), request)
	if err != nil {
		return nil, replayProblem(err)
	}
	return createdReplay(r), nil
}

func createdReplay(r replay.Replay) *replayOutput {
	return &replayOutput{Status: http.StatusCreated, Location: "/replays/" + string(r.ID), Body: showReplay(r)}
}

// replayProblem names the invalid field of a replay that cannot be created.
func replayProblem(err error) error {
	switch {
	case errors.Is(err, postgres.ErrNotFound):
		return subscription.InvalidError{{Field: "subscription", Message: "does not exist"}}
	case errors.Is(err, replay.ErrUnknownEvents):
		return subscription.InvalidError{{Field: "eventIds", Message: "none of them is in the log"}}
	default:
		return fmt.Errorf("create replay: %w", err)
	}
}

func (a *API) listReplays(ctx context.Context, in *struct {
	Subscription string `query:"subscription" doc:"Only those of this subscription"`
	Status       string `query:"status" enum:"running,paused,cancelled,done,failed" doc:"Only those with this status"`
	PageParams
},
) (*struct{ Body ReplayList }, error) {
	filter := replay.Filter{Status: replay.Status(in.Status), Limit: in.Limit}
	out := &struct{ Body ReplayList }{Body: ReplayList{Items: []Replay{}}}
	if in.Subscription != "" {
		id, err := subscription.ParseID(in.Subscription)
		if err != nil {
			return out, nil //nolint:nilerr // no replay has such a subscription
		}
		filter.Subscription = id
	}
	if in.Cursor != "" {
		place, err := openCursor("replays", in.Cursor)
		if err != nil {
			return nil, err
		}
		if filter.Before, err = replay.ParseID(place); err != nil {
			return nil, badCursor()
		}
	}
	if err := a.reserve(ctx); err != nil {
		return nil, err
	}
	page, err := a.cfg.Operations.Replays(ctx, actor(ctx), filter)
	if err != nil {
		return nil, fmt.Errorf("list replays: %w", err)
	}
	out.Body.Items, out.Body.NextCursor = showPage(page, "replays", showReplay, func(r replay.Replay) string { return string(r.ID) })
	return out, nil
}

// ReplayParam is the replay in a path.
type ReplayParam struct {
	ID string `path:"id" doc:"The replay's id" example:"rpl_019a0000-0000-7000-8000-000000000000"`
}

func (a *API) getReplay(ctx context.Context, in *ReplayParam) (*replayOutput, error) {
	id, err := replay.ParseID(in.ID)
	if err != nil {
		return nil, err
	}
	r, err := a.cfg.Operations.Replay(ctx, actor(ctx), id)
	if err != nil {
		return nil, fmt.Errorf("read replay: %w", err)
	}
	return &replayOutput{Status: http.StatusOK, Body: showReplay(r)}, nil
}

func (a *API) setReplay(status replay.Status) func(context.Context, *ReplayParam) (*replayOutput, error) {
	return func(ctx context.Context, in *ReplayParam) (*replayOutput, error) {
		id, err := replay.ParseID(in.ID)
		if err != nil {
			return nil, err
		}
		r, err := a.cfg.Operations.SetReplayStatus(ctx, actor(ctx), id, status)
		if errors.Is(err, postgres.ErrState) {
			return nil, problem(http.StatusConflict, "The replay is "+strconv.Quote(string(r.Status))+" and can no longer be changed this way.")
		}
		if err != nil {
			return nil, fmt.Errorf("change replay: %w", err)
		}
		return &replayOutput{Status: http.StatusOK, Body: showReplay(r)}, nil
	}
}
