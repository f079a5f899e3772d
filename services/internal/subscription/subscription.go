// Package subscription defines subscriptions: a URL and the event types that it
// wants, with the settings of its deliveries and its signing secret.
//
// It promises that a Subscription that passed Validate can be stored, bound and
// delivered to, and that Validate reports errors per field, in the names of the
// HTTP API. It also has Record, the form of a change of a subscription in the
// log.
package subscription

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"posthorn/events"
	"posthorn/events/webhook"
	"posthorn/services/internal/matching"
	"posthorn/services/internal/retry"
	"posthorn/services/internal/target"
)

// Limits and defaults.
const (
	MaxEventTypes = 250
	// MaxWildcards limits the event types with wildcards, each of which is
	// matched against every new type of the account.
	MaxWildcards        = 50
	MaxDescriptionBytes = 1024
	MinTimeout          = time.Second
	MaxTimeout          = 30 * time.Second
	DefaultTimeout      = 15 * time.Second
	MaxMaxInFlight      = 256
	DefaultMaxInFlight  = 8
	// SecretOverlap is how long a rotated secret still signs.
	SecretOverlap = 24 * time.Hour
)

// Status decides what happens to the events that a subscription matches.
type Status string

// The statuses.
const (
	Active   Status = "active"   // they are delivered
	Paused   Status = "paused"   // they wait; nothing is lost, resuming delivers them
	Disabled Status = "disabled" // they are not owed
	Deleted  Status = "deleted"  // the subscription is kept only to explain the past
)

// Owed reports whether an event that matches becomes a delivery.
func (s Status) Owed() bool { return s == Active || s == Paused }

// Subscription is a URL and the event types that it wants.
type Subscription struct {
	ID          ID
	Account     string
	URL         string
	EventTypes  []events.Pattern
	Description string
	Status      Status
	// Schedule of retries; nil means the default, an empty one no retries.
	Schedule    retry.Schedule
	Timeout     time.Duration
	MaxInFlight int

	// Secret signs the deliveries; PreviousSecret also signs them until
	// PreviousSecretUntil. They are zero until Open is called.
	Secret              webhook.Secret
	PreviousSecret      webhook.Secret
	PreviousSecretUntil time.Time
	// Sealed holds the two in their stored form.
	Sealed Sealed

	// Since is the position of the record that created it; it is not owed
	// earlier events.
	Since     int64
	Version   int
	CreatedAt time.Time
	UpdatedAt time.Time
	DeletedAt time.Time
}

// Sealed holds encrypted secrets; empty where there is none.
type Sealed struct{ Secret, Previous []byte }

// Matches reports whether one of its patterns selects the event type.
func (s Subscription) Matches(eventType string) bool {
	return matching.New(s.EventTypes).Match(eventType)
}

// Secrets returns the secrets that sign at the given time, the current one first.
func (s Subscription) Secrets(now time.Time) []webhook.Secret {
	if s.PreviousSecretUntil.After(now) && !s.PreviousSecret.IsZero() {
		return []webhook.Secret{s.Secret, s.PreviousSecret}
	}
	return []webhook.Secret{s.Secret}
}

// FieldError describes one invalid field, named as in the HTTP API.
type FieldError struct{ Field, Message string }

// InvalidError is the error of Validate: one entry for each invalid field.
type InvalidError []FieldError

func (e InvalidError) Error() string {
	var b strings.Builder
	b.WriteString("invalid subscription")
	for i, f := range e {
		if i == 0 {
			b.WriteString(": ")
		} else {
			b.WriteString("; ")
		}
		b.WriteString(f.Field + ": " + f.Message)
	}
	return b.String()
}

// Validate returns an InvalidError with all invalid fields, or nil.
func (s Subscription) Validate() error {
	var wrong InvalidError
	add := func(field, format string, args ...any) {
		wrong = append(wrong, FieldError{Field: field, Message: fmt.Sprintf(format, args...)})
	}
	if err := target.ValidateURL(s.URL); err != nil {
		add("url", "%s", message(err))
	}
	if n := len(s.EventTypes); n == 0 {
		add("eventTypes", "name at least one event type")
	} else if n > MaxEventTypes {
		add("eventTypes", "at most %d event types, not %d", MaxEventTypes, n)
	}
	seen := make(map[events.Pattern]bool, len(s.EventTypes))
	wildcards := 0
	for i, p := range s.EventTypes[:min(len(s.EventTypes), MaxEventTypes)] {
		if !p.Exact() {
			wildcards++
		}
		if _, err := events.ParsePattern(string(p)); err != nil {
			add(fmt.Sprintf("eventTypes[%d]", i), "%s", message(err))
		} else if seen[p] {
			add(fmt.Sprintf("eventTypes[%d]", i), "is listed twice")
		}
		seen[p] = true
	}
	if wildcards > MaxWildcards {
		add("eventTypes", "at most %d event types with wildcards, not %d", MaxWildcards, wildcards)
	}
	if len(s.Description) > MaxDescriptionBytes {
		add("description", "longer than %d bytes", MaxDescriptionBytes)
	} else if !utf8.ValidString(s.Description) || strings.ContainsRune(s.Description, 0) {
		add("description", "not UTF-8 text")
	}
	switch s.Status {
	case Active, Paused, Disabled:
	case Deleted:
		fallthrough
	default:
		add("status", "want active, paused or disabled")
	}
	if _, err := retry.Parse(s.Schedule.Strings()); err != nil {
		add("retry.schedule", "%s", message(err))
	}
	if s.Timeout < MinTimeout || s.Timeout > MaxTimeout {
		add("timeout", "want %v to %v", MinTimeout, MaxTimeout)
	}
	if s.MaxInFlight < 1 || s.MaxInFlight > MaxMaxInFlight {
		add("maxInFlight", "want 1 to %d", MaxMaxInFlight)
	}
	if wrong != nil {
		return wrong
	}
	return nil
}

// message drops the sentinel that other packages put before the text.
func message(err error) string {
	text := err.Error()
	for _, sentinel := range []error{events.ErrInvalid, target.ErrInvalidURL, retry.ErrInvalidSchedule} {
		text = strings.TrimPrefix(text, sentinel.Error()+": ")
	}
	return text
}
