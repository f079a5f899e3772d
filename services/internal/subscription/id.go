package subscription

import (
	"errors"

	"github.com/google/uuid"

	"posthorn/services/internal/id"
)

// ErrBadID is returned by ParseID for text that is not a subscription id.
var ErrBadID = errors.New("not a subscription id")

// prefix of subscriptions' ids.
const prefix = id.Prefix("sub_")

// TestTarget is the key in a test event's metadata that names its only
// recipient.
const TestTarget = "subscription"

// ID names a subscription: "sub_" and a UUIDv7.
type ID string

// NewID returns a new id, which sorts by creation time.
func NewID() ID { return ID(prefix.New()) }

// FromUUID is the id with the given UUID.
func FromUUID(u uuid.UUID) ID { return ID(prefix.FromUUID(u)) }

// ParseID returns the id in s, in its canonical form.
func ParseID(s string) (ID, error) {
	parsed, ok := prefix.Parse(s)
	if !ok {
		return "", ErrBadID
	}
	return ID(parsed), nil
}

// UUID is the id without its prefix, as the database stores it.
func (i ID) UUID() string { return prefix.UUID(string(i)) }
