package e2e_test

import (
	"bufio"
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"posthorn/migrations"
	"posthorn/services/internal/postgres"
	"posthorn/services/internal/privateserver"
)

// tool is a command of the binary that was started for its output.
type tool struct {
	cmd    *exec.Cmd
	done   chan struct{}
	stderr lockedBuffer

	mu    sync.Mutex
	lines []string
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// launch starts a command on a database and collects its output.
func launch(t *testing.T, databaseURL string, args ...string) *tool {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	p := &tool{cmd: exec.CommandContext(context.WithoutCancel(t.Context()), path, args...), done: make(chan struct{})}
	p.cmd.Dir = t.TempDir()
	p.cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + p.cmd.Dir, "DATABASE_URL=" + databaseURL}
	p.cmd.Stderr = &p.stderr
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.done)
		p.collect(out)
		_ = p.cmd.Wait() // exitCode tells
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill() // it may have ended
		<-p.done
	})
	return p
}

func (p *tool) collect(out io.Reader) {
	scanner := bufio.NewScanner(out)
	scanner.Buffer(nil, 4<<20)
	for scanner.Scan() {
		p.mu.Lock()
		p.lines = append(p.lines, scanner.Text())
		p.mu.Unlock()
	}
}

func (p *tool) printed() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.lines)
}

// exitCode waits for the end.
func (p *tool) exitCode(t *testing.T) int {
	t.Helper()
	select {
	case <-p.done:
	case <-time.After(patience):
		t.Fatalf("the command did not end; stderr: %s", p.stderr.String())
	}
	return p.cmd.ProcessState.ExitCode()
}

// interrupt is Ctrl-C.
func (p *tool) interrupt(t *testing.T) {
	t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
}

// ids are the ids of the records that were printed.
func (p *tool) ids(t *testing.T) (ids []string) {
	t.Helper()
	for _, line := range p.printed() {
		var record struct {
			ID string `json:"id"`
		}
		if err := json.Unmarshal([]byte(line), &record); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		ids = append(ids, record.ID)
	}
	return ids
}

// appendTx appends an event of a type in a transaction and leaves it open.
func appendTx(t *testing.T, db *sql.DB, id, eventType string) *sql.Tx {
	t.Helper()
	tx, err := db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.ExecContext(t.Context(), `SELECT posthorn.append_event($1, 's', '{"n":1}', id => $2)`, eventType, id); err != nil {
		t.Fatal(err)
	}
	return tx
}

func commit(t *testing.T, tx *sql.Tx) {
	t.Helper()
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
}

// looksAgain waits until the tail has polled the log at least twice more.
func looksAgain(t *testing.T, db *sql.DB) {
	t.Helper()
	var seen []time.Time
	eventually(t, patience, "the tail looks again", func() bool {
		var at time.Time
		if err := db.QueryRowContext(t.Context(), `
			SELECT coalesce(max(query_start), '-infinity'::timestamptz) FROM pg_stat_activity
			WHERE application_name = 'posthorn outbox' AND datname = current_database() AND query LIKE '%horizon%'
			  AND query_start IS NOT NULL`).Scan(&at); err != nil {
			return false // it has not connected
		}
		if len(seen) == 0 || at.After(seen[len(seen)-1]) {
			seen = append(seen, at)
		}
		return len(seen) > 2
	})
}

