package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"posthorn/services/internal/audit"
	"posthorn/services/internal/eventlog"
	"posthorn/services/internal/ledger"
	"posthorn/services/internal/operate"
	"posthorn/services/internal/subscription"
)

// Event is an event of the log.
type Event struct {
	Position   int64             `json:"position" doc:"Position in the log"`
	ID         string            `json:"id" doc:"Id of the event, which is the webhook-id of its deliveries"`
	Type       string            `json:"type"`
	Subject    string            `json:"subject,omitempty"`
	Source     string            `json:"source,omitempty" doc:"Source of a CloudEvent"`
	SourceID   string            `json:"sourceId,omitempty" doc:"Id of the event at its source, if id differs"`
	DataSchema string            `json:"dataSchema,omitempty" doc:"The URI of the schema of its data"`
	MediaType  string            `json:"dataContentType,omitempty" doc:"Media type of the data, if given; otherwise the data is JSON"`
	Extensions map[string]any    `json:"extensions,omitempty" doc:"Further attributes of a CloudEvent"`
	Data       json.RawMessage   `json:"data,omitempty" doc:"The data, byte for byte; text that is not JSON as a string"`
	DataBase64 []byte            `json:"dataBase64,omitempty" doc:"The data, if it is neither JSON nor text"`
	Metadata   map[string]string `json:"metadata,omitempty" doc:"Metadata, such as a trace context"`
	Test       bool              `json:"test,omitempty" doc:"A test event, for one subscription only"`
	OccurredAt time.Time         `json:"occurredAt"`
	RecordedAt time.Time         `json:"recordedAt"`
}

// EventList is one page.
type EventList struct {
	Items      []Event `json:"items" nullable:"false"`
	NextCursor string  `json:"nextCursor,omitempty" doc:"Pass as cursor to get the next page; absent on the last page"`
}

func showEvent(r eventlog.Record) Event {
	e := Event{
		Position: r.Position, ID: r.ID, Type: r.Type, Subject: r.Subject, Source: r.Source, SourceID: r.SourceID,
		DataSchema: r.DataSchema, MediaType: r.ContentType, Extensions: r.Extensions, Metadata: r.Metadata,
		Test: r.Kind == eventlog.KindTest, OccurredAt: r.OccurredAt.UTC(), RecordedAt: r.RecordedAt.UTC(),
	}
	switch {
	case r.JSON() && json.Valid(r.Data):
		e.Data = r.Data
	case r.JSON() || r.Text():
		// Invalid JSON is older than the check for it.
		quoted, err := json.Marshal(string(r.Data))
		if err != nil {
			quoted = []byte("null") // a string always encodes
		}
		e.Data = quoted
	default:
		e.DataBase64 = r.Data
	}
	return e
}

func (a *API) routeEvents() {
	tags := []string{"Events"}
	register(a, huma.Operation{
		OperationID: "list-events", Method: http.MethodGet, Path: "/events", Tags: tags,
		Summary: "List events, latest first",
		Description: "With order=asc the oldest come first, and only settled events are returned: a reader that continues with after set to " +
			"the last position that it has seen misses nothing, even if transactions commit late.",
	}, a.listEvents)
	register(a, huma.Operation{
		OperationID: "get-event", Method: http.MethodGet, Path: "/events/{id}", Tags: tags, Summary: "Show an event",
	}, a.getEvent)
	register(a, huma.Operation{
		OperationID: "list-event-deliveries", Method: http.MethodGet, Path: "/events/{id}/deliveries", Tags: tags,
		Summary:     "Explain the status of an event for each subscription",
		Description: "Subscriptions without a delivery of it are listed with the reason, as of the event's position in the log.",
	}, a.listEventDeliveries)
}

