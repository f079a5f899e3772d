package broker_test

import (
	"context"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/pubsub/tests"

	"posthorn/events"
	"posthorn/services/internal/broker"
)

// Watermill's conformance suite, once with one message in flight, as it requires of subscribers
// that promise order, and once with many.
func TestWatermillConformance(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		prefetch int
		features tests.Features
	}{
		"one in flight": {1, tests.Features{
			ConsumerGroups: true, Persistent: true, GuaranteedOrder: true, GuaranteedOrderWithSingleSubscriber: true,
		}},
		"many in flight": {64, tests.Features{ConsumerGroups: true, Persistent: true}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			s.sweepExchanges(s.Events(events.DefaultAccount))
			s.cfg.Prefetch = c.prefetch
			s.cfg.Logger = nil
			// The suite closes subscribers on messages that are never acknowledged.
			s.cfg.DrainTimeout = time.Second
			group := func(t *testing.T, group string) (message.Publisher, message.Subscriber) {
				t.Helper()
				cfg := s.cfg
				cfg.Group = group
				p, err := broker.NewPublisher(cfg)
				if err != nil {
					t.Fatal(err)
				}
				sub, err := broker.NewSubscriber(cfg)
				if err != nil {
					t.Fatal(err)
				}
				return p, &sweeping{Subscriber: sub, site: s, group: group}
			}
			tests.TestPubSub(t, c.features, func(t *testing.T) (message.Publisher, message.Subscriber) {
				t.Helper()
				return group(t, "default")
			}, group)
		})
	}
}

// sweeping records the queues to delete after the suite.
type sweeping struct {
	*broker.Subscriber
	site  *site
	group string
}

func (s *sweeping) SubscribeInitialize(topic string) error {
	s.site.sweep(s.site.Namespace + "listen." + s.group + "." + topic)
	return s.Subscriber.SubscribeInitialize(topic)
}

func (s *sweeping) Subscribe(ctx context.Context, topic string) (<-chan *message.Message, error) {
	s.site.sweep(s.site.Namespace + "listen." + s.group + "." + topic)
	return s.Subscriber.Subscribe(ctx, topic)
}
