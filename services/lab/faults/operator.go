package faults

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"syscall"
	"time"

	"posthorn/services/internal/broker"
	"posthorn/services/lab/site"
)

// mistakes are manual interventions in the broker.
func mistakes() []Scenario {
	return []Scenario{
		{Name: "queue with a backlog purged", Bound: inFlight, Inject: backlogged(func(ctx context.Context, c *Cluster) error {
			return c.ctl(ctx, "purge_queue", c.queue("victim"))
		})},
		{Name: "queue deleted under load", Bound: inFlight, Inject: backlogged(func(ctx context.Context, c *Cluster) error {
			return c.ctl(ctx, "delete_queue", c.queue("victim"))
		})},
		{Name: "exchange deleted under load", Bound: inFlight, Inject: func(ctx context.Context, c *Cluster) error {
			return c.ctl(ctx, "eval", fmt.Sprintf(
				`rabbit_exchange:delete(rabbit_misc:r(<<"/">>, exchange, <<"%sevents">>), false, <<"faults">>).`, c.Namespace))
		}},
		{Name: "binding deleted under load", Inject: func(ctx context.Context, c *Cluster) error {
			path := "/bindings/%2F/e/" + c.Namespace + "events/q/" + c.queue("victim") + "/T.1"
			if err := c.Manage(ctx, http.MethodDelete, path, nil, nil); err != nil {
				return err
			}
			before := c.Sink.Taken("victim")
			site.Pause(ctx, 3*time.Second)
			if n := c.Sink.Taken("victim") - before; n > 50 {
				return fmt.Errorf("the binding is still there: %d events came", n)
			}
			return nil
		}},
		{Name: "foreign messages in a queue", Inject: foreign},
		{Name: "queue that exists with other arguments", Bound: inFlight, Inject: taken},
	}
}

// foreign puts messages into a queue that Posthorn did not write. They are
// parked, cost nothing afterwards, and reach no subscriber: any request for
// them would be unexpected.
func foreign(ctx context.Context, c *Cluster) error {
	const copies = 10
	calm, err := c.cpu(ctx, 3*time.Second, "delivery", "delivery2")
	if err != nil {
		return err
	}
	type object = map[string]any
	parked := []object{
		{"properties": object{}, "payload": "garbage"},
		{"properties": object{}, "payload": ""},
		{"properties": object{"headers": object{"posthorn-position": 7, "posthorn-attempts": 1}}, "payload": "{}"},
		{"properties": object{"message_id": "foreign", "headers": object{"n": 1}}, "payload": "{}"},
		{"properties": object{"message_id": "foreign", "headers": object{"posthorn-position": object{"a": []int{1}}}}, "payload": "{}"},
		{"properties": object{"message_id": "two\nlines", "headers": object{"posthorn-position": 7, "posthorn-cause": "live"}}, "payload": "{}"},
		// Well formed, but not signed.
		{"properties": object{"message_id": "forged", "headers": object{
			"posthorn-position": 5, "posthorn-cause": "retry", "posthorn-attempts": 1,
		}}, "payload": "{}"},
		{"properties": object{"message_id": "forged", "headers": object{
			"posthorn-position": 1 << 61, "posthorn-cause": "live", "posthorn-published-at": time.Now().UnixMilli(), "posthorn-mac": "AAAA",
		}}, "payload": "{}"},
	}
	for range copies {
		for _, message := range parked {
			message["routing_key"], message["payload_encoding"] = c.queue("victim"), "string"
			var answer struct{ Routed bool }
			if err := c.Manage(ctx, http.MethodPost, "/exchanges/%2F/amq.default/publish", message, &answer); err != nil {
				return err
			}
			if !answer.Routed {
				return errors.New("foreign message found no queue")
			}
		}
	}
	if err := c.publish(ctx, broker.Publishing{Key: c.queue("victim"), Mandatory: true, Body: make([]byte, 16<<20)}); err != nil {
		return err
	}
	if err := c.awaitDepth(ctx, c.Namespace+"dead."+c.ids["victim"], copies*len(parked)+1, 20*time.Second); err != nil {
		return err
	}
	busy, err := c.cpu(ctx, 3*time.Second, "delivery", "delivery2")
	if err != nil {
		return err
	}
	if busy > calm+0.2 {
		return fmt.Errorf("deliveries use %.0f %% of a processor since, %.0f %% before", 100*busy, 100*calm)
	}
	return nil
}

// taken creates a queue with other arguments before its subscription. That
// subscription has to wait, with a logged reason, until the queue is deleted;
// others do not wait.
func taken(ctx context.Context, c *Cluster) error {
	for _, name := range []string{"relay", "relay2"} {
		if err := c.parts[name].Signal(syscall.SIGSTOP); err != nil {
			return err
		}
	}
	err := c.subscribe(ctx, "late", "T.1")
	queue := "/queues/%2F/" + c.queue("late")
	if err == nil {
		err = c.Manage(ctx, http.MethodPut, queue, map[string]any{"durable": true, "arguments": map[string]any{"x-max-length": 1}}, nil)
	}
	for _, name := range []string{"relay", "relay2"} {
		err = errors.Join(err, c.parts[name].Signal(syscall.SIGCONT))
	}
	if err != nil {
		return err
	}
	site.Pause(ctx, 3*time.Second)
	before := c.Sink.Taken("b")
	site.Pause(ctx, 4*time.Second)
	if n := c.Sink.Taken("b") - before; n < 60 {
		return fmt.Errorf("another subscriber got only %d events in 4 s", n)
	}
	if err := c.logged("other arguments", c.queue("late")); err != nil {
		return err
	}
	return c.Manage(ctx, http.MethodDelete, queue, nil, nil)
}

// ctl runs rabbitmqctl.
func (c *Cluster) ctl(ctx context.Context, args ...string) error {
	if out, err := c.RabbitMQ.Ctl(ctx, args...); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// publish publishes a message directly to the broker, without the relay.
func (c *Cluster) publish(ctx context.Context, p broker.Publishing) (err error) {
	//nolint:contextcheck // a connection has a life of its own
	publisher, err := broker.NewPublisher(broker.Config{URL: c.RabbitMQ.URL(), ConnectionName: "faults"})
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer func() { err = errors.Join(err, publisher.Close()) }()
	if _, err := publisher.PublishAll(ctx, []broker.Publishing{p}); err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	return nil
}

// awaitDepth waits until a queue holds exactly n messages.
func (c *Cluster) awaitDepth(ctx context.Context, queue string, n int, within time.Duration) (err error) {
	//nolint:contextcheck // as above
	topology, err := broker.NewTopology(broker.Config{URL: c.RabbitMQ.URL(), ConnectionName: "faults"})
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer func() { err = errors.Join(err, topology.Close()) }()
	depth := 0
	err = site.Await(ctx, within, fmt.Sprintf("%s holds %d messages", queue, n), func() bool {
		var err error
		depth, _, _, err = topology.Depth(ctx, queue)
		return err == nil && depth == n
	})
	if err != nil {
		return fmt.Errorf("%w (it holds %d)", err, depth)
	}
	return nil
}