func TestFollowingTheLogWaitsForLateCommits(t *testing.T) {
	t.Parallel()
	s := newSystem(t, "")
	commit(t, appendTx(t, s.db, "before", "A"))
	tail := launch(t, s.dbURL, "outbox", "tail", "-f")
	filtered := launch(t, s.dbURL, "outbox", "tail", "-f", "--type", "A.*", "--from", "beginning")
	eventually(t, patience, "the end of the log is printed", func() bool { return len(tail.printed()) == 1 })
	late := appendTx(t, s.db, "late", "A.B")
	commit(t, appendTx(t, s.db, "early", "A.C"))
	looksAgain(t, s.db)
	looksAgain(t, s.db)
	if got := tail.ids(t); len(got) != 1 {
		t.Errorf("%v were printed while the record before them may still be committed", got)
	}
	commit(t, late)
	back := appendTx(t, s.db, "back", "A.B")
	if err := back.Rollback(); err != nil {
		t.Fatal(err)
	}
	commit(t, appendTx(t, s.db, "last", "A"))
	eventually(t, patience, "all are printed", func() bool { return len(tail.printed()) == 4 && len(filtered.printed()) == 2 })
	if diff := cmp.Diff([]string{"before", "late", "early", "last"}, tail.ids(t)); diff != "" {
		t.Errorf("records (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"late", "early"}, filtered.ids(t)); diff != "" {
		t.Errorf("records of the types (-want +got):\n%s", diff)
	}
	for _, p := range []*tool{tail, filtered} {
		p.interrupt(t)
		if code := p.exitCode(t); code != 0 || p.stderr.String() != "" {
			t.Errorf("after Ctrl-C: exit code %d, %s", code, p.stderr.String())
		}
	}
}

func TestFollowingTheLogEndsAtTo(t *testing.T) {
	t.Parallel()
	s := newSystem(t, "")
	commit(t, appendTx(t, s.db, "one", "A"))
	commit(t, appendTx(t, s.db, "two", "A"))
	byNumber := launch(t, s.dbURL, "outbox", "tail", "-f", "--from", "beginning", "-n", "3")
	byPosition := launch(t, s.dbURL, "outbox", "tail", "-f", "--from", "2", "--to", "3")
	past := launch(t, s.dbURL, "outbox", "tail", "-f", "--from", "beginning", "--to", "2001-01-01T00:00:00Z")
	eventually(t, patience, "both follow", func() bool { return len(byNumber.printed()) == 2 && len(byPosition.printed()) == 1 })
	commit(t, appendTx(t, s.db, "three", "A"))
	commit(t, appendTx(t, s.db, "four", "A"))
	for p, want := range map[*tool][]string{byNumber: {"one", "two", "three"}, byPosition: {"two", "three"}, past: nil} {
		if code := p.exitCode(t); code != 0 {
			t.Errorf("exit code %d: %s", code, p.stderr.String())
		}
		if diff := cmp.Diff(want, p.ids(t)); diff != "" {
			t.Errorf("records (-want +got):\n%s", diff)
		}
	}
}

// The tail follows the log while many writers commit late and out of order, and
// while the database restarts; it prints each committed record once, in order.
func TestFollowingTheLogSurvivesARestartOfPostgres(t *testing.T) {
	t.Parallel()
	server, err := privateserver.StartPostgres(t.Context(), privateserver.Options{Dir: openDir(t), Settings: map[string]string{"fsync": "off"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Stop(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	db, err := postgres.Open(server.URL(), "test", 10)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	if err := migrations.Up(t.Context(), db); err != nil {
		t.Fatal(err)
	}
	tail := launch(t, server.URL(), "outbox", "tail", "-f", "--from", "beginning")
	write := func(round string) {
		var writers sync.WaitGroup
		for w := range 8 {
			writers.Go(func() {
				for i := range 40 {
					// Some transactions stay open while others commit behind them.
					_, err := db.ExecContext(t.Context(), fmt.Sprintf(`
						DO $$ BEGIN
							PERFORM posthorn.append_event('E', id => '%s-%d-%d');
							PERFORM pg_sleep(%d * 0.002);
							IF %d %% 7 = 0 THEN RAISE EXCEPTION 'changed my mind'; END IF;
						END $$`, round, w, i, (i+w)%5, i))
					if err != nil && !strings.Contains(err.Error(), "changed my mind") {
						t.Errorf("append: %v", err)
					}
				}
			})
		}
		writers.Wait()
	}
	write("a")
	eventually(t, patience, "the log is followed", func() bool { return len(tail.printed()) == 8*34 })
	// Postgres stays down until the tail notices: a restart alone may be over
	// before it polls again.
	if err := server.Kill(); err != nil {
		t.Fatal(err)
	}
	eventually(t, patience, "the tail has noticed", func() bool { return strings.Contains(tail.stderr.String(), "database is unavailable") })
	if err := server.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, patience, "database is available again", func() bool { return db.PingContext(t.Context()) == nil })
	write("b")
	eventually(t, patience, "the log is followed again", func() bool { return len(tail.printed()) >= 2*8*34 })
	rows, err := db.QueryContext(t.Context(), `SELECT id FROM posthorn.outbox ORDER BY position`)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	var want []string
	for rows.Next() {
		var id string
		if err := rows.Scan(&id); err != nil {
			t.Fatal(err)
		}
		want = append(want, id)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, tail.ids(t)); diff != "" {
		t.Errorf("records (-want +got):\n%s", diff)
	}
	tail.interrupt(t)
	if code := tail.exitCode(t); code != 0 {
		t.Errorf("exit code %d: %s", code, tail.stderr.String())
	}
}
