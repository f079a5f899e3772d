package api_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"posthorn/services/internal/signing"
)

// dead enters a dead delivery of an event to the subscription.
func (s *server) dead(sub, event string) (id string) {
	s.t.Helper()
	position := s.do("POST", "/events", `{"type":"A","id":"`+event+`"}`).want(202).event().Position
	uuid := strings.TrimPrefix(sub, "sub_")
	s.exec(`INSERT INTO posthorn.deliveries (position, subscription_id, event_id, status, finished_at)
		VALUES ($1, $2, $3, 'dead', now())`, position, uuid, event)
	return fmt.Sprintf("dlv_%d_%s", position, uuid)
}

// waiting reports whether a request waits for a lock.
func (s *server) waiting() bool {
	s.t.Helper()
	return s.count(`SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`) > 0
}

// state is everything that a request may change.
func (s *server) state() string {
	s.t.Helper()
	var state string
	if err := s.db.QueryRowContext(s.t.Context(), `
		SELECT concat((SELECT count(*) FROM posthorn.outbox), ' ', (SELECT count(*) FROM posthorn.replays), ' ',
		    (SELECT string_agg(status || updated_at || position, ',' ORDER BY id) FROM posthorn.replays), ' ',
		    (SELECT string_agg(status || version, ',' ORDER BY id) FROM posthorn.subscriptions), ' ',
		    (SELECT string_agg(status || run, ',' ORDER BY position) FROM posthorn.deliveries))`).Scan(&state); err != nil {
		s.t.Fatal(err)
	}
	return state
}

func TestARequestWithAKeyIsDoneOnceOnEveryRouteThatChangesSomething(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	sub := func() string { return "/subscription/" + s.subscribe(hook).ID }
	replay := func() string {
		var r struct{ ID string }
		s.do("POST", "/replays", `{"subscription":"`+s.subscribe(hook).ID+`"}`).want(201).decode(&r)
		return "/replays/" + r.ID
	}
	n := 0
	deadLetter := func() (sub, id string) {
		n++
		sub = s.subscribe(hook).ID
		return sub, s.dead(sub, fmt.Sprintf("dead-%d", n))
	}
	// Each returns the path and the body to send.
	requests := map[string]func() (path, body string){
		"POST /subscription":                    func() (string, string) { return "/subscription", hook },
		"PUT /subscription/{id}":                func() (string, string) { return sub(), hook },
		"PATCH /subscription/{id}":              func() (string, string) { return sub(), `{"description":"new"}` },
		"DELETE /subscription/{id}":             func() (string, string) { return sub(), "" },
		"POST /subscription/{id}/pause":         func() (string, string) { return sub() + "/pause", "" },
		"POST /subscription/{id}/resume":        func() (string, string) { return sub() + "/resume", "" },
		"POST /subscription/{id}/test":          func() (string, string) { return sub() + "/test", "" },
		"POST /subscription/{id}/rotate-secret": func() (string, string) { return sub() + "/rotate-secret", "" },
		"POST /replays": func() (string, string) {
			return "/replays", `{"subscription":"` + s.subscribe(hook).ID + `"}`
		},
		"POST /replays/{id}/pause":  func() (string, string) { return replay() + "/pause", "" },
		"POST /replays/{id}/resume": func() (string, string) { return replay() + "/resume", "" },
		"POST /replays/{id}/cancel": func() (string, string) { return replay() + "/cancel", "" },
		"DELETE /replays/{id}":      func() (string, string) { return replay(), "" },
		"POST /dead-letters/redrive": func() (string, string) {
			_, id := deadLetter()
			return "/dead-letters/redrive", `{"ids":["` + id + `"]}`
		},
		"DELETE /dead-letters": func() (string, string) {
			sub, _ := deadLetter()
			return "/dead-letters?confirm=1&subscription=" + sub, ""
		},
		"POST /deliveries/{id}/retry": func() (string, string) {
			_, id := deadLetter()
			return "/deliveries/" + id + "/retry", ""
		},
	}
	routes, err := s.api.Routes()
	if err != nil {
		t.Fatal(err)
	}
	for i, route := range routes {
		method, path, _ := strings.Cut(route, " ")
		if method == http.MethodGet || method == http.MethodHead || path == "/events" || strings.HasPrefix(path, "/like/") {
			continue
		}
		prepare := requests[strings.Replace(route, "/subscriptions", "/subscription", 1)]
		if prepare == nil {
			t.Errorf("%s: no test of its keys", route)
			continue
		}
		path, body := prepare()
		key := fmt.Sprintf("key.%d", i)
		first := s.do(method, path, body, "Idempotency-Key", key)
		if first.Status >= 400 || first.Header.Get("Idempotency-Replayed") != "" {
			t.Errorf("%s: %d %s", route, first.Status, first.Body)
			continue
		}
		after := s.state()
		again := s.do(method, path, body, "Idempotency-Key", `"`+key+`"`)
		if again.Status != first.Status || string(again.Body) != string(first.Body) || again.Header.Get("Idempotency-Replayed") != "true" {
			t.Errorf("%s: %d %s, then %d %s", route, first.Status, first.Body, again.Status, again.Body)
		}
		for _, header := range []string{"Location", "ETag", "Content-Type"} {
			if a, b := first.Header.Get(header), again.Header.Get(header); a != b {
				t.Errorf("%s: %s: %q, then %q", route, header, a, b)
			}
		}
		if now := s.state(); now != after {
			t.Errorf("%s: the second request changed\n%s to\n%s", route, after, now)
		}
		s.do(method, path+"?x=1", body, "Idempotency-Key", key).want(422).names("Idempotency-Key")
		if now := s.state(); now != after {
			t.Errorf("%s: another request with the key changed something", route)
		}
	}
}

