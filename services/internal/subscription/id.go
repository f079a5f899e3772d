package subscription

import (
	"errors"
	"fmt"
	"strings"

	"github.com/google/uuid"
)

// ErrBadID is returned by ParseID for text that is no subscription id.
var ErrBadID = errors.New("not a subscription id")

// idPrefix marks a subscription id wherever it is shown; the database keeps
// the bare UUID.
const idPrefix = "sub_"

// TestTarget is the key in a test event's metadata under which the one
// subscription stands that it is for.
const TestTarget = "subscription"

// ID names a subscription: "sub_" and a UUIDv7.
type ID string

// NewID returns a new id, which sorts by the time at which it was made.
func NewID() ID { return FromUUID(uuid.Must(uuid.NewV7())) }

// FromUUID is the id with the given UUID.
func FromUUID(u uuid.UUID) ID { return ID(idPrefix + u.String()) }

// ParseID returns the id that s spells, in its one canonical form.
func ParseID(s string) (ID, error) {
	bare, ok := strings.CutPrefix(s, idPrefix)
	if !ok || len(bare) != 36 {
		return "", ErrBadID
	}
	u, err := uuid.Parse(bare)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrBadID, err)
	}
	return FromUUID(u), nil
}

// UUID is the id without its prefix, as the database keeps it.
func (id ID) UUID() string { return strings.TrimPrefix(string(id), idPrefix) }
