package faults

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"time"

	"posthorn/services/internal/privateserver"
	"posthorn/services/lab/site"
)

const (
	// backlog is how many deliveries wait when RabbitMQ is wiped.
	backlog = 100_000
	// restoredWithin is how long it may take until all of them are in their queue
	// again.
	restoredWithin = 10 * time.Second
)

// losses are the faults in which RabbitMQ, with transient messages, loses many of
// them.
func losses() []Scenario {
	return []Scenario{
		{Name: "RabbitMQ wiped with 100,000 deliveries waiting", Bound: inFlight, Prepare: waitInQueue, Inject: wipedFull},
		{Name: "RabbitMQ killed with retries waiting", Bound: inFlight, Inject: killedWhileRetrying},
		{
			// The first time is the first start, which finds no memory either.
			Name: "RabbitMQ killed with retries waiting, and the relay at relay.after_forgotten", Bound: inFlight,
			Failpoints: map[string]string{"relay": "relay.after_forgotten=kill@2"}, Inject: killedWhileRetrying,
		},
		{Name: "one of three RabbitMQ nodes killed for 10 s, classic queues", Bound: inFlight, Servers: threeNodes, Inject: oneNodeKilled},
		{
			Name: "one of three RabbitMQ nodes killed for 10 s, quorum queues", Bound: inFlight, Servers: threeNodes, Inject: oneNodeKilled,
			Env: []string{"POSTHORN_QUEUE_TYPE=quorum"},
		},
	}
}

// killedWhileRetrying kills RabbitMQ while messages wait in the retry queues.
func killedWhileRetrying(ctx context.Context, c *Cluster) error {
	c.Sink.Behave("victim", Failing)
	site.Pause(ctx, 3*time.Second)
	err := errors.Join(c.RabbitMQ.Kill(), c.RabbitMQ.Restart(ctx)) //nolint:contextcheck // a kill has its own deadline
	c.Sink.Behave("victim", Well)
	return err
}

// waitInQueue queues many deliveries of a paused subscription.
func waitInQueue(ctx context.Context, c *Cluster) error {
	if err := c.subscribeWith(ctx, "waiting", "3s", 64, "T.W"); err != nil {
		return err
	}
	if err := c.call(ctx, http.MethodPost, "/subscription/"+c.ids["waiting"]+"/pause", nil, nil); err != nil {
		return err
	}
	if err := c.bulk(ctx, "T.W", backlog); err != nil {
		return err
	}
	return c.awaitDepth(ctx, c.queue("waiting"), backlog, 2*time.Minute)
}

// wipedFull wipes RabbitMQ and checks that the queue is full again soon after its
// return.
func wipedFull(ctx context.Context, c *Cluster) error {
	if err := c.RabbitMQ.Wipe(ctx); err != nil {
		return fmt.Errorf("wipe: %w", err)
	}
	if err := c.awaitDepth(ctx, c.queue("waiting"), backlog, restoredWithin); err != nil {
		return err
	}
	return c.call(ctx, http.MethodPost, "/subscription/"+c.ids["waiting"]+"/resume", nil, nil)
}

// bulk appends events in the database and records them as accepted.
func (c *Cluster) bulk(ctx context.Context, eventType string, n int) (err error) {
	j, err := newJournal(c.asked())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, j.close()) }()
	rows, err := c.db.QueryContext(ctx, `
		INSERT INTO posthorn.outbox (id, type, data)
		SELECT $1::text || n, $2, convert_to('{"n":' || n || '}', 'UTF8') FROM generate_series(1, $3::integer) n
		RETURNING id, position, convert_from(data, 'UTF8')`, strings.TrimSuffix(c.Namespace, ".")+"-bulk-", eventType, n)
	if err != nil {
		return fmt.Errorf("append events: %w", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		a := Accepted{Type: eventType, At: time.Now()}
		var data string
		if err := rows.Scan(&a.ID, &a.Position, &data); err != nil {
			return fmt.Errorf("append events: %w", err)
		}
		sum := sha256.Sum256([]byte(data))
		a.SHA256 = hex.EncodeToString(sum[:])
		asked := a
		asked.Position = 0
		a.OK = true
		if err := errors.Join(j.write(asked), j.write(a)); err != nil {
			return err
		}
	}
	return rows.Err() //nolint:wrapcheck // as above
}

// threeNodes starts Postgres and a RabbitMQ cluster of three nodes, over which
// queues are distributed.
func threeNodes(ctx context.Context, dir string) (*site.Servers, func() error, error) {
	spread := map[string]string{"queue_master_locator": "min-masters", "queue_leader_locator": "balanced"}
	servers, err := site.Start(ctx, privateserver.Options{Dir: filepath.Join(dir, "postgres")},
		privateserver.Options{Dir: filepath.Join(dir, "rabbitmq"), Settings: spread})
	if err != nil {
		return nil, nil, err
	}
	for i := 2; i <= 3; i++ {
		node, err := privateserver.StartRabbitMQ(ctx, privateserver.Options{
			Dir: filepath.Join(dir, fmt.Sprint("rabbitmq", i)), Settings: spread, Join: servers.RabbitMQ,
		})
		if err != nil {
			return nil, nil, errors.Join(err, servers.Kill()) //nolint:contextcheck // must happen whichever context has ended
		}
		servers.Members = append(servers.Members, node)
	}
	return servers, servers.Kill, nil
}

// oneNodeKilled kills one of the nodes that have queues and that Posthorn is not
// connected to.
func oneNodeKilled(ctx context.Context, c *Cluster) error {
	node := c.Members[c.chance.IntN(len(c.Members))]
	err := node.Kill() //nolint:contextcheck // a kill has its own deadline
	site.Pause(ctx, 10*time.Second)
	return errors.Join(err, node.Restart(ctx))
}
