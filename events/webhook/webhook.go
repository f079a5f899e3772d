// Package webhook signs webhooks and verifies them, following Standard Webhooks
// v1 (https://www.standardwebhooks.com). Receivers of Posthorn's deliveries
// import it; Posthorn itself signs with it.
//
// A signed request carries three headers: webhook-id, the event's id, which is
// the same on every attempt and lets a receiver deduplicate; webhook-timestamp,
// when this attempt was made; and webhook-signature, one signature for each
// active secret, so that a secret can be rotated without a gap. The signed
// content is "id.timestamp.body", with the body's exact bytes: verify before
// decoding, and never re-encode.
//
// The package promises that signatures are compared in constant time, that a
// Secret does not end up in a log, and that Verify returns nil only for a
// request that is whole, recent and signed with one of the secrets given. It
// fails with the errors listed in errors.go and with nothing else.
package webhook

import (
	"crypto/subtle"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// The headers of a signed webhook. Header names are case-insensitive; these
// are spelled as the standard spells them.
const (
	HeaderID        = "webhook-id"
	HeaderTimestamp = "webhook-timestamp"
	HeaderSignature = "webhook-signature"
)

// DefaultTolerance is how far a request's timestamp may be from the receiver's
// clock, in either direction, unless the caller of Verify sets another.
const DefaultTolerance = 5 * time.Minute

const (
	signatureVersion = "v1,"
	signatureLen     = len(signatureVersion) + 44 // 32 bytes in base64
	maxIDLen         = 256
	maxTimestampLen  = 12 // enough until the year 33658
)

// ValidID reports whether id can be a webhook-id: visible ASCII, at most 256
// bytes, and without a full stop, which separates it from the timestamp in the
// signed content.
func ValidID(id string) bool {
	if id == "" || len(id) > maxIDLen {
		return false
	}
	for i := range len(id) {
		if c := id[i]; c <= ' ' || c >= 0x7f || c == '.' {
			return false
		}
	}
	return true
}

// Timestamp returns the value of the webhook-timestamp header for at.
func Timestamp(at time.Time) string {
	return strconv.FormatInt(at.Unix(), 10)
}

// Sign returns the webhook-signature header for body, sent as id at the given
// time: one signature for each secret, separated by a space. A zero Secret
// signs nothing, so without a usable secret the result is empty; a sender must
// treat that as an error. The id must satisfy ValidID.
func Sign(id string, at time.Time, body []byte, secrets ...Secret) string {
	var tsBuf [20]byte
	ts := strconv.AppendInt(tsBuf[:0], at.Unix(), 10)

	// Two signatures fit on the stack; a rotation needs no more.
	var outBuf [2*signatureLen + 1]byte
	out := outBuf[:0]
	for _, secret := range secrets {
		if secret.IsZero() {
			continue
		}
		if len(out) > 0 {
			out = append(out, ' ')
		}
		out = append(out, signatureVersion...)
		out = secret.appendMAC(out, id, ts, body)
	}
	return string(out)
}

// Verify checks that a holder of one of the secrets sent body with these
// headers, and that its timestamp is within tolerance of now. A tolerance of
// zero or less means DefaultTolerance: the check cannot be switched off, since
// without it a request can be replayed forever.
//
// The caller limits the body's size before reading it.
func Verify(header http.Header, body []byte, tolerance time.Duration, secrets ...Secret) error {
	return verifyAt(time.Now(), header, body, tolerance, secrets)
}

func verifyAt(now time.Time, header http.Header, body []byte, tolerance time.Duration, secrets []Secret) error {
	id, err := single(header, HeaderID)
	if err != nil {
		return err
	}
	if !ValidID(id) {
		return fmt.Errorf("read %s: %w", HeaderID, ErrInvalidHeader)
	}
	timestamp, err := single(header, HeaderTimestamp)
	if err != nil {
		return err
	}
	signatures, err := single(header, HeaderSignature)
	if err != nil {
		return err
	}
	at, err := parseTimestamp(timestamp)
	if err != nil {
		return fmt.Errorf("read %s: %w", HeaderTimestamp, err)
	}
	if tolerance <= 0 {
		tolerance = DefaultTolerance
	}
	switch age := now.Sub(at); {
	case age > tolerance:
		return fmt.Errorf("check %s: %w", HeaderTimestamp, ErrTooOld)
	case age < -tolerance:
		return fmt.Errorf("check %s: %w", HeaderTimestamp, ErrTooNew)
	}

	usable := false
	var wantBuf [44]byte
	for _, secret := range secrets {
		if secret.IsZero() {
			continue
		}
		usable = true
		want := secret.appendMAC(wantBuf[:0], id, []byte(timestamp), body)
		if anySignature(signatures, want) {
			return nil
		}
	}
	if !usable {
		return ErrNoSecret
	}
	return ErrNoMatch
}

// anySignature reports whether one of the space-separated signatures is want.
// Versions other than v1 are ignored, as the standard requires.
func anySignature(signatures string, want []byte) bool {
	found := 0
	for rest := signatures; rest != ""; {
		var one string
		one, rest, _ = strings.Cut(rest, " ")
		got, ok := strings.CutPrefix(one, signatureVersion)
		if !ok {
			continue
		}
		found |= subtle.ConstantTimeCompare([]byte(got), want)
	}
	return found == 1
}

// single returns the header's only value. A header that appears twice is
// refused: two readers of the request might disagree on which one counts.
func single(header http.Header, name string) (string, error) {
	values := header.Values(name)
	switch {
	case len(values) == 0 || len(values) == 1 && values[0] == "":
		return "", fmt.Errorf("read %s: %w", name, ErrMissingHeader)
	case len(values) > 1:
		return "", fmt.Errorf("read %s: given %d times: %w", name, len(values), ErrInvalidHeader)
	}
	return values[0], nil
}

// parseTimestamp accepts digits only. ParseInt alone would also accept a sign,
// and so a second spelling of the same time.
func parseTimestamp(text string) (time.Time, error) {
	if len(text) > maxTimestampLen {
		return time.Time{}, ErrInvalidHeader
	}
	for i := range len(text) {
		if text[i] < '0' || text[i] > '9' {
			return time.Time{}, ErrInvalidHeader
		}
	}
	seconds, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return time.Time{}, ErrInvalidHeader
	}
	return time.Unix(seconds, 0), nil
}
