package signing

import (
	"crypto/hkdf"
	"crypto/sha256"
)

// Derive returns a key of 32 bytes for another purpose from each key of the
// ring, in the ring's order. It reveals nothing about the ring's own keys.
func (r *Keyring) Derive(purpose string) [][]byte {
	derived := make([][]byte, len(r.keys))
	for i, k := range r.keys {
		// HKDF fails only for more bytes than the hash can provide.
		derived[i], _ = hkdf.Key(sha256.New, k.raw, nil, "posthorn "+purpose, keySize)
	}
	return derived
}
