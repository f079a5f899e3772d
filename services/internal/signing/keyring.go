// Package signing keeps signing secrets safe at rest.
//
// A Keyring seals them with AES-256-GCM before they go to the database and
// opens them after. It promises that a sealed value reveals nothing without the
// key, that a changed one does not open, and that one moved to another row does
// not open either, as long as the caller names the row in the associated data.
//
// A sealed value names its key, so keys can be rotated: the first key of a ring
// seals, all of them open. A value without a key in the ring fails with
// ErrUnknownKey; a changed value fails with ErrNotAuthentic. No error of this
// package contains a key, a text or a sealed value.
package signing

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"strings"
)

var (
	// ErrInvalidKey is returned by ParseKeyring and LoadOrCreateKeyFile for a
	// text that is not a key.
	ErrInvalidKey = errors.New("invalid secret key")
	// ErrMalformed is returned by Open for a value that Seal cannot have returned.
	ErrMalformed = errors.New("sealed value malformed")
	// ErrUnknownKey is returned by Open when the key that sealed the value is
	// not in the ring: it was removed too early, or the value is from another
	// installation.
	ErrUnknownKey = errors.New("sealed with a key that is not in the ring")
	// ErrNotAuthentic is returned by Open when the value or the associated data
	// differs from the sealed one.
	ErrNotAuthentic = errors.New("sealed value not authentic")
)

const (
	keySize = 32
	idSize  = 8
	// version is the first byte of a sealed value: what follows it is the
	// key's id, then GCM's nonce, ciphertext and tag.
	version = 1
)

// Keyring seals and opens. It is safe for concurrent use.
type Keyring struct {
	keys []key
}

type key struct {
	id   [idSize]byte
	aead cipher.AEAD
	raw  []byte // input of Derive
}

// ParseKeyring reads one or more keys of 32 bytes in base64, separated by
// commas: the value of POSTHORN_SECRET_KEY. To rotate, put the new key first,
// reseal existing values, and remove the old one.
func ParseKeyring(text string) (*Keyring, error) {
	ring := &Keyring{}
	for i, one := range strings.Split(text, ",") {
		one = strings.TrimSpace(one)
		if one == "" {
			return nil, fmt.Errorf("read key %d: empty: %w", i+1, ErrInvalidKey)
		}
		// Either alphabet, with or without padding, depending on the tool that generated the key.
		plain := strings.NewReplacer("-", "+", "_", "/").Replace(strings.TrimRight(one, "="))
		raw, err := base64.RawStdEncoding.Strict().DecodeString(plain)
		if err != nil {
			// The decoder's own error quotes the key.
			return nil, fmt.Errorf("read key %d: not base64 (generate one with \"openssl rand -base64 32\"): %w", i+1, ErrInvalidKey)
		}
		if len(raw) != keySize {
			return nil, fmt.Errorf("read key %d: %d bytes, want %d (generate one with \"openssl rand -base64 32\"): %w",
				i+1, len(raw), keySize, ErrInvalidKey)
		}
		k, err := newKey(raw)
		if err != nil {
			return nil, fmt.Errorf("read key %d: %w", i+1, err)
		}
		for _, other := range ring.keys {
			if other.id == k.id {
				return nil, fmt.Errorf("read key %d: duplicate of an earlier key: %w", i+1, ErrInvalidKey)
			}
		}
		ring.keys = append(ring.keys, k)
	}
	return ring, nil
}

func newKey(raw []byte) (key, error) {
	if bytes.Equal(raw, make([]byte, keySize)) {
		return key{}, fmt.Errorf("all zeros: %w", ErrInvalidKey)
	}
	block, err := aes.NewCipher(raw)
	if err != nil {
		return key{}, fmt.Errorf("make cipher: %w", err)
	}
	// The nonce is 96 random bits for each value: safe for 2^32 values per key.
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return key{}, fmt.Errorf("make cipher: %w", err)
	}
	k := key{aead: aead, raw: raw}
	sum := sha256.Sum256(append([]byte("posthorn key id\x00"), raw...))
	copy(k.id[:], sum[:])
	return k, nil
}

// GenerateKey returns a new key in the form that ParseKeyring reads.
func GenerateKey() string {
	raw := make([]byte, keySize)
	_, _ = rand.Read(raw) // never fails: it ends the program instead
	return base64.StdEncoding.EncodeToString(raw)
}

// Seal encrypts plaintext with the ring's first key. The associated data is
// not stored: Open needs the same, such as the id of the row.
func (r *Keyring) Seal(plaintext, associatedData []byte) []byte {
	k := r.keys[0]
	sealed := make([]byte, 0, 1+idSize+k.aead.Overhead()+len(plaintext))
	sealed = append(sealed, version)
	sealed = append(sealed, k.id[:]...)
	return k.aead.Seal(sealed, nil, plaintext, bind(sealed, associatedData)) //nolint:gosec // generates its own nonce, and takes none
}

// Open returns the sealed plaintext.
func (r *Keyring) Open(sealed, associatedData []byte) ([]byte, error) {
	k, err := r.keyOf(sealed)
	if err != nil {
		return nil, fmt.Errorf("open sealed value: %w", err)
	}
	prefix, rest := sealed[:1+idSize], sealed[1+idSize:]
	plaintext, err := k.aead.Open(nil, nil, rest, bind(prefix, associatedData))
	if err != nil {
		return nil, fmt.Errorf("open sealed value: %w", ErrNotAuthentic)
	}
	return plaintext, nil
}

// Current reports whether sealed was sealed with the current key. Other values
// should be resealed before their key is removed.
func (r *Keyring) Current(sealed []byte) bool {
	return len(sealed) > idSize && sealed[0] == version && bytes.Equal(sealed[1:1+idSize], r.keys[0].id[:])
}

// KeyIDs returns the ids of the keys of the ring, in its order, as sealed values contain them.
func (r *Keyring) KeyIDs() []string {
	ids := make([]string, len(r.keys))
	for i, k := range r.keys {
		ids[i] = hex.EncodeToString(k.id[:])
	}
	return ids
}

// KeyID returns the id of the current key, for a log. It reveals nothing about the key.
func (r *Keyring) KeyID() string { return hex.EncodeToString(r.keys[0].id[:]) }

// String names the ring's first key by its id.
func (r *Keyring) String() string { return "keyring(" + r.KeyID() + ")" }

// LogValue names the ring's first key by its id.
func (r *Keyring) LogValue() slog.Value { return slog.StringValue(r.String()) }

func (r *Keyring) keyOf(sealed []byte) (key, error) {
	if len(sealed) < 1+idSize || sealed[0] != version {
		return key{}, ErrMalformed
	}
	for _, k := range r.keys {
		if bytes.Equal(sealed[1:1+idSize], k.id[:]) {
			if len(sealed) < 1+idSize+k.aead.Overhead() {
				return key{}, ErrMalformed
			}
			return k, nil
		}
	}
	return key{}, ErrUnknownKey
}

// bind includes the value's own prefix in the authenticated data.
func bind(prefix, associatedData []byte) []byte {
	bound := make([]byte, 0, len(prefix)+len(associatedData))
	bound = append(bound, prefix...)
	return append(bound, associatedData...)
}
