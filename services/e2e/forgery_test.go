package e2e_test

import (
	"maps"
	"net/http"
	"strconv"
	"testing"
	"time"

	"posthorn/services/internal/broker"
	"posthorn/services/internal/envelope"
	"posthorn/services/internal/ledger"
	"posthorn/services/internal/signing"
)

// publish writes to the broker directly, like an attacker with access to it.
func (s *system) publish(messages ...broker.Publishing) {
	s.t.Helper()
	publisher, err := broker.NewPublisher(s.broker)
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = publisher.Close() }()
	outcomes, err := publisher.PublishAll(s.t.Context(), messages)
	if err != nil {
		s.t.Fatal(err)
	}
	for i, outcome := range outcomes {
		if outcome != broker.Acked {
			s.t.Fatalf("message %d: %s", i, outcome)
		}
	}
}

// genuine takes the published messages of n events of a type from a queue, and
// leaves their subscription paused.
func (s *system) genuine(sub subscribed, eventType string, n int) []broker.Message {
	s.t.Helper()
	s.must(http.MethodPost, "/subscription/"+sub.ID+"/pause", nil, nil)
	paused := time.Now()
	eventually(s.t, patience, "a second passes", func() bool { return time.Since(paused) > time.Second })
	s.post(eventType, n)
	got, stop := s.consumeUntil(s.broker.Names().DeliverQueue(sub.ID))
	defer stop()
	eventually(s.t, patience, "the messages are there", func() bool { return len(got()) == n })
	return got()
}

func TestForgedMessagesAreParkedAndNeverSent(t *testing.T) {
	t.Parallel()
	s := startSystem(t)
	r := newSubscriber(t, nil)
	source := s.subscribe(r.URL+"/source", nil, "E")
	likes := s.subscribe(r.URL, nil, "LIKED_PHOTO")
	messages := s.genuine(source, "E", 2)

	stranger, err := signing.ParseKeyring(signing.GenerateKey())
	if err != nil {
		t.Fatal(err)
	}
	body := []byte(`{"id":"evt_x","type":"LIKED_PHOTO","data":{}}`)
	live := envelope.Envelope{Position: 1, Cause: ledger.CauseLive, PublishedAt: time.Now(), Type: "LIKED_PHOTO"}
	here := envelope.Content{Subscription: likes.ID, ID: "evt_x", ContentType: "application/json", Body: body}
	with := func(headers map[string]string, changes ...string) map[string]string {
		headers = maps.Clone(headers)
		for i := 0; i < len(changes); i += 2 {
			headers[changes[i]] = changes[i+1]
		}
		return headers
	}
	now := strconv.FormatInt(time.Now().UnixMilli(), 10)
	queue := s.broker.Names().DeliverQueue(likes.ID)
	forged := []broker.Publishing{
		{ID: "evt_x", Body: body, Headers: live.Headers()},
		{ID: "evt_x", Body: body, Headers: map[string]string{ // a position that has no partition
			"posthorn-position": "4611686018427387904", "posthorn-cause": "live", "posthorn-published-at": now,
		}},
		{ID: "evt_x", Body: body, Headers: envelope.NewAuthenticator(stranger.Derive(envelope.Purpose)).Headers(live, here)},
		{ID: messages[0].ID, Body: body, Headers: messages[0].Headers},
		{ID: "evt_x", Body: messages[0].Body, Headers: messages[0].Headers},
		{ID: messages[0].ID, Body: messages[0].Body, Headers: with(messages[0].Headers, "posthorn-type", "LIKED_PHOTO")},
		{ID: messages[0].ID, Body: messages[0].Body, Headers: with(messages[0].Headers, "posthorn-published-at", now)},
		// Genuine, but of another subscription.
		{ID: messages[1].ID, Body: messages[1].Body, Headers: messages[1].Headers},
	}
	for i := range forged {
		forged[i].Key, forged[i].ContentType = queue, "application/json"
	}
	// To all subscriptions of the type.
	forged = append(forged, broker.Publishing{
		Exchange: s.broker.Names().Events(""), Key: "LIKED_PHOTO", ID: "evt_y", Body: body, ContentType: "application/json", Headers: live.Headers(),
	})
	s.publish(forged...)

	parked := s.consume(s.broker.Names().DeadQueue(likes.ID))
	eventually(t, patience, "all are parked", func() bool { return len(parked()) == len(forged) })
	for _, d := range parked() {
		if d.Headers["posthorn-reason"] == "" {
			t.Errorf("parked without a reason: %v", d.Headers)
		}
	}
	ids := s.post("LIKED_PHOTO", 1)
	eventually(t, patience, "an event after them arrives", func() bool { return s.ledger(likes.ID)["delivered"] == 1 })
	once(t, r, ids)
	if counts := s.ledger(likes.ID); len(counts) != 1 {
		t.Errorf("the ledger has %v", counts)
	}
}

