package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"posthorn/services/internal/audit"
	"posthorn/services/internal/eventlog"
	"posthorn/services/internal/ledger"
	"posthorn/services/internal/operate"
	"posthorn/services/internal/postgres"
	"posthorn/services/internal/subscription"
)

type explainCmd struct {
	databaseFlags
	Event   string `arg:"" help:"Id or position of the event."`
	Account string `help:"The account that the id belongs to." default:"default"`
	JSON    bool   `name:"json" help:"Print one JSON object."`
}

// explained is the status of an event for one subscription, in JSON.
type explained struct {
	Subscription  string        `json:"subscription"`
	Delivery      bool          `json:"delivery"`
	Reason        audit.Reason  `json:"reason,omitempty"`
	Status        ledger.Status `json:"status,omitempty"`
	Cause         ledger.Cause  `json:"cause,omitempty"`
	Attempts      int           `json:"attempts,omitempty"`
	LastStatus    int           `json:"lastStatus,omitempty"`
	LastError     string        `json:"lastError,omitempty"`
	NextAttemptAt time.Time     `json:"nextAttemptAt,omitzero"`
	FinishedAt    time.Time     `json:"finishedAt,omitzero"`
}

func (c *explainCmd) Run(ctx context.Context, e *env) error {
	pool, err := c.open("explain", 1)
	if err != nil {
		return err
	}
	defer func() { _ = pool.Close() }()
	operations := operate.New(pool, nil)
	event, err := findRecord(ctx, pool, c.Account, c.Event)
	if err != nil {
		return err
	}
	if event.Kind == eventlog.KindSubscription {
		return fmt.Errorf("position %d is not an event but a change of subscription %s", event.Position, event.Subject)
	}
	aside, err := operations.Quarantined(ctx, event.Position)
	if err != nil && !errors.Is(err, postgres.ErrNotFound) {
		return err
	}
	list := []explained{}
	for after := subscription.ID(""); ; {
		const page = 200
		part, err := operations.EventDeliveries(ctx, event, false, after, page)
		if err != nil {
			return err
		}
		for _, d := range part.Items {
			after = d.Subscription
			list = append(list, explained{
				string(d.Subscription), d.Reason == "", d.Reason, d.Status, d.Cause, d.Attempts, d.LastStatus, d.LastError,
				d.NextAttemptAt, d.FinishedAt,
			})
		}
		if !part.More {
			break
		}
	}
	if c.JSON {
		err := json.NewEncoder(e.out).Encode(struct {
			Event      string        `json:"event"`
			Position   int64         `json:"position"`
			Kind       eventlog.Kind `json:"kind"`
			Account    string        `json:"account"`
			Type       string        `json:"type"`
			Subject    string        `json:"subject"`
			RecordedAt time.Time     `json:"recordedAt"`
			// Quarantine says whether, and why, the event was set aside.
			Quarantine       eventlog.QuarantineStatus `json:"quarantine,omitempty"`
			QuarantineReason string                    `json:"quarantineReason,omitempty"`
			Subscriptions    []explained               `json:"subscriptions"`
		}{
			event.ID, event.Position, event.Kind, event.Account, event.Type, event.Subject, event.RecordedAt.UTC(),
			aside.Status, aside.Reason, list,
		})
		if err != nil {
			return fmt.Errorf("print explanation: %w", err)
		}
		return nil
	}
	p := printer{w: e.out}
	p.printf("%s %s at position %d of account %s: type %s, subject %+q, recorded %s\n", event.Kind, event.ID, event.Position,
		event.Account, event.Type, event.Subject, event.RecordedAt.UTC().Format(time.RFC3339))
	if aside.Status != "" {
		p.printf("set aside, %s: %+q\n", aside.Status, aside.Reason)
	}
	for _, x := range list {
		p.printf("%s: %s\n", x.Subscription, x.words())
	}
	if len(list) == 0 {
		p.printf("the account has no subscriptions\n")
	}
	return p.err
}

// words describes the status in words.
func (x explained) words() string {
	if !x.Delivery {
		return "no delivery: " + reasonWords(x.Reason)
	}
	text := fmt.Sprintf("%s after %d attempts (%s)", x.Status, x.Attempts, x.Cause)
	if x.LastStatus != 0 {
		text += fmt.Sprintf(", last status %d", x.LastStatus)
	}
	if x.LastError != "" {
		text += fmt.Sprintf(", last error %+q", x.LastError)
	}
	if !x.NextAttemptAt.IsZero() {
		text += ", due " + x.NextAttemptAt.UTC().Format(time.RFC3339)
	}
	if !x.FinishedAt.IsZero() {
		text += ", finished " + x.FinishedAt.UTC().Format(time.RFC3339)
	}
	return text
}

func reasonWords(r audit.Reason) string {
	switch r {
	case audit.NoMatch:
		return "none of its event types matched"
	case audit.WasDisabled:
		return "it was disabled at that position"
	case audit.WasDeleted:
		return "it was deleted before"
	case audit.CreatedLater:
		return "it was created after the event"
	case audit.TestOfOther:
		return "the test event is for another subscription"
	case audit.NotRelayed:
		return "the relay has not reached the event yet"
	case audit.InQuarantine:
		return "the relay could not forward the event; see posthorn outbox quarantine list"
	case audit.GivenUp:
		return "the event could not be forwarded and was given up"
	case audit.Unreadable:
		return "the subscription's record at that time cannot be read"
	case audit.Unexplained:
		return "there should be one; this is a fault: posthorn audit --repair enters it"
	default:
		return string(r)
	}
}