func TestAKeyIsForOneRequest(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	with := func(method, path, body, key string, headers ...string) reply {
		return s.do(method, path, body, append(headers, "Idempotency-Key", key)...)
	}
	first := with("POST", "/subscription", hook, "k").want(201)
	if again := with("POST", "/subscriptions", hook, "k").want(201); string(again.Body) != string(first.Body) {
		t.Error("the other spelling of the path counts as another request")
	}
	other := strings.Replace(hook, "LIKED_PHOTO", "OTHER", 1)
	with("POST", "/subscription", other, "k").want(422).names("Idempotency-Key")
	with("POST", "/replays", hook, "k").want(422).names("Idempotency-Key")
	var sub subscriptionBody
	first.decode(&sub)
	with("PATCH", "/subscription/"+sub.ID, `{"description":"a"}`, "p", "If-Match", `"1"`).want(200)
	with("PATCH", "/subscription/"+sub.ID, `{"description":"a"}`, "p", "If-Match", `"2"`).want(422).names("Idempotency-Key")
	with("PATCH", "/subscription/"+sub.ID, `{"description":"a"}`, "p", "If-Match", `"1"`).want(200)
	if n := s.count(`SELECT count(*) FROM posthorn.subscriptions`); n != 1 {
		t.Errorf("%d subscriptions, want 1", n)
	}
	// Requests without a key, and requests that only read, are unaffected.
	s.do("POST", "/subscription", hook).want(201)
	with("GET", "/subscription", "", "k").want(200)
}

func TestAKeyOfAFailedRequestIsFree(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	for _, bad := range []string{`{"url":"x","eventTypes":["A"]}`, `{`, `[]`} {
		if r := s.do("POST", "/subscription", bad, "Idempotency-Key", "k"); r.Status < 400 || r.Status >= 500 {
			t.Fatalf("%d %s", r.Status, r.Body)
		}
	}
	s.do("PATCH", "/subscription/sub_019a0000-0000-7000-8000-000000000000", `{}`, "Idempotency-Key", "k").want(404)
	if r := s.do("POST", "/subscription", hook, "Idempotency-Key", "k").want(201); r.Header.Get("Idempotency-Replayed") != "" {
		t.Error("the first response is marked as replayed")
	}
}

func TestBadKeysAreRefused(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	for _, key := range []string{`""`, " ", "a b", "ä", strings.Repeat("k", 256), "a\tb"} {
		s.do("POST", "/subscription", hook, "Idempotency-Key", key).want(422).names("Idempotency-Key")
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.http.URL+"/subscription", strings.NewReader(hook))
	if err != nil {
		t.Fatal(err)
	}
	req.Header = http.Header{"Content-Type": {"application/json"}, "Idempotency-Key": {"a", "b"}}
	res, err := s.http.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if res.StatusCode != http.StatusUnprocessableEntity {
		t.Errorf("two keys: %d", res.StatusCode)
	}
	for _, key := range []string{"a.b", strings.Repeat("k", 255), "019a0000-0000-7000-8000-000000000000", `~!@#$%^&*()`} {
		s.do("POST", "/subscription", hook, "Idempotency-Key", key).want(201)
	}
}

func TestARequestWithAKeyInFlightIsRefused(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	sub := s.subscribe(hook)
	tx, err := s.db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback() }()
	if _, err := tx.ExecContext(t.Context(), `SELECT FROM posthorn.subscriptions FOR UPDATE`); err != nil {
		t.Fatal(err)
	}
	first := make(chan reply, 1)
	patch := func() reply {
		return s.do("PATCH", "/subscription/"+sub.ID, `{"description":"a"}`, "Idempotency-Key", "k")
	}
	go func() { first <- patch() }()
	waitUntil(t, s.waiting)
	if r := patch().want(409); r.Header.Get("Retry-After") == "" {
		t.Error("a 409 without Retry-After")
	}
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	(<-first).want(200)
	if r := patch().want(200); r.Header.Get("Idempotency-Replayed") != "true" {
		t.Error("the response is not replayed")
	}
}

