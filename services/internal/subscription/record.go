package subscription

import (
	"encoding/json"
	"fmt"

	"posthorn/events"
	"posthorn/services/internal/matching"
)

// RecordType is the type of a Record in the log; its kind there is
// "subscription" and its subject is the subscription's id.
const RecordType = "posthorn.subscription"

// Record is a change: the state of the subscription from this position of the
// log on. URL and secrets are not in it; delivery reads them for each request.
type Record struct {
	ID         ID               `json:"id"`
	Account    string           `json:"account"`
	EventTypes []events.Pattern `json:"eventTypes"`
	Status     Status           `json:"status"`
	Version    int              `json:"version"`
}

// Record of the subscription as it is now.
func (s Subscription) Record() Record {
	return Record{ID: s.ID, Account: s.Account, EventTypes: s.EventTypes, Status: s.Status, Version: s.Version}
}

// Matches reports whether one of its patterns selects the event type.
func (r Record) Matches(eventType string) bool { return matching.New(r.EventTypes).Match(eventType) }

// Encode is the record as the data of the log.
func (r Record) Encode() ([]byte, error) {
	data, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("encode subscription record: %w", err)
	}
	return data, nil
}

// ParseRecord parses the output of Encode. It ignores unknown fields, so that
// an older reader can follow a newer writer.
func ParseRecord(data []byte) (Record, error) {
	var r Record
	if err := json.Unmarshal(data, &r); err != nil {
		return Record{}, fmt.Errorf("parse subscription record: %w", err)
	}
	if _, err := ParseID(string(r.ID)); err != nil {
		return Record{}, fmt.Errorf("parse subscription record: id %q: %w", r.ID, err)
	}
	switch r.Status {
	case Active, Paused, Disabled, Deleted:
	default:
		return Record{}, fmt.Errorf("parse subscription record: status %q is unknown", r.Status)
	}
	return r, nil
}
