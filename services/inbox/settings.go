package inbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"posthorn/events/webhook"
)

// Settings are how a bin answers. The zero value answers 200 at once.
type Settings struct {
	// Status to answer with; 0 means 200, or 500 for counted Failures.
	Status int `json:"status"`
	// Failures is how many requests fail, by Status or Hang, before the rest
	// succeed; 0 means that Status and Hang apply to every request.
	Failures int `json:"failures"`
	// Delay before the answer.
	Delay duration `json:"delay"`
	// Hang until the client gives up, instead of an answer.
	Hang bool `json:"hang"`
	// RetryAfter in seconds, on an answer that is not 2xx.
	RetryAfter int `json:"retryAfter"`
	// Secret checks signatures. In a PUT, omit it to keep the current secret,
	// or set it to "" to remove it. It is never shown.
	Secret *string `json:"secret,omitempty"`
	// HasSecret reports whether there is one. Ignored in a PUT.
	HasSecret bool `json:"hasSecret"`

	secret webhook.Secret
}

var errSettings = errors.New("invalid settings")

const (
	maxFailures   = 1000
	maxRetryAfter = 24 * 60 * 60
)

// duration is written as "2s".
type duration time.Duration

// MarshalJSON writes "2s".
func (d duration) MarshalJSON() ([]byte, error) { return json.Marshal(time.Duration(d).String()) }

// UnmarshalJSON reads "2s".
func (d *duration) UnmarshalJSON(data []byte) error {
	var text string
	if err := json.Unmarshal(data, &text); err != nil {
		return fmt.Errorf("%w: delay must be a string such as \"2s\"", errSettings)
	}
	var err error
	*d, err = parseDelay(text)
	return err
}

func parseDelay(text string) (duration, error) {
	if text == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 || d > maxDelay {
		return 0, fmt.Errorf("%w: delay must be a duration of at most %v, such as 2s", errSettings, maxDelay)
	}
	return duration(d), nil
}

func (s *Settings) validate() error {
	switch {
	case s.Status != 0 && (s.Status < 200 || s.Status > 599):
		return fmt.Errorf("%w: status must be between 200 and 599", errSettings)
	case s.Failures < 0 || s.Failures > maxFailures:
		return fmt.Errorf("%w: failures must be between 0 and %d", errSettings, maxFailures)
	case s.RetryAfter < 0 || s.RetryAfter > maxRetryAfter:
		return fmt.Errorf("%w: retryAfter must be between 0 and %d seconds", errSettings, maxRetryAfter)
	}
	if s.Secret != nil && *s.Secret != "" {
		secret, err := webhook.ParseSecret(*s.Secret)
		if err != nil {
			return fmt.Errorf("%w: the secret must be whsec_ and 24 to 64 bytes in base64", errSettings)
		}
		s.secret = secret
	}
	return nil
}

// answer returns the response to a request after failed ones have failed, and
// whether it is one of the counted failures.
func (s *Settings) answer(failed int) (answer Answer, counts bool) {
	answer.Status = http.StatusOK
	if s.Delay > 0 {
		answer.Delay = time.Duration(s.Delay).String()
	}
	switch {
	case s.Failures == 0:
		answer.Hang = s.Hang
		if s.Status != 0 {
			answer.Status = s.Status
		}
	case failed < s.Failures:
		counts = true
		answer.Hang = s.Hang
		answer.Status = http.StatusInternalServerError
		if s.Status != 0 {
			answer.Status = s.Status
		}
	}
	return answer, counts
}

// parseQuery parses the parameters of a hook's URL. The result changes only the
// settings that they name.
func parseQuery(query url.Values) (override func(*Settings), err error) {
	var s Settings
	number := func(name string, into *int) {
		if err == nil && query.Has(name) {
			if *into, err = strconv.Atoi(query.Get(name)); err != nil {
				err = fmt.Errorf("%w: %s must be a number", errSettings, name)
			}
		}
	}
	number("status", &s.Status)
	number("failures", &s.Failures)
	number("retryAfter", &s.RetryAfter)
	if err == nil && query.Has("delay") {
		s.Delay, err = parseDelay(query.Get("delay"))
	}
	if err == nil && query.Has("hang") {
		if s.Hang, err = strconv.ParseBool(query.Get("hang")); err != nil {
			err = fmt.Errorf("%w: hang must be true or false", errSettings)
		}
	}
	if query.Has("secret") {
		text := query.Get("secret")
		s.Secret = &text
	}
	if err == nil {
		err = s.validate()
	}
	if err != nil {
		return nil, err
	}
	return func(into *Settings) {
		for name, apply := range map[string]func(){
			"status":     func() { into.Status = s.Status },
			"failures":   func() { into.Failures = s.Failures },
			"retryAfter": func() { into.RetryAfter = s.RetryAfter },
			"delay":      func() { into.Delay = s.Delay },
			"hang":       func() { into.Hang = s.Hang },
			"secret":     func() { into.secret = s.secret },
		} {
			if query.Has(name) {
				apply()
			}
		}
	}, nil
}
