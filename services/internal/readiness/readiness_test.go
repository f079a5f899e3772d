package readiness_test

import (
	"context"
	"encoding/json"
	"net/http/httptest"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"

	"posthorn/services/internal/readiness"
)

func says(problems ...string) readiness.Check {
	return func(context.Context) readiness.Report { return readiness.Report{Problems: problems} }
}

func TestAProcessIsReadyWhenEachPartThatCountsIs(t *testing.T) {
	t.Parallel()
	var parts readiness.Parts
	parts.Add("api", says())
	parts.Add("relay", says("RabbitMQ cannot be reached", "is stuck"))
	parts.Add("delivery", func(context.Context) readiness.Report { return readiness.Report{Warnings: []string{"is slow"}} })
	for _, c := range []struct {
		count  []string
		status int
		reason string
	}{
		{nil, 503, "relay: RabbitMQ cannot be reached; is stuck"},
		{[]string{"api", "delivery"}, 200, ""},
		{[]string{"relay"}, 503, "relay: RabbitMQ cannot be reached; is stuck"},
	} {
		if c.count != nil {
			parts.Count(c.count...)
		}
		answer := httptest.NewRecorder()
		parts.ServeHTTP(answer, httptest.NewRequestWithContext(t.Context(), "GET", "/readyz", nil))
		var got readiness.State
		if err := json.Unmarshal(answer.Body.Bytes(), &got); err != nil {
			t.Fatal(err)
		}
		want := readiness.State{Status: readiness.Ready, Reason: c.reason, Parts: map[string]readiness.PartState{
			"api":      {Status: readiness.Ready},
			"relay":    {Status: readiness.NotReady, Problems: []string{"RabbitMQ cannot be reached", "is stuck"}},
			"delivery": {Status: readiness.Ready, Warnings: []string{"is slow"}},
		}}
		if c.status != 200 {
			want.Status = readiness.NotReady
		}
		for name, part := range want.Parts {
			for _, counted := range c.count {
				part.Counts = part.Counts || counted == name
			}
			part.Counts = part.Counts || c.count == nil
			want.Parts[name] = part
		}
		if diff := cmp.Diff(want, got); diff != "" || answer.Code != c.status {
			t.Errorf("counting %q: %d (-want +got):\n%s", c.count, answer.Code, diff)
		}
	}
}

func TestAPartThatDoesNotAnswerIsNotReady(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var parts readiness.Parts
		release := make(chan struct{})
		defer close(release)
		parts.Add("stuck", func(context.Context) readiness.Report { <-release; return readiness.Report{} })
		parts.Add("well", says())
		state := parts.State(t.Context())
		if state.Status != readiness.NotReady || state.Parts["well"].Status != readiness.Ready || state.Reason != "stuck: does not answer" {
			t.Errorf("state %+v", state)
		}
	})
}
