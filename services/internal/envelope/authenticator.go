package envelope

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"strings"
	"sync"
)

// ErrUnverified is returned by Authenticator.Open for a message that was not
// signed with one of its keys, or was changed since.
var ErrUnverified = errors.New("message does not verify")

// ErrUnsigned is an ErrUnverified: there is no signature at all.
var ErrUnsigned = fmt.Errorf("%w: it has no header %s: it is from before messages were signed, or not from a relay", ErrUnverified, headerMAC)

const (
	headerMAC = "posthorn-mac"
	macText   = 43 // a SHA-256 in base64 without padding
	// maxSignatures bounds how many signatures of a message are checked: one for each key.
	maxSignatures = 16
)

// Purpose of the keys that NewAuthenticator takes, for signing.Keyring.Derive.
const Purpose = "envelope v1"

// Content is the rest of a message, to which its envelope is bound.
type Content struct {
	// Subscription that the message is for. An envelope with a Type does not name
	// it: it is for all subscriptions to the type.
	Subscription    string
	ID, ContentType string
	Body            []byte
}

// Authenticator signs messages and verifies them, so that write access to the
// broker is not enough to get a request signed and sent. The signature covers all
// that determines the request: the envelope, its recipient, the event's id and
// its body. It is safe for concurrent use.
//
// A signature does not protect against copies of a message: the ledger does, and
// for a first attempt the time at which it was published.
type Authenticator struct{ keys []*sync.Pool }

// signer is the state of one key's HMAC, reused for every message.
type signer struct {
	mac   hash.Hash
	input []byte
	sum   [sha256.Size]byte
}

// NewAuthenticator returns an Authenticator that signs with all of the keys, and
// accepts a signature of any of them: relays and delivery services with
// overlapping keys accept each other's messages while keys are rotated.
func NewAuthenticator(keys [][]byte) *Authenticator {
	a := &Authenticator{}
	for _, key := range keys {
		a.keys = append(a.keys, &sync.Pool{New: func() any { return &signer{mac: hmac.New(sha256.New, key)} }})
	}
	return a
}

// Headers returns the headers of the envelope with its signatures.
func (a *Authenticator) Headers(e Envelope, c Content) map[string]string {
	headers := e.Headers()
	digest := sha256.Sum256(c.Body)
	var text [macText]byte
	for i, key := range a.keys {
		sum(key, &e, &c, &digest, &text)
		if i == 0 {
			headers[headerMAC] = string(text[:])
		} else {
			headers[headerMAC] += " " + string(text[:])
		}
	}
	return headers
}

// Open reads an envelope that Headers wrote for this content.
func (a *Authenticator) Open(headers map[string]string, c Content) (Envelope, error) {
	e, err := Parse(headers)
	if err != nil {
		return Envelope{}, err
	}
	given := headers[headerMAC]
	if given == "" {
		return Envelope{}, ErrUnsigned
	}
	digest := sha256.Sum256(c.Body)
	var text [macText]byte
	for _, key := range a.keys {
		sum(key, &e, &c, &digest, &text)
		if oneOf(given, &text) {
			return e, nil
		}
	}
	return Envelope{}, fmt.Errorf("%w: header %s does not match with any key of POSTHORN_SECRET_KEY", ErrUnverified, headerMAC)
}

// oneOf reports whether text is one of the given space-separated signatures.
func oneOf(given string, text *[macText]byte) bool {
	for i := 0; len(given) >= macText && i < maxSignatures; i++ {
		if hmac.Equal(text[:], []byte(given[:macText])) {
			return true
		}
		given = strings.TrimPrefix(given[macText:], " ")
	}
	return false
}

func sum(key *sync.Pool, e *Envelope, c *Content, digest *[sha256.Size]byte, text *[macText]byte) {
	s, _ := key.Get().(*signer) // the pool holds nothing else
	defer key.Put(s)
	s.input = appendInput(s.input[:0], e, c, digest)
	s.mac.Reset()
	_, _ = s.mac.Write(s.input) // a hash never fails
	base64.RawStdEncoding.Encode(text[:], s.mac.Sum(s.sum[:0]))
}

// appendInput appends the signed input. Numbers have a fixed size and texts a
// length prefix, so that no two messages have the same input.
func appendInput(b []byte, e *Envelope, c *Content, digest *[sha256.Size]byte) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(e.Position))            //nolint:gosec // Parse admits no negative ones
	b = binary.BigEndian.AppendUint64(b, uint64(e.Run))                 //nolint:gosec // as above
	b = binary.BigEndian.AppendUint64(b, uint64(e.Attempts))            //nolint:gosec // as above
	b = binary.BigEndian.AppendUint64(b, uint64(e.Wait.Milliseconds())) //nolint:gosec // as above
	b = binary.BigEndian.AppendUint64(b, uint64(e.PublishedAt.UnixMilli()))
	flags := byte(0)
	if e.Suspect {
		flags |= 1
	}
	if e.Type != "" {
		flags |= 2
		b = appendText(append(b, flags), e.Account)
		b = appendText(b, e.Type)
	} else {
		b = appendText(append(b, flags), c.Subscription)
	}
	for _, text := range [...]string{string(e.Cause), e.TraceParent, e.TraceState, c.ID, c.ContentType} {
		b = appendText(b, text)
	}
	return append(b, digest[:]...)
}

func appendText(b []byte, text string) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(text))) //nolint:gosec // a header is not that long
	return append(b, text...)
}
