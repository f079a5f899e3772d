package api_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"posthorn/services/api"
	"posthorn/services/internal/subscription"
)

func TestASubscriptionIsCreatedWithItsDefaults(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	r := s.do("POST", "/subscriptions", hook).want(201)
	var sub subscriptionBody
	r.decode(&sub)
	if r.Header.Get("Location") != "/subscription/"+sub.ID || r.Header.Get("ETag") != `"1"` {
		t.Errorf("headers %v", r.Header)
	}
	if !strings.HasPrefix(sub.ID, "sub_") || sub.URL != "https://example.com/hook" || fmt.Sprint(sub.EventTypes) != "[LIKED_PHOTO]" ||
		sub.Status != "active" || sub.Timeout != "15s" || sub.MaxInFlight != 8 || len(sub.Retry.Schedule) != 7 ||
		!strings.HasPrefix(sub.Secret, "whsec_") {
		t.Errorf("created %s", r.Body)
	}
	shown := s.do("GET", "/subscription/"+sub.ID, "").want(200)
	list := s.do("GET", "/subscription", "").want(200)
	for _, r := range []reply{shown, list} {
		if strings.Contains(string(r.Body), "whsec_") {
			t.Errorf("the secret is shown again: %s", r.Body)
		}
	}
}

func TestASubscriptionKeepsAllItsSettings(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	secret := "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	sub := s.subscribe(`{"url":"http://example.com:8080/a?b=c","eventTypes":["a.*","#"],"description":"d","status":"paused",
		"retry":{"schedule":["1s","24h"]},"timeout":"2s","maxInFlight":3,"startFrom":"now","secret":"` + secret + `"}`)
	if sub.Secret != secret {
		t.Errorf("secret %q", sub.Secret)
	}
	var shown subscriptionBody
	s.do("GET", "/subscription/"+sub.ID, "").decode(&shown)
	if shown.URL != "http://example.com:8080/a?b=c" || fmt.Sprint(shown.EventTypes) != "[a.* #]" || shown.Description != "d" ||
		shown.Status != "paused" || fmt.Sprint(shown.Retry.Schedule) != "[1s 24h]" || shown.Timeout != "2s" || shown.MaxInFlight != 3 {
		t.Errorf("shown %+v", shown)
	}
	none := s.subscribe(`{"url":"http://example.com/","eventTypes":["a"],"retry":{"schedule":[]}}`)
	s.do("PATCH", "/subscription/"+none.ID, `{"description":"x"}`).want(200).decode(&shown)
	if len(shown.Retry.Schedule) != 0 {
		t.Errorf("schedule %v, want none", shown.Retry.Schedule)
	}
}

func TestPutReplacesAndPatchMerges(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	path := "/subscription/" + s.subscribe(`{"url":"https://a.example/","eventTypes":["A"],"description":"d","timeout":"2s","retry":{"schedule":["9s"]}}`).ID
	var sub subscriptionBody
	s.do("PATCH", path, `{"eventTypes":["B"]}`, "Content-Type", "application/merge-patch+json").want(200).decode(&sub)
	if fmt.Sprintf("%v %s %s %v", sub.EventTypes, sub.Description, sub.Timeout, sub.Retry.Schedule) != "[B] d 2s [9s]" {
		t.Errorf("after the patch %+v", sub)
	}
	s.do("PATCH", path, `{"description":null,"retry":null}`).want(200).decode(&sub)
	if sub.Description != "" || len(sub.Retry.Schedule) != 7 || sub.Timeout != "2s" {
		t.Errorf("after the patch with null %+v", sub)
	}
	s.do("PUT", path, `{"url":"https://b.example/","eventTypes":["C"]}`).want(200).decode(&sub)
	if sub.URL != "https://b.example/" || sub.Timeout != "15s" || sub.Version != 4 {
		t.Errorf("after the put %+v", sub)
	}
	s.do("PUT", path, hook, "Content-Type", "application/merge-patch+json").want(415)
}

func TestAChangeCanDependOnTheVersion(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	path := "/subscription/" + s.subscribe(hook).ID
	s.do("PATCH", path, `{"description":"x"}`, "If-Match", `"1"`).want(200)
	s.do("PATCH", path, `{"description":"y"}`, "If-Match", `"1"`).want(412)
	s.do("DELETE", path, ``, "If-Match", `"1"`).want(412)
	s.do("DELETE", path, ``, "If-Match", `"2"`).want(204)
}

func TestADeletedSubscriptionIsGone(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	sub := s.subscribe(hook)
	path := "/subscription/" + sub.ID
	s.do("DELETE", path, "").want(204)
	for _, r := range []reply{
		s.do("DELETE", path, ""), s.do("GET", path, ""), s.do("PUT", path, hook), s.do("PATCH", path, `{}`),
		s.do("POST", path+"/pause", ""), s.do("POST", path+"/test", ""), s.do("POST", path+"/rotate-secret", ""), s.do("GET", path+"/attempts", ""),
	} {
		r.want(404)
	}
	var list struct{ Items []subscriptionBody }
	s.do("GET", "/subscription", "").decode(&list)
	if len(list.Items) != 0 {
		t.Errorf("list %+v", list)
	}
	if n := s.count(`SELECT count(*) FROM posthorn.subscriptions WHERE octet_length(secret) = 0 AND deleted_at IS NOT NULL`); n != 1 {
		t.Error("the deleted subscription's secret is kept")
	}
}

// records are a subscription's records in the log.
func (s *server) records(id string) (list []subscription.Record) {
	s.t.Helper()
	rows, err := s.db.QueryContext(s.t.Context(), `
		SELECT data FROM posthorn.outbox WHERE kind = 'subscription' AND type = 'posthorn.subscription' AND subject = $1 ORDER BY position`, id)
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var data []byte
		if err := rows.Scan(&data); err != nil {
			s.t.Fatal(err)
		}
		if strings.Contains(string(data), "example.com") || strings.Contains(string(data), "whsec") {
			s.t.Errorf("record shows too much: %s", data)
		}
		r, err := subscription.ParseRecord(data)
		if err != nil {
			s.t.Fatal(err)
		}
		list = append(list, r)
	}
	if err := rows.Err(); err != nil {
		s.t.Fatal(err)
	}
	return list
}

func TestEveryChangeIsARecordOfTheLog(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	sub := s.subscribe(hook)
	path := "/subscription/" + sub.ID
	s.do("PATCH", path, `{"eventTypes":["A","b.#"]}`).want(200)
	s.do("POST", path+"/pause", "").want(200)
	s.do("POST", path+"/pause", "").want(200) // changes nothing
	s.do("POST", path+"/resume", "").want(200)
	s.do("PATCH", path, `{"status":"disabled"}`).want(200)
	s.do("POST", path+"/pause", "").want(409)
	s.do("POST", path+"/rotate-secret", "").want(200)
	s.do("PUT", path, `{"url":"ftp://x","eventTypes":["A"]}`).want(422)
	s.do("DELETE", path, "").want(204)
	var got []string
	for _, r := range s.records(sub.ID) {
		if string(r.ID) != sub.ID || r.Account != "default" {
			t.Errorf("record %+v", r)
		}
		got = append(got, fmt.Sprintf("%d:%s:%s", r.Version, r.Status, r.EventTypes))
	}
	want := []string{
		"1:active:[LIKED_PHOTO]", "2:active:[A b.#]", "3:paused:[A b.#]", "4:active:[A b.#]", "5:disabled:[A b.#]",
		"6:disabled:[A b.#]", "7:deleted:[A b.#]",
	}
	if !slices.Equal(got, want) {
		t.Errorf("records %q, want %q", got, want)
	}
}

func TestConcurrentChangesHaveTheirRecordsInTheirOrder(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	sub := s.subscribe(hook)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for range 5 {
				s.do("PATCH", "/subscription/"+sub.ID, fmt.Sprintf(`{"description":"%d"}`, i)).want(200)
			}
		})
	}
	wg.Wait()
	for i, r := range s.records(sub.ID) {
		if r.Version != i+1 {
			t.Fatalf("record %d has version %d", i, r.Version)
		}
	}
}

func TestATestEventIsForOneSubscription(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	sub := s.subscribe(hook)
	path := "/subscription/" + sub.ID
	for body, want := range map[string]string{
		"":                                  `posthorn.test {"test":true}`,
		`{}`:                                `posthorn.test {"test":true}`,
		`{"type":"a.b","data":{"n": 1.50}}`: `a.b {"n": 1.50}`,
	} {
		e := s.do("POST", path+"/test", body).want(202).event()
		var kind, eventType, to string
		var data []byte
		if err := s.db.QueryRowContext(t.Context(), `SELECT kind, type, data, metadata->>'subscription' FROM posthorn.outbox WHERE id = $1`, e.ID).
			Scan(&kind, &eventType, &data, &to); err != nil {
			t.Fatal(err)
		}
		if got := eventType + " " + string(data); got != want || kind != "test" || to != sub.ID {
			t.Errorf("%s: %s %s to %s", body, kind, got, to)
		}
	}
	s.do("POST", path+"/pause", "").want(200)
	if r := s.do("POST", path+"/test", "").want(409); !strings.Contains(string(r.Body), "resume") {
		t.Errorf("problem %s", r.Body)
	}
	s.do("PATCH", path, `{"status":"disabled"}`).want(200)
	s.do("POST", path+"/test", "").want(409)
}

func TestARotatedSecretSignsForADay(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	s := newServer(t, func(c *api.Config) { c.Now = func() time.Time { return now } })
	sub := s.subscribe(hook)
	var rotated struct {
		Secret              string
		PreviousSecretUntil time.Time
	}
	s.do("POST", "/subscription/"+sub.ID+"/rotate-secret", "").want(200).decode(&rotated)
	if rotated.Secret == "" || rotated.Secret == sub.Secret || !rotated.PreviousSecretUntil.Equal(now.Add(24*time.Hour)) {
		t.Errorf("rotated %+v", rotated)
	}
	s.do("POST", "/subscription/"+sub.ID+"/rotate-secret", `{"secret":"`+rotated.Secret+`"}`).want(422)
	const own = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	s.do("POST", "/subscription/"+sub.ID+"/rotate-secret", `{"secret":"`+own+`"}`).want(200).decode(&rotated)
	if rotated.Secret != own {
		t.Errorf("rotated %+v", rotated)
	}
}

func TestSecretsAreStoredSealed(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	sub := s.subscribe(hook)
	s.do("POST", "/subscription/"+sub.ID+"/rotate-secret", "").want(200)
	if n := s.count(`SELECT count(*) FROM posthorn.subscriptions s WHERE s::text LIKE '%' || encode('whsec_', 'hex') || '%' OR s::text LIKE '%whsec_%'`); n != 0 {
		t.Error("a secret is stored in the clear")
	}
}

func TestSubscriptionsArePagedAndFiltered(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	patterns := []string{"a.b", "a.*", "a.#", "#", "*", "#.b", "c"}
	for i, p := range patterns {
		status := []string{"active", "paused"}[i%2]
		s.subscribe(fmt.Sprintf(`{"url":"https://example.com/%d","eventTypes":[%q],"status":%q}`, i%3, p, status))
	}
	list := func(query string) string {
		t.Helper()
		var all []string
		for cursor := ""; ; {
			var page struct {
				Items      []subscriptionBody
				NextCursor string
			}
			s.do("GET", "/subscriptions?"+query+cursor, "").want(200).decode(&page)
			for _, sub := range page.Items {
				all = append(all, sub.EventTypes...)
			}
			if page.NextCursor == "" {
				return strings.Join(all, " ")
			}
			cursor = "&cursor=" + page.NextCursor
		}
	}
	for query, want := range map[string]string{
		"limit=2":                           "a.b a.* a.# # * #.b c",
		"limit=1&eventType=a.b":             "a.b a.* a.# # #.b",
		"eventType=a":                       "a.# # *",
		"eventType=a.b.c":                   "a.# #",
		"eventType=b":                       "# * #.b",
		"eventType=c":                       "# * c",
		"eventType=a.*":                     "a.* a.# #",
		"status=paused":                     "a.* # #.b",
		"url=https://example.com/0":         "a.b # c",
		"url=https://example.com/":          "",
		"status=active&eventType=c&limit=1": "* c",
	} {
		if got := list(query); got != want {
			t.Errorf("%s: got %q, want %q", query, got, want)
		}
	}
}

func TestAnEventShowsItsStatusForEachSubscription(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	create := func(types, status string) string {
		return s.subscribe(fmt.Sprintf(`{"url":"https://example.com/","eventTypes":[%q],"status":%q}`, types, status)).ID
	}
	matching, paused, other, disabled := create("A", "active"), create("A", "paused"), create("B", "active"), create("A", "disabled")
	deleted, changed, delivered := create("A", "active"), create("A", "active"), create("A", "active")
	s.do("DELETE", "/subscription/"+deleted, "").want(204)
	e := s.do("POST", "/events", `{"type":"A"}`).want(202).event()
	// Later changes do not alter earlier records.
	later := create("A", "active")
	s.do("PATCH", "/subscription/"+changed, `{"eventTypes":["C"]}`).want(200)
	s.do("PATCH", "/subscription/"+disabled, `{"status":"active"}`).want(200)
	s.do("DELETE", "/subscription/"+paused, "").want(204)
	if _, err := s.db.ExecContext(t.Context(), `
		INSERT INTO posthorn.deliveries (position, subscription_id, event_id, status, attempts, last_status) VALUES ($1, $2, $3, 'delivered', 1, 204)`,
		e.Position, strings.TrimPrefix(delivered, "sub_"), e.ID); err != nil {
		t.Fatal(err)
	}
	read := func(query string) map[string]string {
		t.Helper()
		got := map[string]string{}
		for cursor := ""; ; {
			var page struct {
				Items []struct {
					SubscriptionID, Reason, Status string
					Matched                        bool
				}
				NextCursor string
			}
			s.do("GET", "/events/"+e.ID+"/deliveries?limit=2"+query+cursor, "").want(200).decode(&page)
			for _, d := range page.Items {
				got[d.SubscriptionID] = fmt.Sprintf("%v %s%s", d.Matched, d.Reason, d.Status)
			}
			if page.NextCursor == "" {
				return got
			}
			cursor = "&cursor=" + page.NextCursor
		}
	}
	want := map[string]string{
		matching: "true notRelayedYet", paused: "true notRelayedYet", other: "false type", disabled: "false disabled", deleted: "false deleted",
		changed: "true notRelayedYet", delivered: "true delivered", later: "false createdLater",
	}
	equal := func(got, want map[string]string) {
		t.Helper()
		g, _ := json.MarshalIndent(got, "", " ")
		w, _ := json.MarshalIndent(want, "", " ")
		if string(g) != string(w) {
			t.Errorf("got %s\nwant %s", g, w)
		}
	}
	equal(read(""), want)
	equal(read("&owed=true"), map[string]string{delivered: "true delivered"})
	if _, err := s.db.ExecContext(t.Context(), `UPDATE posthorn.readers SET position = $1 WHERE name = 'relay'`, e.Position); err != nil {
		t.Fatal(err)
	}
	want[matching], want[paused], want[changed] = "true missing", "true missing", "true missing"
	equal(read(""), want)
}

func TestAttemptsAreListedLatestFirst(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	sub := s.subscribe(hook)
	e := s.do("POST", "/events", `{"type":"A"}`).want(202).event()
	for i := range 5 {
		class, status := "status", 500
		if i == 4 {
			class, status = "ok", 200
		}
		if _, err := s.db.ExecContext(t.Context(), `
			INSERT INTO posthorn.attempts (position, subscription_id, number, cause, started_at, duration, status, error_class, request_headers, response_body, next_step)
			VALUES ($1, $2, $3, 'live', '2026-01-01'::timestamptz + $3::int * interval '1 second', '12 milliseconds', $4, $5, '{"webhook-id":"x"}', '\x3cff', 'retrying')`,
			e.Position, strings.TrimPrefix(sub.ID, "sub_"), i+1, status, class); err != nil {
			t.Fatal(err)
		}
	}
	numbers := func(query string) (list []int) {
		t.Helper()
		for cursor := ""; ; {
			var page struct {
				Items []struct {
					EventID, EventType, Outcome, ResponseBody string
					Number                                    int
					DurationMs                                float64
					RequestHeaders                            map[string]string
				}
				NextCursor string
			}
			s.do("GET", "/subscription/"+sub.ID+"/attempts?limit=2"+query+cursor, "").want(200).decode(&page)
			for _, a := range page.Items {
				if a.EventID != e.ID || a.EventType != "A" || a.DurationMs != 12 || a.RequestHeaders["webhook-id"] != "x" || a.ResponseBody != "<\uFFFD" {
					t.Errorf("attempt %+v", a)
				}
				list = append(list, a.Number)
			}
			if page.NextCursor == "" {
				return list
			}
			cursor = "&cursor=" + page.NextCursor
		}
	}
	if got := numbers(""); !slices.Equal(got, []int{5, 4, 3, 2, 1}) {
		t.Errorf("attempts %v", got)
	}
	if got := numbers("&failed=true"); !slices.Equal(got, []int{4, 3, 2, 1}) {
		t.Errorf("failed attempts %v", got)
	}
}
