package webhook

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"hash"
	"io"
	"log/slog"
	"strings"
	"sync"
)

const (
	secretPrefix = "whsec_"
	minSecretLen = 24
	maxSecretLen = 64
	newSecretLen = 32
	redacted     = "whsec_[redacted]"
)

// Secret is the key that sender and receiver share. Printed, logged or encoded
// it shows a placeholder; only Reveal gives the text. The zero Secret signs
// and verifies nothing. A Secret is safe for concurrent use.
type Secret struct {
	// Two pointers deep: fmt cannot call the methods below on an unexported
	// field of another struct, and follows one pointer when a verb does not fit
	// ("%s"). It prints the second one's address.
	hidden *hidden
}

type hidden struct{ key *key }

type key struct {
	raw  []byte
	macs sync.Pool // of *mac
}

// mac is the state for one signature. It is pooled, because a used HMAC
// restarts from its saved inner state: that saves two of the four blocks that
// hashing the key costs, and every allocation.
type mac struct {
	hash    hash.Hash
	scratch []byte
	sum     [sha256.Size]byte
}

// ParseSecret reads a secret in its text form: "whsec_" and 24 to 64 bytes in
// base64.
func ParseSecret(text string) (Secret, error) {
	encoded, ok := strings.CutPrefix(text, secretPrefix)
	if !ok {
		return Secret{}, fmt.Errorf("parse secret: no %s in front: %w", secretPrefix, ErrInvalidSecret)
	}
	// DecodeString ignores line breaks, which would give one key many texts.
	if strings.ContainsAny(encoded, "\r\n") {
		return Secret{}, fmt.Errorf("parse secret: not base64: %w", ErrInvalidSecret)
	}
	raw, err := base64.StdEncoding.Strict().DecodeString(encoded)
	if err != nil {
		// The decoder's own error is left out: it quotes its input.
		return Secret{}, fmt.Errorf("parse secret: not base64: %w", ErrInvalidSecret)
	}
	if len(raw) < minSecretLen || len(raw) > maxSecretLen {
		return Secret{}, fmt.Errorf("parse secret: %d bytes, not %d to %d: %w",
			len(raw), minSecretLen, maxSecretLen, ErrInvalidSecret)
	}
	return newSecret(raw), nil
}

// NewSecret returns a random secret of 32 bytes.
func NewSecret() Secret {
	raw := make([]byte, newSecretLen)
	_, _ = rand.Read(raw) // never fails: it ends the program instead
	return newSecret(raw)
}

func newSecret(raw []byte) Secret {
	k := &key{raw: raw}
	k.macs.New = func() any {
		return &mac{hash: hmac.New(sha256.New, k.raw), scratch: make([]byte, 0, 128)}
	}
	return Secret{hidden: &hidden{key: k}}
}

// IsZero reports whether s is the zero Secret.
func (s Secret) IsZero() bool { return s.hidden == nil }

// Equal reports whether both are the same secret, in constant time.
func (s Secret) Equal(other Secret) bool {
	if s.IsZero() || other.IsZero() {
		return s.IsZero() && other.IsZero()
	}
	return subtle.ConstantTimeCompare(s.hidden.key.raw, other.hidden.key.raw) == 1
}

// Reveal returns the text form, for the one response that shows the secret to
// its owner and for sealing it. It is empty for the zero Secret.
func (s Secret) Reveal() string {
	if s.IsZero() {
		return ""
	}
	return secretPrefix + base64.StdEncoding.EncodeToString(s.hidden.key.raw)
}

// String returns a placeholder.
func (s Secret) String() string {
	if s.IsZero() {
		return ""
	}
	return redacted
}

// GoString returns a placeholder.
func (s Secret) GoString() string { return `webhook.Secret("` + s.String() + `")` }

// Format prints a placeholder for every verb of package fmt.
func (s Secret) Format(state fmt.State, _ rune) { _, _ = io.WriteString(state, s.String()) }

// MarshalText returns a placeholder, also in JSON. There is no UnmarshalText: a
// placeholder cannot be read back.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// LogValue returns a placeholder.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// appendMAC appends the signature's base64 to dst, which should have spare capacity.
func (s Secret) appendMAC(dst []byte, id string, timestamp, body []byte) []byte {
	m, ok := s.hidden.key.macs.Get().(*mac)
	if !ok { // cannot happen: the pool holds nothing else
		m = &mac{hash: hmac.New(sha256.New, s.hidden.key.raw)}
	}
	m.hash.Reset()
	m.scratch = append(m.scratch[:0], id...)
	m.scratch = append(m.scratch, '.')
	m.scratch = append(m.scratch, timestamp...)
	m.scratch = append(m.scratch, '.')
	m.hash.Write(m.scratch)
	m.hash.Write(body)
	sum := m.hash.Sum(m.sum[:0])
	dst = base64.StdEncoding.AppendEncode(dst, sum)
	s.hidden.key.macs.Put(m)
	return dst
}
