package retry

import (
	"encoding/json"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func always(n float64) func() float64 { return func() float64 { return n } }

func TestDefaultIsWhatTheDocumentationSays(t *testing.T) {
	t.Parallel()
	if got := Default().String(); got != "5s,30s,2m,15m,1h,4h,12h" {
		t.Error(got)
	}
	if Default().Attempts() != 8 {
		t.Errorf("%d attempts", Default().Attempts())
	}
}

func TestNextFollowsTheSchedule(t *testing.T) {
	t.Parallel()
	s := Default()
	for i, want := range Default() {
		got, ok := s.Next(i+1, 0, always(0.5))
		if !ok || got.Round(time.Millisecond) != want {
			t.Errorf("after attempt %d: %v, %v; want %v", i+1, got, ok, want)
		}
	}
	for _, attempt := range []int{8, 9, 1000, 0, -1} {
		if got, ok := s.Next(attempt, time.Hour, always(0.5)); ok || got != 0 {
			t.Errorf("after attempt %d: %v, %v", attempt, got, ok)
		}
	}
	if _, ok := (Schedule{}).Next(1, 0, always(0.5)); ok {
		t.Error("an empty schedule has a retry")
	}
}

func TestNextSpreadsByTenPercent(t *testing.T) {
	t.Parallel()
	s := Schedule{100 * time.Second}
	for n, want := range map[float64]time.Duration{0: 90 * time.Second, 0.5: 100 * time.Second, 0.999999: 110 * time.Second} {
		if got, _ := s.Next(1, 0, always(n)); got.Round(time.Second) != want {
			t.Errorf("chance %v: %v, want %v", n, got, want)
		}
	}
}

func TestNextHonoursRetryAfter(t *testing.T) {
	t.Parallel()
	s := Schedule{time.Minute, MaxStep}
	for _, c := range []struct {
		attempt           int
		retryAfter, wants time.Duration
	}{
		{1, 0, time.Minute},
		{1, time.Second, time.Minute},
		{1, -time.Hour, time.Minute},
		{1, 5 * time.Minute, 5 * time.Minute},
		{1, 24 * time.Hour, 24 * time.Hour},
		{1, 1000 * time.Hour, 24 * time.Hour},
		{2, time.Minute, 24 * time.Hour},
	} {
		if got, ok := s.Next(c.attempt, c.retryAfter, always(0.5)); !ok || got != c.wants {
			t.Errorf("attempt %d, Retry-After %v: %v, want %v", c.attempt, c.retryAfter, got, c.wants)
		}
	}
	if got, _ := s.Next(2, 0, always(0.99)); got != MaxStep {
		t.Errorf("chance takes the delay past its bound: %v", got)
	}
}

func TestNextKeepsItsBounds(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := Schedule(rapid.SliceOfN(rapid.Custom(func(t *rapid.T) time.Duration {
			return time.Duration(rapid.IntRange(1, 24*60*60).Draw(t, "seconds")) * time.Second
		}), 1, MaxSteps).Draw(t, "schedule"))
		attempt := rapid.IntRange(1, len(s)).Draw(t, "attempt")
		after := time.Duration(rapid.Int64().Draw(t, "after"))
		got, ok := s.Next(attempt, after, rand.Float64)
		step := s[attempt-1]
		low, high := step-step/10-time.Microsecond, step+step/10+time.Microsecond
		switch {
		case !ok, got > MaxStep, got < min(low, MaxStep):
			t.Fatalf("%v, %v", got, ok)
		case after > high && got != min(after, MaxStep):
			t.Fatalf("%v although %v was asked for", got, after)
		case after < low && got > min(high, MaxStep):
			t.Fatalf("%v for a step of %v", got, step)
		}
	})
}

func TestParse(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		steps []string
		want  Schedule
	}{
		"nil is the default":   {nil, Default()},
		"empty is no retry":    {[]string{}, Schedule{}},
		"as in the README":     {[]string{"5s", "30s"}, Schedule{5 * time.Second, 30 * time.Second}},
		"at the bounds":        {[]string{"1s", "24h"}, Schedule{time.Second, 24 * time.Hour}},
		"other spellings":      {[]string{"90s", "1h30m", "1000ms"}, Schedule{90 * time.Second, 90 * time.Minute, time.Second}},
		"shrinking":            {[]string{"1h", "1s"}, Schedule{time.Hour, time.Second}},
		"twenty":               {strings.Split(strings.Repeat("1s,", 19)+"1s", ","), slicesOf(20)},
		"twenty-one":           {strings.Split(strings.Repeat("1s,", 20)+"1s", ","), nil},
		"below the bound":      {[]string{"999ms"}, nil},
		"above the bound":      {[]string{"24h1s"}, nil},
		"zero":                 {[]string{"0s"}, nil},
		"negative":             {[]string{"-5s"}, nil},
		"no whole second":      {[]string{"1500ms"}, nil},
		"no unit":              {[]string{"5"}, nil},
		"no duration":          {[]string{"soon"}, nil},
		"empty text":           {[]string{""}, nil},
		"too large to be read": {[]string{"99999999999h"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := Parse(c.steps)
			if c.want == nil {
				if !errors.Is(err, ErrInvalidSchedule) {
					t.Errorf("Parse = %v, %v", got, err)
				}
				return
			}
			if diff := cmp.Diff(c.want, got); err != nil || diff != "" {
				t.Errorf("Parse: %v %s", err, diff)
			}
		})
	}
}

func slicesOf(n int) Schedule {
	s := make(Schedule, n)
	for i := range s {
		s[i] = time.Second
	}
	return s
}

func TestSchedulesAreWrittenAsTheyAreRead(t *testing.T) {
	t.Parallel()
	steps := []string{"1s", "30s", "1m", "1m30s", "10m", "1h", "1h1s", "1h10m", "24h"}
	s, err := Parse(steps)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"1s", "30s", "1m", "1m30s", "10m", "1h", "1h0m1s", "1h10m", "24h"}, s.Strings()); diff != "" {
		t.Error(diff)
	}
	text, err := json.Marshal(struct {
		Schedule Schedule `json:"schedule"`
	}{s})
	if err != nil {
		t.Fatal(err)
	}
	var back struct {
		Schedule Schedule `json:"schedule"`
	}
	if err := json.Unmarshal(text, &back); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(s, back.Schedule); diff != "" {
		t.Error(diff)
	}
	for _, bad := range []string{`{"schedule":["1ms"]}`, `{"schedule":"5s"}`, `{"schedule":[5]}`} {
		if err := json.Unmarshal([]byte(bad), &back); !errors.Is(err, ErrInvalidSchedule) {
			t.Errorf("%s: %v", bad, err)
		}
	}
	if text, err := json.Marshal(Schedule{}); err != nil || string(text) != "[]" {
		t.Errorf("an empty schedule is written as %s, %v", text, err)
	}
}
