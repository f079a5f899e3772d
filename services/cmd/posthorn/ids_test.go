package main

import (
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"posthorn/events"
	"posthorn/migrations/pgtest"
	"posthorn/outbox"
	"posthorn/services/internal/postgres"
)

// idEntryPoints append an event of type A with an id and a number as its data.
func idEntryPoints(t *testing.T, db *sql.DB, database, url string) map[string]func(id string, n int) error {
	t.Helper()
	event := func(id string, n int) events.Event {
		return events.Event{ID: id, Type: "A", Data: fmt.Append(nil, n)}
	}
	return map[string]func(id string, n int) error{
		"single": func(id string, n int) error {
			return post(t, url+"/events", "application/json", fmt.Sprintf(`{"type":"A","id":%q,"data":%d}`, id, n))
		},
		"key": func(id string, n int) error {
			return post(t, url+"/events", "application/json", fmt.Sprintf(`{"type":"A","data":%d}`, n), "Idempotency-Key", id)
		},
		"batch": func(id string, n int) error {
			return post(t, url+"/events", "application/json", fmt.Sprintf(`[{"type":"A","id":%q,"data":%d},{"type":"A","id":%q,"data":%d}]`, id, n, id, n))
		},
		"Go": func(id string, n int) error {
			_, err := outbox.Append(t.Context(), db, event(id, n))
			return err
		},
		"append_event": func(id string, n int) error {
			_, err := db.ExecContext(t.Context(), `SELECT posthorn.append_event('A', data => $1::text::json, id => $2)`, fmt.Sprint(n), id)
			return err
		},
		"import": func(id string, n int) error {
			file := filepath.Join(t.TempDir(), "log.jsonl")
			var at string
			if err := db.QueryRowContext(t.Context(), `
				SELECT to_char(occurred_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') FROM posthorn.outbox WHERE id = $1`, id).Scan(&at); err != nil {
				t.Fatal(err)
			}
			line := fmt.Sprintf(`{"id":%q,"type":"A","data":%d,"occurredAt":%q}`, id, n, at)
			if err := os.WriteFile(file, []byte(line), 0o600); err != nil {
				t.Fatal(err)
			}
			if code, _, errOut := command(t, "outbox", "import", "--database-url="+database, file); code != 0 {
				return fmt.Errorf("%d: %s", code, errOut)
			}
			return nil
		},
	}
}

func TestAnIDIdentifiesOneEventWhoeverMadeIt(t *testing.T) {
	t.Parallel()
	database := pgtest.URL(t)
	db, err := postgres.Open(database, "test", 4)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	url := anAPI(t, database)
	makers := map[string]func(n int) error{
		"HTTP": func(n int) error {
			return post(t, url+"/events", "application/json", fmt.Sprintf(`{"type":"A","data":%d}`, n))
		},
		"Go": func(n int) error {
			_, err := outbox.Append(t.Context(), db, events.Event{Type: "A", Data: fmt.Append(nil, n)})
			return err
		},
		"SQL": func(n int) error {
			_, err := db.ExecContext(t.Context(), `SELECT posthorn.append_event('A', data => $1::text::json)`, fmt.Sprint(n))
			return err
		},
		"a caller's id": func(n int) error {
			return post(t, url+"/events", "application/json", fmt.Sprintf(`{"type":"A","id":"chosen-%d","data":%d}`, n, n))
		},
	}
	made := 0
	for maker, another := range makers {
		for name, give := range idEntryPoints(t, db, database, url) {
			made++
			if err := another(made); err != nil {
				t.Fatal(err)
			}
			var id string
			if err := db.QueryRowContext(t.Context(), `SELECT id FROM posthorn.outbox ORDER BY position DESC LIMIT 1`).Scan(&id); err != nil {
				t.Fatal(err)
			}
			// Every further attempt gives the same result.
			for range 3 {
				if err := give(id, made); err != nil {
					t.Errorf("made by %s, the same by %s: %v", maker, name, err)
				}
				if err := give(id, -made); err == nil || strings.HasPrefix(err.Error(), "500") {
					t.Errorf("made by %s, another by %s: %v, want a conflict", maker, name, err)
				}
			}
			var n int
			if err := db.QueryRowContext(t.Context(), `SELECT count(*) FROM posthorn.outbox WHERE id = $1`, id).Scan(&n); err != nil || n != 1 {
				t.Errorf("made by %s, given by %s: %d records have the id %s (%v)", maker, name, n, id, err)
			}
		}
	}
	var records int
	if err := db.QueryRowContext(t.Context(), `SELECT count(*) FROM posthorn.outbox`).Scan(&records); err != nil || records != made {
		t.Errorf("%d records, %v, want %d", records, err, made)
	}
}

// A like is also an event with an id, generated or given.
func TestAnIDOfALikeIdentifiesThatLike(t *testing.T) {
	t.Parallel()
	database := pgtest.URL(t)
	db, err := postgres.Open(database, "test", 4)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	url := anAPI(t, database)
	for _, path := range []string{"/like/1", "/like/1?userId=ann"} {
		if err := post(t, url+path, "", ""); err != nil {
			t.Fatal(err)
		}
		var id, data string
		if err := db.QueryRowContext(t.Context(), `
			SELECT id, convert_from(data, 'UTF8') FROM posthorn.outbox ORDER BY position DESC LIMIT 1`).Scan(&id, &data); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := post(t, url+"/events", "application/json", fmt.Sprintf(`{"type":"LIKED_PHOTO","subject":"photo/1","data":%s,"id":%q}`, data, id)); err != nil {
				t.Errorf("%s: the same: %v", path, err)
			}
			for _, other := range []string{"/like/2", "/unlike"} {
				var err error
				if other == "/unlike" {
					err = post(t, url+"/events", "application/json", fmt.Sprintf(`{"type":"UNLIKED_PHOTO","id":%q}`, id))
				} else {
					err = post(t, url+other, "", "", "Idempotency-Key", id)
				}
				if err == nil || !strings.HasPrefix(err.Error(), "409") {
					t.Errorf("%s: %s under its id: %v, want a conflict", path, other, err)
				}
			}
		}
	}
	var n int
	if err := db.QueryRowContext(t.Context(), `SELECT count(*) FROM posthorn.outbox`).Scan(&n); err != nil || n != 2 {
		t.Errorf("%d records, %v, want 2", n, err)
	}
}
