// Package events is the contract between the parts of Posthorn and with the
// programs around it: what an event is, which types and patterns are well
// formed and match, and the bytes that a subscriber receives.
//
// It promises that the JSON written by AppendBody carries an event's data as
// the very bytes that were given, and that Pattern.Match agrees with a
// RabbitMQ topic exchange on every type. What is malformed is refused with an
// error that names the field; nothing is repaired silently. It depends on the
// standard library alone.
package events

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// DefaultAccount owns what no account was named for.
const DefaultAccount = "default"

// Limits, in bytes.
const (
	MaxIDBytes      = 128
	MaxSubjectBytes = 512
	MaxDataBytes    = 1 << 20
)

// ErrInvalid is wrapped by every error of Validate, ParseType and ParsePattern.
var ErrInvalid = errors.New("invalid event")

// Event is a fact: something that happened, at a time, to a subject. It never
// changes once it is in the outbox.
type Event struct {
	// Position is the event's place in the outbox, from 1; 0 while it has none.
	Position int64
	// ID is "evt_" and a UUIDv7, or an id that the producer chose so that
	// appending again is harmless. It is the webhook-id of every delivery.
	ID string
	// Account whose subscriptions may see the event. Empty means DefaultAccount.
	Account string
	// Type is words of letters, digits, "_" and "-", joined by dots.
	Type string
	// Subject is what the event is about, for example "photo/123". Events of
	// one subject are published in the order of the log. May be empty.
	Subject string
	// Data is one JSON value. Its bytes are kept as they are. Empty means null.
	Data []byte
	// Metadata travels with the event and is not part of what subscribers get
	// in the body, for example a trace context.
	Metadata map[string]string
	// OccurredAt is when it happened; zero means when it is recorded.
	OccurredAt time.Time
	// RecordedAt is when the outbox took it in.
	RecordedAt time.Time
}

// Validate reports the first field that the outbox would refuse.
func (e Event) Validate() error {
	if _, err := ParseType(e.Type); err != nil {
		return err
	}
	if e.ID != "" {
		if err := validateID(e.ID); err != nil {
			return err
		}
	}
	if e.Account != "" && !validAccount(e.Account) {
		return fmt.Errorf("%w: account: want 1 to 64 lower-case letters, digits, \"_\" or \"-\"", ErrInvalid)
	}
	switch {
	case len(e.Subject) > MaxSubjectBytes:
		return fmt.Errorf("%w: subject: longer than %d bytes", ErrInvalid, MaxSubjectBytes)
	case !utf8.ValidString(e.Subject) || strings.IndexByte(e.Subject, 0) >= 0:
		return fmt.Errorf("%w: subject: not UTF-8 text", ErrInvalid)
	case len(e.Data) > MaxDataBytes:
		return fmt.Errorf("%w: data: longer than %d bytes", ErrInvalid, MaxDataBytes)
	case len(e.Data) > 0 && !(utf8.Valid(e.Data) && json.Valid(e.Data)):
		return fmt.Errorf("%w: data: not a JSON value in UTF-8", ErrInvalid)
	}
	return nil
}

// validateID admits visible ASCII without the dot, which separates the parts
// of what a webhook signature covers.
func validateID(id string) error {
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