type listEventsInput struct {
	Type    string    `query:"type" maxLength:"128" doc:"Only events of this type"`
	Subject string    `query:"subject" maxLength:"512" doc:"Only events with this subject"`
	Since   Timestamp `query:"since" doc:"Only events recorded at or after this time"`
	Until   Timestamp `query:"until" doc:"Only events recorded before this time"`
	After   int64     `query:"after" minimum:"0" doc:"Only events with a higher position"`
	Before  int64     `query:"before" minimum:"0" doc:"Only events with a lower position"`
	Order   string    `query:"order" enum:"asc,desc" default:"desc" doc:"desc: the latest first"`
	PageParams
}

func (a *API) listEvents(ctx context.Context, in *listEventsInput) (*struct{ Body EventList }, error) {
	var issues []FieldIssue
	filter := eventlog.Filter{
		Type: in.Type, Subject: in.Subject,
		Since: in.Since.time("query", "since", &issues), Until: in.Until.time("query", "until", &issues),
		After: in.After, Before: in.Before, Ascending: in.Order == "asc", Limit: in.Limit,
	}
	if issues != nil {
		return nil, invalid(issues...)
	}
	if in.Cursor != "" {
		position, err := positionCursor(in.Cursor)
		if err != nil {
			return nil, err
		}
		if filter.Ascending {
			filter.After = max(filter.After, position)
		} else if filter.Before == 0 || position < filter.Before {
			filter.Before = position
		}
	}
	if err := a.reserve(ctx); err != nil {
		return nil, err
	}
	page, err := a.cfg.Operations.Events(ctx, actor(ctx), filter)
	if err != nil {
		return nil, fmt.Errorf("list events: %w", err)
	}
	out := &struct{ Body EventList }{}
	out.Body.Items, out.Body.NextCursor = showPage(page, "events", showEvent, func(r eventlog.Record) string {
		return strconv.FormatInt(r.Position, 10)
	})
	return out, nil
}

// EventParam is the event in a path.
type EventParam struct {
	ID string `path:"id" doc:"The event's id" example:"evt_019a0000-0000-7000-8000-000000000000"`
}

func (a *API) event(ctx context.Context, given EventParam) (eventlog.Record, error) {
	r, err := a.cfg.Operations.Event(ctx, actor(ctx), given.ID)
	if err != nil {
		return eventlog.Record{}, fmt.Errorf("read event: %w", err)
	}
	return r, nil
}

func (a *API) getEvent(ctx context.Context, in *EventParam) (*struct{ Body Event }, error) {
	if err := a.reserve(ctx); err != nil {
		return nil, err
	}
	r, err := a.event(ctx, *in)
	if err != nil {
		return nil, err
	}
	return &struct{ Body Event }{Body: showEvent(r)}, nil
}

// EventDelivery is the status of an event for one subscription.
type EventDelivery struct {
	DeliveryID     string     `json:"deliveryId,omitempty" doc:"Id of the delivery, if there is one"`
	SubscriptionID string     `json:"subscriptionId"`
	Matched        bool       `json:"matched" doc:"Whether the subscription is owed the event"`
	Reason         string     `json:"reason,omitempty" enum:"type,disabled,deleted,createdLater,test,notRelayedYet,quarantined,dropped,unreadable,missing" doc:"Why there is no delivery: none of its event types matched (type); it was disabled or deleted; it was created later; the event is a test for another one; it is on its way (notRelayedYet); the event cannot be forwarded and waits for an operator (quarantined), who may have given it up (dropped); the subscription's record at that time cannot be read (unreadable); or there should be one (missing), which is a fault"`
	Status         string     `json:"status,omitempty" enum:"pending,retrying,delivered,dead,cancelled"`
	Cause          string     `json:"cause,omitempty" doc:"Cause of the delivery: live, retry, replay, redrive or test"`
	Attempts       int        `json:"attempts" doc:"Attempts made"`
	NextAttemptAt  *time.Time `json:"nextAttemptAt,omitempty"`
	LastStatus     int        `json:"lastStatus,omitempty" doc:"The HTTP status of the last attempt"`
	LastError      string     `json:"lastError,omitempty"`
	CreatedAt      *time.Time `json:"createdAt,omitempty"`
	FinishedAt     *time.Time `json:"finishedAt,omitempty"`
}

