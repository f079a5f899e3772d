// Package id formats and parses the ids of resources: a prefix for the kind of
// resource, and a UUIDv7, so that ids sort by creation time.
//
// It promises one spelling for each id: Parse accepts others, such as capitals,
// and returns the canonical one. The database stores only the UUID.
package id

import (
	"strings"

	"github.com/google/uuid"
)

// Prefix of the ids of one kind of resource, such as "sub_".
type Prefix string

// New returns a new id.
func (p Prefix) New() string { return p.FromUUID(uuid.Must(uuid.NewV7())) }

// FromUUID is the id with the given UUID.
func (p Prefix) FromUUID(u uuid.UUID) string { return string(p) + u.String() }

// Parse returns the canonical id in text, and whether text is an id.
func (p Prefix) Parse(text string) (string, bool) {
	bare, ok := strings.CutPrefix(text, string(p))
	if !ok || len(bare) != 36 { // uuid.Parse accepts longer and shorter forms
		return "", false
	}
	u, err := uuid.Parse(bare)
	if err != nil {
		return "", false
	}
	return p.FromUUID(u), true
}

// UUID is the id without its prefix.
func (p Prefix) UUID(id string) string { return strings.TrimPrefix(id, string(p)) }