func TestManyRequestsWithTheSameKeyMakeOneSubscription(t *testing.T) {
	t.Parallel()
	first := newServer(t)
	first.db.SetMaxOpenConns(4)
	s := newServerWith(t, first.db, first.keys)
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			for {
				r := s.do("POST", "/subscription", hook, "Idempotency-Key", fmt.Sprintf("k%d", i%4))
				if r.Status == 201 {
					return
				}
				if r.Status != 409 {
					t.Errorf("%d %s", r.Status, r.Body)
					return
				}
			}
		})
	}
	wg.Wait()
	if n := s.count(`SELECT count(*) FROM posthorn.subscriptions`); n != 4 {
		t.Errorf("%d subscriptions for 4 keys", n)
	}
}

func TestAKeyIsKeptForADay(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	for _, key := range []string{"old", "young"} {
		s.do("POST", "/subscription", hook, "Idempotency-Key", key).want(201)
	}
	s.exec(`UPDATE posthorn.idempotent_requests SET created_at = now() - interval '24 hours 1 minute' WHERE key = 'old'`)
	s.exec(`UPDATE posthorn.idempotent_requests SET created_at = now() - interval '23 hours 59 minutes' WHERE key = 'young'`)
	if r := s.do("POST", "/subscription", hook, "Idempotency-Key", "young").want(201); r.Header.Get("Idempotency-Replayed") == "" {
		t.Error("forgotten before its day is over")
	}
	if r := s.do("POST", "/subscription", hook, "Idempotency-Key", "old").want(201); r.Header.Get("Idempotency-Replayed") != "" {
		t.Error("kept for more than a day")
	}
	s.exec(`UPDATE posthorn.idempotent_requests SET created_at = now() - interval '24 hours 1 minute' WHERE key = 'old'`)
	n, err := s.cfg.Operations.ForgetRequests(t.Context())
	if left := s.count(`SELECT count(*) FROM posthorn.idempotent_requests`); err != nil || n != 1 || left != 1 {
		t.Errorf("%d forgotten and %d left (%v), want 1 and 1", n, left, err)
	}
}

func TestAStoredResponseShowsNoSecret(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	var sub subscriptionBody
	s.do("POST", "/subscription", hook, "Idempotency-Key", "k").want(201).decode(&sub)
	bare := strings.TrimPrefix(sub.Secret, "whsec_")
	if n := s.count(`SELECT count(*) FROM posthorn.idempotent_requests r WHERE position(convert_to($1, 'UTF8') IN answer) > 0
		OR position(decode($2, 'base64') IN answer) > 0 OR r::text LIKE '%whsec%'`, bare, bare); bare == "" || n != 0 {
		t.Errorf("the secret %q is in the database in the clear", sub.Secret)
	}
	// With another secret key the response is lost, and the API says so.
	keys, err := signing.ParseKeyring(signing.GenerateKey())
	if err != nil {
		t.Fatal(err)
	}
	other := newServerWith(t, s.db, keys)
	r := other.do("POST", "/subscription", hook, "Idempotency-Key", "k").want(409)
	if !strings.Contains(string(r.Body), "POSTHORN_SECRET_KEY") {
		t.Errorf("%s", r.Body)
	}
	if n := s.count(`SELECT count(*) FROM posthorn.subscriptions`); n != 1 {
		t.Errorf("%d subscriptions, want 1", n)
	}
}

func TestALostResponseIsReplayedForTheSameKey(t *testing.T) {
	t.Parallel()
	s, p := throughProxy(t)
	p.mu.Lock()
	p.lose = "COMMIT"
	p.mu.Unlock()
	r := s.do("POST", "/subscription", hook, "Idempotency-Key", "k").want(503)
	if r.Header.Get("Retry-After") == "" || !strings.Contains(string(r.Body), "may have been accepted") {
		t.Errorf("%d %s", r.Status, r.Body)
	}
	p.mu.Lock()
	p.lose = ""
	p.mu.Unlock()
	var sub subscriptionBody
	r = s.do("POST", "/subscription", hook, "Idempotency-Key", "k").want(201)
	if r.decode(&sub); r.Header.Get("Idempotency-Replayed") != "true" || sub.Secret == "" {
		t.Errorf("%s", r.Body)
	}
	if n := s.count(`SELECT count(*) FROM posthorn.subscriptions`); n != 1 {
		t.Errorf("%d subscriptions, want 1", n)
	}
}

func TestARequestCutOffBeforeItsCommitIsCarriedOutByTheNext(t *testing.T) {
	t.Parallel()
	s, p := throughProxy(t)
	tx, err := s.db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback() }()
	sub := s.subscribe(hook)
	if _, err := tx.ExecContext(t.Context(), `SELECT FROM posthorn.subscriptions FOR UPDATE`); err != nil {
		t.Fatal(err)
	}
	first := make(chan reply, 1)
	patch := func() reply {
		return s.do("PATCH", "/subscription/"+sub.ID, `{"description":"a"}`, "Idempotency-Key", "k")
	}
	go func() { first <- patch() }()
	waitUntil(t, s.waiting)
	p.set(true)
	(<-first).want(503)
	p.set(false)
	_ = tx.Rollback()
	waitUntil(t, func() bool { return patch().Status == 200 })
	if n := s.count(`SELECT count(*) FROM posthorn.outbox WHERE kind = 'subscription'`); n != 2 {
		t.Errorf("%d records, want the creation and one change", n)
	}
}
