// Package events is the contract between the parts of Posthorn and with the
// programs around it: what an event is, which types and patterns are well
// formed and match, and the bytes that a subscriber receives.
//
// It promises that the JSON written by AppendBody carries an event's data, if
// that is JSON, as the very bytes that were given, and that Pattern.Match agrees with a
// RabbitMQ topic exchange on every type. What is malformed is refused with an
// error that names the field; nothing is repaired silently. It depends on the
// standard library alone.
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

// DefaultAccount owns what no account was named for.
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
	// Position is the event's place in the outbox, from 1; 0 while it has none.
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
	// kept as they are. Empty means null where it is JSON.
	Data []byte
	// ContentType is the media type of Data. Empty means JSON.
	ContentType string
	// DataSchema is the URI of the schema that Data adheres to. May be empty.
	DataSchema string
	// Source is where the event comes from, a URI reference. May be empty. Events
	// with a source are told apart by Source and ID, as CloudEvents are.
	Source string
	// SourceID is the id that the event has at its source, where ID is another:
	// one that can be a webhook-id and is not taken.
	SourceID string
	// Extensions are further attributes of a CloudEvent. Names are lower-case
	// letters and digits, values are of type string, bool or int32.
	Extensions map[string]any
	// Metadata travels with the event and is not part of what subscribers get
	// in the body, for example a trace context.
	Metadata map[string]string
	// OccurredAt is when it happened; zero means when it is recorded.
	OccurredAt time.Time
	// RecordedAt is when the outbox took it in.
	RecordedAt time.Time
}

// Owner is the account that owns the event, which Account may leave out.
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
		// It is one level down in the body that subscribers get.
		if err := strictjson.Check(e.Data, 1); err != nil {
			return fmt.Errorf("%w: data: want one JSON value: %w", ErrInvalid, err)
		}
	}
	return nil
}

// validateIdentity checks the id, and the one at the source.
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

// validateMetadata measures what Postgres measures: the text of its jsonb.
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

// ValidateID reports why an id cannot be an event's and its webhook-id. It admits visible ASCII
// without the dot, which separates the parts of what a webhook signature covers.
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

// NewID returns "evt_" and a new UUIDv7 (RFC 9562), which sorts by the time
// at which it was made.
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
