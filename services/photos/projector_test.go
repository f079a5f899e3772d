package photos_test

import (
	"context"
	"database/sql"
	"errors"
	"sync"
	"testing"
	"time"

	"posthorn/migrations/pgtest"
	"posthorn/services/photos"
)

func projector(t *testing.T, db *sql.DB) *photos.Projector {
	t.Helper()
	p, err := photos.NewProjector(photos.Config{DB: db, Interval: 5 * time.Millisecond, Window: 10})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func appendLikes(t *testing.T, db *sql.DB, n int) {
	t.Helper()
	if _, err := db.ExecContext(t.Context(), `SELECT posthorn.append_event('LIKED_PHOTO', 'photo/1') FROM generate_series(1, $1)`, n); err != nil {
		t.Fatal(err)
	}
}

func stored(t *testing.T, db *sql.DB) (likes int64) {
	t.Helper()
	err := db.QueryRowContext(t.Context(), `SELECT coalesce(max(likes), 0) FROM posthorn.photos WHERE id = '1'`).Scan(&likes)
	if err != nil {
		t.Fatal(err)
	}
	return likes
}

func waitUntil(t *testing.T, done func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(10 * time.Second)
	for !done() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("it did not happen within 10 s")
		}
	}
}

func TestSeveralProjectorsCountEachLikeOnce(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	for range 3 {
		p := projector(t, db)
		running.Go(func() {
			if err := p.Run(ctx); err != nil {
				t.Errorf("run: %v", err)
			}
		})
	}
	for range 10 {
		appendLikes(t, db, 25)
	}
	waitUntil(t, func() bool { return stored(t, db) == 250 })
	stop()
	running.Wait()
	if likes := stored(t, db); likes != 250 {
		t.Errorf("%d likes", likes)
	}
}

func TestARebuildDuringProjectionIsCorrect(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	appendLikes(t, db, 300)
	if _, err := db.ExecContext(t.Context(), `INSERT INTO posthorn.photos VALUES ('1', 7000), ('gone', 3)`); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = projector(t, db).Run(ctx) })
	if err := projector(t, db).Rebuild(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	stop()
	running.Wait()
	if likes := stored(t, db); likes != 300 {
		t.Errorf("%d likes, want 300", likes)
	}
	for id, want := range map[string]int64{"1": 300, "gone": 0} {
		if likes, err := photos.Likes(t.Context(), db, id); err != nil || likes != want {
			t.Errorf("photo %s: %d likes, %v", id, likes, err)
		}
	}
}

func TestARebuildFromAnIncompleteLogIsRefused(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	appendLikes(t, db, 3)
	if err := projector(t, db).Rebuild(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if _, err := db.ExecContext(t.Context(), `DROP TABLE posthorn.outbox_000000`); err != nil {
		t.Fatal(err)
	}
	if err := projector(t, db).Rebuild(t.Context(), nil); !errors.Is(err, photos.ErrLogIncomplete) {
		t.Errorf("got %v", err)
	}
	if likes := stored(t, db); likes != 3 {
		t.Errorf("%d likes, want 3", likes)
	}
}