// EventDeliveryList is one page.
type EventDeliveryList struct {
	EventID    string          `json:"eventId"`
	Position   int64           `json:"position"`
	Items      []EventDelivery `json:"items" nullable:"false"`
	NextCursor string          `json:"nextCursor,omitempty" doc:"Pass as cursor to get the next page; absent on the last page"`
}

func (a *API) listEventDeliveries(ctx context.Context, in *struct {
	EventParam
	PageParams
	Owed bool `query:"owed" doc:"Only those with a delivery"`
},
) (*struct{ Body EventDeliveryList }, error) {
	if err := a.reserve(ctx); err != nil {
		return nil, err
	}
	event, err := a.event(ctx, in.EventParam)
	if err != nil {
		return nil, err
	}
	var after subscription.ID
	if in.Cursor != "" {
		place, err := openCursor("deliveries", in.Cursor)
		if err != nil {
			return nil, err
		}
		if after, err = subscription.ParseID(place); err != nil {
			return nil, badCursor()
		}
	}
	page, err := a.cfg.Operations.EventDeliveries(ctx, event, in.Owed, after, in.Limit)
	if err != nil {
		return nil, fmt.Errorf("list deliveries of event: %w", err)
	}
	out := &struct{ Body EventDeliveryList }{Body: EventDeliveryList{EventID: event.ID, Position: event.Position}}
	out.Body.Items, out.Body.NextCursor = showPage(page, "deliveries",
		func(d audit.EventDelivery) EventDelivery { return showEventDelivery(event.Position, d) },
		func(d audit.EventDelivery) string { return string(d.Subscription) })
	return out, nil
}

func showEventDelivery(position int64, d audit.EventDelivery) EventDelivery {
	v := EventDelivery{
		SubscriptionID: string(d.Subscription),
		Matched:        d.Reason == "" || d.Reason.Matched(),
		Reason:         string(d.Reason), Status: string(d.Status), Cause: string(d.Cause), Attempts: d.Attempts,
		NextAttemptAt: timeOrNil(d.NextAttemptAt), LastStatus: d.LastStatus, LastError: d.LastError,
		CreatedAt: timeOrNil(d.CreatedAt), FinishedAt: timeOrNil(d.FinishedAt),
	}
	if d.Reason == "" {
		v.DeliveryID = ledger.DeliveryID{Position: position, Subscription: d.Subscription}.String()
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

// AttemptList is one page.
type AttemptList struct {
	Items      []operate.Attempt `json:"items" nullable:"false"`
	NextCursor string            `json:"nextCursor,omitempty" doc:"Pass as cursor to get the next page; absent on the last page"`
}

func (a *API) listAttempts(ctx context.Context, in *struct {
	SubscriptionParam
	PageParams
	Failed bool `query:"failed" doc:"Only those that failed"`
},
) (*struct{ Body AttemptList }, error) {
	id, err := in.parse()
	if err != nil {
		return nil, err
	}
	var before *ledger.AttemptKey
	if in.Cursor != "" {
		if before, err = attemptCursor(in.Cursor); err != nil {
			return nil, err
		}
	}
	if err := a.reserve(ctx); err != nil {
		return nil, err
	}
	page, err := a.cfg.Operations.Attempts(ctx, actor(ctx), id, in.Failed, before, in.Limit)
	if err != nil {
		return nil, fmt.Errorf("list attempts: %w", err)
	}
	out := &struct{ Body AttemptList }{}
	out.Body.Items, out.Body.NextCursor = showPage(page, "attempts", operate.ShowAttempt, func(t ledger.LoggedAttempt) string {
		return attemptPlace(ledger.AttemptKey{StartedAt: t.StartedAt, Position: t.Position, Number: t.Number})
	})
	return out, nil
}
