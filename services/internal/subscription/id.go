package subscription

import (
	"errors"

	"github.com/google/uuid"

	"posthorn/services/internal/id"
)

// ErrBadID is returned by ParseID for text that is no subscription id.
var ErrBadID = errors.New("not a subscription id")

// prefix of subscriptions' ids.
const prefix = id.Prefix("sub_")

// TestTarget is the key in a test event's metadata under which the one
// subscription stands that it is for.
const TestTarget = "subscription"

// ID names a subscription: "sub_" and a UUIDv7.
type ID string

// NewID returns a new id, which sorts by the time at which it was made.
func NewID() ID { return ID(prefix.New()) }

// FromUUID is the id with the given UUID.
func FromUUID(u uuid.UUID) ID { return ID(prefix.FromUUID(u)) }

// ParseID returns the id that s spells, in its one canonical form.
func ParseID(s string) (ID, error) {
	parsed, ok := prefix.Parse(s)
	if !ok {
		return "", ErrBadID
	}
	return ID(parsed), nil
}

// UUID is the id without its prefix, as the database keeps it.
func (i ID) UUID() string { return prefix.UUID(string(i)) }