// As after an upgrade from a release that did not sign messages.
func TestAnUnsignedMessageOfAnOwedDeliveryIsSentAgainAndDelivered(t *testing.T) {
	t.Parallel()
	s := startSystem(t)
	r := newSubscriber(t, nil)
	sub := s.subscribe(r.URL, nil, "E")
	messages := s.genuine(sub, "E", 3)
	unsigned := make([]broker.Publishing, len(messages))
	ids := make([]string, len(messages))
	for i, d := range messages {
		headers := maps.Clone(d.Headers)
		delete(headers, "posthorn-mac")
		delete(headers, "posthorn-type")
		ids[i] = d.ID
		unsigned[i] = broker.Publishing{
			Key: s.broker.Names().DeliverQueue(sub.ID), ID: d.ID, Body: d.Body, ContentType: d.ContentType, Headers: headers,
		}
	}
	s.publish(unsigned...)
	eventually(t, patience, "the deliveries are owed", func() bool { return s.ledger(sub.ID)["pending"] == len(ids) })
	// The sweeper acts after half a minute.
	if _, err := s.db.ExecContext(t.Context(), `UPDATE posthorn.deliveries SET next_attempt_at = next_attempt_at - interval '40 seconds'`); err != nil {
		t.Fatal(err)
	}
	s.must(http.MethodPost, "/subscription/"+sub.ID+"/resume", nil, nil)
	eventually(t, patience, "all are delivered", func() bool { return s.ledger(sub.ID)["delivered"] == len(ids) })
	once(t, r, ids)
}

// An event published before a subscription's types changed is still owed.
func TestMessagesOfFormerTypesAreDeliveredIfTheyAreOwed(t *testing.T) {
	t.Parallel()
	s := startSystem(t)
	r := newSubscriber(t, nil)
	sub := s.subscribe(r.URL, nil, "E")
	s.must(http.MethodPost, "/subscription/"+sub.ID+"/pause", nil, nil)
	ids := s.post("E", 5)
	s.must(http.MethodPatch, "/subscription/"+sub.ID, map[string]any{"eventTypes": []string{"F"}}, nil)
	s.must(http.MethodPost, "/subscription/"+sub.ID+"/resume", nil, nil)
	ids = append(ids, s.post("F", 2)...)
	eventually(t, patience, "all are delivered", func() bool { return s.ledger(sub.ID)["delivered"] == len(ids) })
	once(t, r, ids)
}

func TestKeysRotateWhilePartsAreRestartedOneAfterTheOther(t *testing.T) {
	t.Parallel()
	s := newSystem(t, "")
	older, newer := signing.GenerateKey(), signing.GenerateKey()
	s.setKeys(older)
	s.startAPI()
	stopRelay := s.startRelay()
	stopDelivery := s.startDelivery(nil)
	r := newSubscriber(t, nil)
	sub := s.subscribe(r.URL, nil, "E")
	ids := s.post("E", 10)
	deliver := func() {
		t.Helper()
		ids = append(ids, s.post("E", 10)...)
		eventually(t, patience, "everything is delivered", func() bool { return s.ledger(sub.ID)["delivered"] == len(ids) })
	}
	deliver()
	s.setKeys(newer + "," + older)
	stopRelay()
	s.startRelay()
	deliver() // by a delivery that knows only the older key
	stopDelivery()
	s.startDelivery(nil)
	deliver()
	once(t, r, ids)
}
