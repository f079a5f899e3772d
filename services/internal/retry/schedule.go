// Package retry schedules the retries of failed deliveries.
//
// A Schedule is a list of delays: the first follows the first failed attempt,
// the second the second, and after the last there is no further attempt. It
// promises delays from 0.9 s to 24 h, never shorter than the subscriber's
// Retry-After, and with jitter, so that deliveries that fail together are not
// retried together. A list that is out of bounds fails with ErrInvalidSchedule.
package retry

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
)

// ErrInvalidSchedule is wrapped by errors of Parse. The text after it can be
// shown to the user.
var ErrInvalidSchedule = errors.New("invalid retry schedule")

// The bounds of a schedule.
const (
	MinStep  = time.Second
	MaxStep  = 24 * time.Hour
	MaxSteps = 20
)

// jitter is how far a delay may deviate from its step, as a fraction of it.
const jitter = 0.1

// Schedule is a list of delays. An empty one, including nil, means one attempt
// only. It must not be changed after Parse.
type Schedule []time.Duration

// Default is the schedule of a subscription that sets no other: eight attempts
// over about 17 and a half hours.
func Default() Schedule {
	return Schedule{
		5 * time.Second, 30 * time.Second, 2 * time.Minute, 15 * time.Minute,
		time.Hour, 4 * time.Hour, 12 * time.Hour,
	}
}

// Parse parses steps such as "5s", "2m" or "1h30m": at most 20, each a whole
// number of seconds from 1 s to 24 h. They need not increase. Nil means
// Default; an empty list that is not nil means no retries.
func Parse(steps []string) (Schedule, error) {
	if steps == nil {
		return Default(), nil
	}
	if len(steps) > MaxSteps {
		return nil, fmt.Errorf("%w: %d steps, at most %d", ErrInvalidSchedule, len(steps), MaxSteps)
	}
	schedule := make(Schedule, 0, len(steps))
	for i, text := range steps {
		step, err := time.ParseDuration(text)
		switch {
		case err != nil:
			return nil, fmt.Errorf("%w: step %d is not a duration such as 30s, 5m or 2h", ErrInvalidSchedule, i+1)
		case step < MinStep || step > MaxStep:
			return nil, fmt.Errorf("%w: step %d is not between 1s and 24h", ErrInvalidSchedule, i+1)
		case step%time.Second != 0:
			return nil, fmt.Errorf("%w: step %d is not a whole number of seconds", ErrInvalidSchedule, i+1)
		}
		schedule = append(schedule, step)
	}
	return schedule, nil
}

// Attempts is how many attempts a delivery gets, including the first.
func (s Schedule) Attempts() int { return len(s) + 1 }

// Next returns how long to wait after attempt (1 is the first) has failed, or
// false if it was the last.
//
// The delay is the schedule's step with a random jitter of 10 %, or retryAfter
// if that is longer, and at most 24 h. retryAfter can make the wait longer but
// not shorter: a server in trouble that answers "Retry-After: 0" must not be
// hammered. rnd returns a number from [0, 1), like math/rand/v2's Float64.
func (s Schedule) Next(attempt int, retryAfter time.Duration, rnd func() float64) (time.Duration, bool) {
	if attempt < 1 || attempt > len(s) {
		return 0, false
	}
	step := float64(s[attempt-1]) //nolint:gosec // attempt is from 1 to len(s)
	delay := time.Duration(step * (1 - jitter + 2*jitter*rnd()))
	return min(max(delay, retryAfter), MaxStep), true
}

// Latest returns the longest delays that Next can return without a Retry-After;
// the first is the delay after the first attempt.
func (s Schedule) Latest() []time.Duration {
	latest := make([]time.Duration, len(s))
	for i, step := range s {
		latest[i] = min(time.Duration(float64(step)*(1+jitter)), MaxStep)
	}
	return latest
}

// Strings returns the steps in the form that Parse accepts: "2m", not "2m0s".
func (s Schedule) Strings() []string {
	texts := make([]string, len(s))
	for i, step := range s {
		texts[i] = format(step)
	}
	return texts
}

// String returns the steps with commas between them.
func (s Schedule) String() string { return strings.Join(s.Strings(), ",") }

// MarshalJSON returns the steps as a list of strings.
func (s Schedule) MarshalJSON() ([]byte, error) { return json.Marshal(s.Strings()) }

// UnmarshalJSON parses the output of MarshalJSON, like Parse; null means Default.
func (s *Schedule) UnmarshalJSON(data []byte) error {
	var texts []string
	if err := json.Unmarshal(data, &texts); err != nil {
		return fmt.Errorf("%w: not a list of strings", ErrInvalidSchedule)
	}
	parsed, err := Parse(texts)
	if err != nil {
		return err
	}
	*s = parsed
	return nil
}

func format(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}
