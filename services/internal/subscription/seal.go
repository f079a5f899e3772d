package subscription

import (
	"fmt"

	"posthorn/events/webhook"
)

// sealer encrypts stored secrets, bound to the id of their subscription so that
// a secret copied into another row does not open there.
type sealer interface {
	Seal(plaintext, associatedData []byte) []byte
}

type opener interface {
	Open(sealed, associatedData []byte) ([]byte, error)
}

// Seal fills Sealed from the secrets.
func (s *Subscription) Seal(keys sealer) {
	s.Sealed = Sealed{}
	if !s.Secret.IsZero() {
		s.Sealed.Secret = keys.Seal([]byte(s.Secret.Reveal()), []byte(s.ID))
	}
	if !s.PreviousSecret.IsZero() {
		s.Sealed.Previous = keys.Seal([]byte(s.PreviousSecret.Reveal()), []byte(s.ID))
	}
}

// Resealer seals with one of several keys, and knows which key is current.
type Resealer interface {
	sealer
	opener
	Current(sealed []byte) bool
}

// Reseal reseals Sealed with the current key, and reports whether it had
// another. If a secret cannot be opened, it changes nothing.
func (s *Subscription) Reseal(keys Resealer) (resealed bool, err error) {
	current := func(sealed []byte) bool { return len(sealed) == 0 || keys.Current(sealed) }
	if current(s.Sealed.Secret) && current(s.Sealed.Previous) {
		return false, nil
	}
	opened := *s
	if err := opened.Open(keys); err != nil {
		return false, err
	}
	opened.Seal(keys)
	s.Sealed = opened.Sealed
	return true, nil
}

// Open fills the secrets from Sealed.
func (s *Subscription) Open(keys opener) error {
	s.Secret, s.PreviousSecret = webhook.Secret{}, webhook.Secret{}
	for _, it := range []struct {
		sealed []byte
		into   *webhook.Secret
	}{{s.Sealed.Secret, &s.Secret}, {s.Sealed.Previous, &s.PreviousSecret}} {
		if len(it.sealed) == 0 {
			continue
		}
		text, err := keys.Open(it.sealed, []byte(s.ID))
		if err != nil {
			return fmt.Errorf("open secret of %s: %w", s.ID, err)
		}
		secret, err := webhook.ParseSecret(string(text))
		if err != nil {
			return fmt.Errorf("open secret of %s: %w", s.ID, err)
		}
		*it.into = secret
	}
	return nil
}
