// Package events is the contract between the parts of Posthorn and the programs
// around it: the event and its rules, the grammar and matching of types and
// patterns, and the bytes that a subscriber receives.
//
// It promises that AppendBody writes an event's JSON data byte for byte, and that Pattern.Match
// agrees with a RabbitMQ topic exchange on every type. It refuses malformed input with an error
// that names the field, and repairs nothing silently. It depends on the standard library alone.
package events

import (
	"cmp"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"posthorn/events/strictjson"
)

// DefaultAccount owns events that name no account.
const DefaultAccount = "default"

// Limits, in bytes.
const (
	MaxIDBytes       = 128
	MaxSubjectBytes  = 512
	MaxDataBytes     = 1 << 20
	MaxMetadataBytes = 8 << 10 // as the text of Postgres' jsonb
)

// ErrInvalid is wrapped by every error of Validate, ParseType and ParsePattern.
var ErrInvalid = errors.New("invalid event")

// Event is a fact: something that happened, at a time, to a subject. It never
// changes once it is in the outbox.
type Event struct {
	// Position is the event's place in the log, from 1; 0 before it has one.
	Position int64
	// ID is "evt_" and a UUIDv7, or an id that the producer chose so that
	// appending again is harmless. It is the webhook-id of every delivery. The id
	// of an event with a Source may be any text while it is not in the outbox.
	ID string
	// Account whose subscriptions may see the event. Empty means DefaultAccount.
	Account string
	// Type is words of letters, digits, "_" and "-", joined by dots.
	Type string
	// Subject is what the event is about, for example "photo/123". Events of
	// one subject are published in the order of the log. May be empty.
	Subject string
	// Data is one JSON value, unless ContentType says otherwise. Its bytes are
	// kept unchanged. For JSON, empty means null.
	Data []byte
	// ContentType is the media type of Data. Empty means JSON.
	ContentType string
	// DataSchema is the URI of the schema that Data adheres to. May be empty.
	DataSchema string
	// Source is the event's origin, a URI reference. May be empty. Source and ID together identify
	// an event with a source, as in CloudEvents.
	Source string
	// SourceID is the event's id at its source, if ID differs from it because
	// that id cannot be a webhook-id or is taken.
	SourceID string
	// Extensions are further attributes of a CloudEvent. Names are lower-case
	// letters and digits, values are of type string, bool or int32.
	Extensions map[string]any
	// Metadata travels with the event but is not part of the body that
	// subscribers get, for example a trace context.
	Metadata map[string]string
	// OccurredAt is when it happened; zero means when it is recorded.
	OccurredAt time.Time
	// RecordedAt is when the event was appended to the outbox.
	RecordedAt time.Time
}

// Owner is the account that owns the event: Account, or DefaultAccount.
func (e Event) Owner() string { return cmp.Or(e.Account, DefaultAccount) }

// Validate reports the first field that the outbox would refuse.
func (e Event) Validate() error {
	if _, err := ParseType(e.Type); err != nil {
		return err
	}
	if err := e.validateIdentity(); err != nil {
		return err
	}
	if e.Account != "" && !validAccount(e.Account) {
		return fmt.Errorf("%w: account: want 1 to 64 lower-case letters, digits, \"_\" or \"-\"", ErrInvalid)
	}
	if !e.OccurredAt.IsZero() {
		// Postgres keeps microseconds.
		if at := e.OccurredAt.UTC().Round(time.Microsecond); at.Year() < 1 || at.Year() > 9999 || at.IsZero() {
			return fmt.Errorf("%w: occurredAt: want a time in the years 1 to 9999", ErrInvalid)
		}
	}
	if err := ValidateSubject(e.Subject); err != nil {
		return err
	}
	if err := validateMetadata(e.Metadata); err != nil {
		return err
	}
	if err := e.validateAttributes(); err != nil {
		return err
	}
	return e.validateData()
}

