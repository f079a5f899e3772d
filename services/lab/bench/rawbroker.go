package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	amqp "github.com/rabbitmq/amqp091-go" //nolint:depguard // the limit is measured without our own package
)

// rawWindow is how many confirms, and how many messages, are in flight.
const rawWindow = 512

// PassThrough measures how many persistent messages of the payload a second
// pass through a durable queue, published with confirms and consumed with acks
// concurrently, both pipelined.
func PassThrough(ctx context.Context, url string, messages int) (rate float64, err error) {
	out, err := amqp.Dial(url)
	if err != nil {
		return 0, fmt.Errorf("connect to rabbitmq: %w", err)
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	in, err := amqp.Dial(url)
	if err != nil {
		return 0, fmt.Errorf("connect to rabbitmq: %w", err)
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	publish, err := out.Channel()
	if err != nil {
		return 0, fmt.Errorf("open channel: %w", err)
	}
	consume, err := in.Channel()
	if err != nil {
		return 0, fmt.Errorf("open channel: %w", err)
	}
	queue := fmt.Sprintf("bench.raw.%d", time.Now().UnixNano())
	if _, err := publish.QueueDeclare(queue, true, false, false, false, nil); err != nil {
		return 0, fmt.Errorf("declare queue: %w", err)
	}
	defer func() {
		_, deleted := publish.QueueDelete(queue, false, false, false)
		err = errors.Join(err, deleted)
	}()
	if err := errors.Join(publish.Confirm(false), consume.Qos(rawWindow, 0, false)); err != nil {
		return 0, fmt.Errorf("set up channels: %w", err)
	}
	confirms := publish.NotifyPublish(make(chan amqp.Confirmation, rawWindow))
	deliveries, err := consume.ConsumeWithContext(ctx, queue, "", false, false, false, false, nil)
	if err != nil {
		return 0, fmt.Errorf("consume: %w", err)
	}

	body := appendEvent(nil, eventType, 1, time.Now())
	begun := time.Now()
	published := make(chan error, 1)
	go func() { published <- publishRaw(ctx, publish, confirms, queue, body, messages) }()
	for n := 1; n <= messages; n++ {
		d, ok := <-deliveries
		if !ok {
			return 0, fmt.Errorf("consume: %w", errors.Join(errRaw, ctx.Err(), <-published))
		}
		if n%64 == 0 || n == messages {
			if err := d.Ack(true); err != nil {
				return 0, fmt.Errorf("acknowledge: %w", err)
			}
		}
	}
	rate = float64(messages) / time.Since(begun).Seconds()
	return rate, <-published
}

var errRaw = errors.New("the broker stopped the raw run")

func publishRaw(ctx context.Context, ch *amqp.Channel, confirms <-chan amqp.Confirmation, queue string, body []byte, messages int) error {
	await := func() error {
		if c, ok := <-confirms; !ok || !c.Ack {
			return fmt.Errorf("publish: %w", errRaw)
		}
		return nil
	}
	for n := range messages {
		if n >= rawWindow {
			if err := await(); err != nil {
				return err
			}
		}
		err := ch.PublishWithContext(ctx, "", queue, false, false, amqp.Publishing{
			DeliveryMode: amqp.Persistent, ContentType: "application/json", Body: body,
		})
		if err != nil {
			return fmt.Errorf("publish: %w", err)
		}
	}
	for range min(messages, rawWindow) {
		if err := await(); err != nil {
			return err
		}
	}
	return nil
}
