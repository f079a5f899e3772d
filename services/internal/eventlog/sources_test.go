package eventlog_test

import (
	"database/sql"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"posthorn/events"
	"posthorn/migrations/pgtest"
	"posthorn/outbox"
	"posthorn/services/internal/postgres"
)

// In any order of arrival, an event has one record, a record's id is its own,
// and no transaction waits forever.
func TestConcurrentEventsOfSeveralSourcesShareIds(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.SetMaxOpenConns(16)
	const ids, rounds = 8, 10
	sources := []string{"", "/a", "/b"}
	var (
		callers sync.WaitGroup
		mu      sync.Mutex
		got     = map[string]map[string]int{} // by identity: how often each record came back
	)
	for i := range 16 {
		rnd := rand.New(rand.NewPCG(2, uint64(i)))
		callers.Go(func() {
			for round := range rounds {
				var batch []events.Event
				for _, n := range rnd.Perm(ids * len(sources)) {
					batch = append(batch, events.Event{ID: fmt.Sprintf("id-%d-%d", round, n/len(sources)), Source: sources[n%len(sources)], Type: "T"})
				}
				err := postgres.InTx(t.Context(), db, func(tx *sql.Tx) error {
					results, err := outbox.AppendEach(t.Context(), tx, batch...)
					if err != nil {
						return err
					}
					mu.Lock()
					defer mu.Unlock()
					for j, r := range results {
						if r.Outcome == outbox.Conflict && batch[j].Source != "" {
							t.Errorf("%+v is in conflict", batch[j])
						}
						identity := batch[j].Source + " " + batch[j].ID
						if got[identity] == nil {
							got[identity] = map[string]int{}
						}
						if r.Outcome != outbox.Conflict {
							got[identity][fmt.Sprint(r.ID, r.Position)]++
						}
					}
					return nil
				})
				if err != nil {
					t.Errorf("append: %v", err)
				}
			}
		})
	}
	callers.Wait()
	for identity, records := range got {
		if len(records) > 1 {
			t.Errorf("%s is %v", identity, records)
		}
	}
	var records, distinct, without int
	if err := db.QueryRowContext(t.Context(), `
		SELECT count(*), count(DISTINCT id), count(*) FILTER (WHERE NOT attributes ? 'source') FROM posthorn.outbox`).
		Scan(&records, &distinct, &without); err != nil {
		t.Fatal(err)
	}
	// The events without a source have their id or, if another came first,
	// conflict with it.
	if records != distinct || records-without != ids*rounds*(len(sources)-1) {
		t.Errorf("%d records with %d ids, %d of them without a source", records, distinct, without)
	}
}
