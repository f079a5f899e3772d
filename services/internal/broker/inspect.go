package broker

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"

	amqp "github.com/rabbitmq/amqp091-go"
)

// Inspection is a broker's description of itself.
type Inspection struct{ Product, Version, Cluster string }

// Inspect connects once, checks that queues may be declared, used and deleted, and describes the
// broker. Unlike the rest of this package it does not retry; Describe explains its errors.
func Inspect(ctx context.Context, cfg Config) (Inspection, error) {
	cfg, err := cfg.filled()
	if err != nil {
		return Inspection{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, cfg.DialTimeout)
	defer cancel()
	l := &link{cfg: cfg, role: "doctor", log: cfg.Logger}
	s, err := l.dial(ctx)
	if err != nil {
		return Inspection{}, translate(err)
	}
	defer s.close()
	text := func(name string) string {
		value, _ := s.conn.Properties[name].(string)
		return value
	}
	seen := Inspection{Product: text("product"), Version: text("version"), Cluster: text("cluster_name")}
	ch, err := s.conn.Channel()
	if err != nil {
		return seen, translate(fmt.Errorf("open channel: %w", err))
	}
	name := cfg.Namespace + "doctor." + rand.Text()
	if _, err := ch.QueueDeclare(name, false, true, true, false, amqp.Table{}); err != nil {
		return seen, translate(fmt.Errorf("declare queue: %w", err))
	}
	err = ch.PublishWithContext(ctx, "", name, false, false, amqp.Publishing{Body: []byte("doctor")})
	if err == nil {
		_, _, err = ch.Get(name, true)
	}
	if _, deleted := ch.QueueDelete(name, false, false, false); err != nil || deleted != nil {
		return seen, translate(fmt.Errorf("use queue: %w", errors.Join(err, deleted)))
	}
	return seen, nil
}