// ValidateSubject reports why a text cannot be an event's subject; it may be empty.
func ValidateSubject(subject string) error {
	switch {
	case len(subject) > MaxSubjectBytes:
		return fmt.Errorf("%w: subject: longer than %d bytes", ErrInvalid, MaxSubjectBytes)
	case !validText(subject):
		return fmt.Errorf("%w: subject: not UTF-8 text", ErrInvalid)
	}
	return nil
}

func (e Event) validateData() error {
	if len(e.Data) > MaxDataBytes {
		return fmt.Errorf("%w: data: longer than %d bytes", ErrInvalid, MaxDataBytes)
	}
	if len(e.Data) > 0 && e.JSON() {
		// Data is one level down in the body that subscribers get.
		if err := strictjson.Check(e.Data, 1); err != nil {
			return fmt.Errorf("%w: data: want one JSON value: %w", ErrInvalid, err)
		}
	}
	return nil
}

// validateIdentity checks the id, and the id at the source.
func (e Event) validateIdentity() error {
	switch {
	case e.Source == "" && e.SourceID != "":
		return fmt.Errorf("%w: sourceId: want a source with it", ErrInvalid)
	case e.SourceID != "":
		if len(e.SourceID) > MaxSourceBytes || !validText(e.SourceID) {
			return fmt.Errorf("%w: sourceId: want text of at most %d bytes", ErrInvalid, MaxSourceBytes)
		}
	case e.Source != "":
		if len(e.ID) > MaxSourceBytes || !validText(e.ID) {
			return fmt.Errorf("%w: id: want text of at most %d bytes", ErrInvalid, MaxSourceBytes)
		}
		return nil
	}
	if e.ID == "" {
		return nil
	}
	return ValidateID(e.ID)
}

func validText(s string) bool { return utf8.ValidString(s) && strings.IndexByte(s, 0) < 0 }

// validateMetadata measures the length that Postgres measures: the text of its jsonb.
func validateMetadata(metadata map[string]string) error {
	if len(metadata) == 0 {
		return nil
	}
	size := 0
	for name, value := range metadata {
		if !validText(name) || !validText(value) {
			return fmt.Errorf("%w: metadata %q: not UTF-8 text", ErrInvalid, name)
		}
		size += jsonbSize(name) + jsonbSize(value) + 4
	}
	if size > MaxMetadataBytes {
		return fmt.Errorf("%w: metadata: longer than %d bytes", ErrInvalid, MaxMetadataBytes)
	}
	return nil
}

// ValidateID reports why an id cannot be an event's id and webhook-id. It accepts visible ASCII
// except the dot, which separates the parts of a webhook's signed content.
func ValidateID(id string) error {
	if id == "" {
		return fmt.Errorf("%w: id: empty", ErrInvalid)
	}
	if len(id) > MaxIDBytes {
		return fmt.Errorf("%w: id: longer than %d bytes", ErrInvalid, MaxIDBytes)
	}
	for i := range len(id) {
		if c := id[i]; c <= ' ' || c > '~' || c == '.' {
			return fmt.Errorf("%w: id: want visible ASCII characters other than \".\"", ErrInvalid)
		}
	}
	return nil
}

func validAccount(account string) bool {
	if account == "" || len(account) > 64 {
		return false
	}
	for i := range len(account) {
		c := account[i]
		if !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '_' || c == '-') {
			return false
		}
	}
	return true
}

// NewID returns "evt_" and a new UUIDv7 (RFC 9562), which sorts by creation
// time.
func NewID(now time.Time) string {
	var u [16]byte
	_, _ = rand.Read(u[:]) // never fails: see crypto/rand.Read
	var ms [8]byte
	binary.BigEndian.PutUint64(ms[:], uint64(now.UnixMilli()))
	copy(u[:6], ms[2:])
	u[6] = u[6]&0x0f | 0x70
	u[8] = u[8]&0x3f | 0x80

	id := make([]byte, 0, 40)
	id = append(id, "evt_"...)
	for i, part := range [][]byte{u[0:4], u[4:6], u[6:8], u[8:10], u[10:16]} {
		if i > 0 {
			id = append(id, '-')
		}
		id = hex.AppendEncode(id, part)
	}
	return string(id)
}
