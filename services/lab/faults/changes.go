package faults

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"posthorn/services/lab/site"
)

// prompt is how long a change may take to apply to every new attempt.
const prompt = time.Second

// changes are changes of subscriptions while deliveries are in flight.
func changes() []Scenario {
	return []Scenario{
		{Name: "subscription deleted under load", Inject: deleted},
		{Name: "subscription paused for 5 s under load", Inject: paused},
		{Name: "URL and secret changed under load, with retries waiting", Inject: changed},
		{Name: "replay under load, and once more", Inject: replayed},
	}
}

// deleted deletes a subscription: owed events may be missing then, but no
// request may reach it a second after the response.
func deleted(ctx context.Context, c *Cluster) error {
	if err := c.call(ctx, http.MethodDelete, "/subscription/"+c.ids["victim"], nil, nil); err != nil {
		return err
	}
	for i := range c.expected {
		if c.expected[i].Subscriber == "victim" {
			c.expected[i].Optional, c.expected[i].NotAfter = true, time.Now().Add(prompt)
		}
	}
	site.Pause(ctx, 3*time.Second)
	return nil
}

// paused pauses a subscription: no request may reach it meanwhile, and all
// events must arrive afterwards.
func paused(ctx context.Context, c *Cluster) error {
	path := "/subscription/" + c.ids["victim"]
	if err := c.call(ctx, http.MethodPost, path+"/pause", nil, nil); err != nil {
		return err
	}
	from := time.Now().Add(prompt)
	site.Pause(ctx, 5*time.Second)
	until := time.Now()
	if err := c.call(ctx, http.MethodPost, path+"/resume", nil, nil); err != nil {
		return err
	}
	c.must("requests to a paused subscriber", "victim", func(a Arrival) bool { return a.At.Before(from) || a.At.After(until) })
	return nil
}

// changed gives a subscription another URL and another secret: each attempt
// that begins a second later goes to the new URL with the new signature,
// including retries of earlier events.
func changed(ctx context.Context, c *Cluster) error {
	path := "/subscription/" + c.ids["victim"]
	c.Sink.Behave("victim", Failing)
	site.Pause(ctx, 2*time.Second)
	if err := c.call(ctx, http.MethodPatch, path, map[string]any{"url": c.Sink.URL("victim/moved")}, nil); err != nil {
		return err
	}
	moved := time.Now().Add(prompt)
	c.must("requests to the old URL", "victim", func(a Arrival) bool { return a.Path == "moved" || a.At.Before(moved) })
	site.Pause(ctx, time.Second)
	var answer struct {
		Secret string `json:"secret"`
	}
	if err := c.call(ctx, http.MethodPost, path+"/rotate-secret", map[string]any{}, &answer); err != nil {
		return err
	}
	if err := c.Sink.Trust("victim", answer.Secret); err != nil {
		return err
	}
	rotated := time.Now().Add(prompt)
	c.must("requests without the new signature", "victim", func(a Arrival) bool { return a.Newest || a.At.Before(rotated) })
	site.Pause(ctx, 2*time.Second)
	c.Sink.Behave("victim", Well)
	return nil
}

// must checks every request to a subscriber.
func (c *Cluster) must(wrong, name string, right func(Arrival) bool) {
	c.checks = append(c.checks, func(r run) string {
		all, bad := 0, 0
		for a := range r.arrived(name) {
			all++
			if !right(a) {
				bad++
			}
		}
		if bad > 0 || all == 0 {
			return fmt.Sprintf("%d of %d are %s", bad, all, wrong)
		}
		return ""
	})
}

// replayed replays a subscriber's events twice while new events arrive. Each
// event must arrive once more for each replay that covers it, at that
// subscriber only.
func replayed(ctx context.Context, c *Cluster) error {
	for range 2 {
		var through int64
		err := c.db.QueryRowContext(ctx, `SELECT max(position) FROM posthorn.deliveries d WHERE subscription_id::text = $1 AND status = 'delivered'
			AND NOT EXISTS (SELECT FROM posthorn.deliveries p WHERE p.subscription_id = d.subscription_id AND p.position < d.position
				AND p.status <> 'delivered')`, bare(c.ids["victim"])).Scan(&through)
		if err != nil {
			return fmt.Errorf("find delivered events: %w", err)
		}
		var answer struct {
			ID     string `json:"id"`
			Status string `json:"status"`
			Sent   int    `json:"sent"`
		}
		replay := map[string]any{"subscription": c.ids["victim"], "from": "beginning", "to": through}
		if err := c.call(ctx, http.MethodPost, "/replays", replay, &answer); err != nil {
			return err
		}
		err = site.Await(ctx, 20*time.Second, "the replay is done", func() bool {
			return c.call(ctx, http.MethodGet, "/replays/"+answer.ID, nil, &answer) == nil && answer.Status == "done"
		})
		if err != nil {
			return err
		}
		if answer.Sent == 0 {
			return fmt.Errorf("replay through %d sent nothing", through)
		}
		for i := range c.expected {
			if c.expected[i].Subscriber == "victim" {
				c.expected[i].Replays = append(c.expected[i].Replays, through)
			}
		}
		site.Pause(ctx, 2*time.Second)
	}
	return nil
}
