package privateserver_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	_ "github.com/lib/pq"

	"posthorn/services/internal/privateserver"
)

const patience = 90 * time.Second

// TestMain also acts as the program that starts servers and is killed.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "starter" {
		if err := startAndWait(os.Args[2]); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func startAndWait(dir string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	pg, err := privateserver.StartPostgres(ctx, privateserver.Options{Dir: filepath.Join(dir, "postgres"), Settings: fast()})
	if err != nil {
		return err
	}
	mq, err := privateserver.StartRabbitMQ(ctx, privateserver.Options{Dir: filepath.Join(dir, "rabbitmq")})
	if err != nil {
		return err
	}
	fmt.Println("started", pg.PID(), mq.PID())
	<-ctx.Done()
	return ctx.Err()
}

func fast() map[string]string { return map[string]string{"fsync": "off"} }

// folder creates a folder that the servers' users can pass through, unlike that of t.TempDir.
func folder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "posthorn-private-") //nolint:usetesting // t.TempDir is closed to others
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if left := processesBelow(t, dir); len(left) > 0 {
			t.Errorf("left running: %v", left)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func startPostgres(t *testing.T, o privateserver.Options) *privateserver.Postgres {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	o.Settings = fast()
	pg, err := privateserver.StartPostgres(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(t, pg) })
	return pg
}

func startRabbitMQ(t *testing.T, o privateserver.Options) *privateserver.RabbitMQ {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	mq, err := privateserver.StartRabbitMQ(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// An orderly stop takes six seconds; only tests about stopping do one.
		if err := mq.Kill(); err != nil {
			t.Error(err)
		}
		stop(t, mq)
	})
	return mq
}

func stop(t *testing.T, server interface{ Stop(context.Context) error }) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), patience)
	defer cancel()
	if err := server.Stop(ctx); err != nil {
		t.Error(err)
	}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline:
			t.Fatalf("waited in vain until %s", what)
		case <-tick.C:
		}
	}
}

func execute(t *testing.T, dsn, query string) error {
	t.Helper()
	db, err := sql.Open("postgres", dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	_, err = db.ExecContext(t.Context(), query)
	return err
}

func TestPostgresKeepsItsDataThroughRestartKillAndTheNextStart(t *testing.T) {
	t.Parallel()
	o := privateserver.Options{Dir: filepath.Join(folder(t), "postgres")}
	pg := startPostgres(t, o)
	address := pg.URL()
	if err := execute(t, address, "CREATE TABLE kept (id int); INSERT INTO kept VALUES (1)"); err != nil {
		t.Fatal(err)
	}
	var encoding, locale string
	db, err := sql.Open("postgres", address)
	if err != nil {
		t.Fatal(err)
	}
	err = db.QueryRowContext(t.Context(), "SELECT pg_encoding_to_char(encoding), datcollate FROM pg_database WHERE datname = 'posthorn'").Scan(&encoding, &locale)
	if err := errors.Join(err, db.Close()); err != nil || encoding != "UTF8" || locale != "C.UTF-8" {
		t.Fatalf("encoding %q, locale %q, error %v", encoding, locale, err)
	}

	if err := pg.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := execute(t, address, "INSERT INTO kept VALUES (2)"); err != nil {
		t.Fatalf("after Restart: %v", err)
	}
	done := pg.Done()
	if err := pg.Kill(); err != nil {
		t.Fatal(err)
	}
	<-done
	if err := execute(t, address, "SELECT 1"); err == nil {
		t.Fatal("answers after Kill")
	}
	if err := pg.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := execute(t, address, "INSERT INTO kept VALUES (3)"); err != nil {
		t.Fatalf("after Kill and Restart: %v", err)
	}
	stop(t, pg)

	again := startPostgres(t, o)
	if err := execute(t, again.URL(), "DO $$BEGIN ASSERT (SELECT count(*) = 3 FROM kept); END$$"); err != nil {
		t.Errorf("after Stop and the next start: %v", err)
	}
}

func TestPostgresAsksForThePasswordOfItsOwn(t *testing.T) {
	t.Parallel()
	pg := startPostgres(t, privateserver.Options{Dir: folder(t)})
	u, err := url.Parse(pg.URL())
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword("posthorn", "guess")
	if err := execute(t, u.String(), "SELECT 1"); err == nil || !strings.Contains(err.Error(), "password") {
		t.Errorf("a wrong password gave: %v", err)
	}
}

func TestASecondStartInTheSameFolderNamesTheHolder(t *testing.T) {
	t.Parallel()
	o := privateserver.Options{Dir: folder(t)}
	startPostgres(t, o)
	_, err := privateserver.StartPostgres(t.Context(), o)
	if !errors.Is(err, privateserver.ErrInUse) || !strings.Contains(err.Error(), strconv.Itoa(os.Getpid())) {
		t.Errorf("want ErrInUse and pid %d, got %v", os.Getpid(), err)
	}
}

func TestAPidFileThatNamesAStrangerIsStale(t *testing.T) {
	t.Parallel()
	o := privateserver.Options{Dir: folder(t)}
	pg := startPostgres(t, o)
	if err := pg.Kill(); err != nil {
		t.Fatal(err)
	}
	stop(t, pg)
	pidFile := filepath.Join(o.Dir, "data", "postmaster.pid")
	content, err := os.ReadFile(pidFile)
	if err != nil {
		t.Fatalf("a killed server should leave its pid file: %v", err)
	}
	// After a reboot another process may have the number.
	stranger := exec.CommandContext(t.Context(), "sleep", "600")
	if err := stranger.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = stranger.Wait() }) // killed when the test's context ends
	_, rest, _ := strings.Cut(string(content), "\n")
	if err := os.WriteFile(pidFile, []byte(strconv.Itoa(stranger.Process.Pid)+"\n"+rest), 0o600); err != nil {
		t.Fatal(err)
	}

	again := startPostgres(t, o)
	if err := execute(t, again.URL(), "SELECT 1"); err != nil {
		t.Error(err)
	}
	if err := stranger.Process.Signal(syscall.Signal(0)); err != nil {
		t.Errorf("the stranger was ended: %v", err)
	}
}

func TestDoneIsClosedWhenPostgresEndsByItself(t *testing.T) {
	t.Parallel()
	pg := startPostgres(t, privateserver.Options{Dir: folder(t)})
	process, err := os.FindProcess(pg.PID())
	if err != nil {
		t.Fatal(err)
	}
	if err := process.Kill(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-pg.Done():
	case <-time.After(patience):
		t.Error("Done stays open")
	}
}

func TestAPortThatIsNotFreeIsReplaced(t *testing.T) {
	t.Parallel()
	taken, err := new(net.ListenConfig).Listen(t.Context(), "tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = taken.Close() })
	port := taken.Addr().(*net.TCPAddr).Port //nolint:forcetypeassert // a TCP listener's
	pg := startPostgres(t, privateserver.Options{Dir: folder(t), Port: port})
	if pg.Port() == port || pg.Port() == 0 {
		t.Errorf("got port %d while %d is taken", pg.Port(), port)
	}
}

func TestRabbitMQKeepsItsDataUntilItIsWiped(t *testing.T) {
	t.Parallel()
	var steps []string
	o := privateserver.Options{Dir: filepath.Join(folder(t), "rabbitmq"), Progress: func(step string) { steps = append(steps, step) }}
	mq := startRabbitMQ(t, o)
	if len(steps) == 0 {
		t.Error("a start of several seconds said nothing")
	}
	ctl := func(args ...string) string {
		t.Helper()
		said, err := mq.Ctl(t.Context(), args...)
		if err != nil {
			t.Fatal(err)
		}
		return said
	}
	if status := whoami(t, mq.ManagementURL(), mq.User(), mq.Password()); status != http.StatusOK {
		t.Errorf("own account: status %d", status)
	}
	if status := whoami(t, mq.ManagementURL(), "guest", "guest"); status != http.StatusUnauthorized {
		t.Errorf("guest: status %d", status)
	}
	if users := strings.Fields(ctl("list_users", "--no-table-headers")); len(users) != 2 || users[0] != "posthorn" {
		t.Errorf("users: %q", users)
	}
	ctl("add_vhost", "kept")

	address := mq.URL()
	if err := mq.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(ctl("list_vhosts"), "kept") || mq.URL() != address {
		t.Error("Restart lost a vhost or the address")
	}
	done := mq.Done()
	if err := mq.Kill(); err != nil {
		t.Fatal(err)
	}
	<-done
	if err := mq.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(ctl("list_vhosts"), "kept") {
		t.Error("Kill and Restart lost a vhost")
	}
	if err := mq.Wipe(t.Context()); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(ctl("list_vhosts"), "kept") {
		t.Error("Wipe kept a vhost")
	}
	stop(t, mq)
	if err := mq.Restart(t.Context()); err == nil {
		t.Error("Restart after Stop, which gave the folder free")
	}
	mq = startRabbitMQ(t, o)
	if status := whoami(t, mq.ManagementURL(), mq.User(), mq.Password()); status != http.StatusOK {
		t.Errorf("own account after Wipe: status %d", status)
	}
	if _, err := mq.Ctl(t.Context(), "delete_vhost", "absent"); err == nil || !strings.Contains(err.Error(), "absent") {
		t.Errorf("a failing rabbitmqctl should say why: %v", err)
	}
}

func whoami(t *testing.T, management, user, password string) int {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, management+"api/whoami", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	request.SetBasicAuth(user, password)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	if err := response.Body.Close(); err != nil {
		t.Fatal(err)
	}
	return response.StatusCode
}

func TestProgramsThatAreMissingAreReported(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Log("as another user than root, a chroot is refused first")
	}
	root := folder(t)
	o := privateserver.Options{Dir: filepath.Join(root, "srv"), Chroot: root}
	passwd := "postgres:x:101:104::/:/bin/sh\nrabbitmq:x:103:106::/:/bin/sh\n"
	if err := errors.Join(os.Mkdir(filepath.Join(root, "etc"), 0o750), os.WriteFile(filepath.Join(root, "etc", "passwd"), []byte(passwd), 0o600)); err != nil {
		t.Fatal(err)
	}
	for name, start := range map[string]func() error{
		"postgres":        func() error { _, err := privateserver.StartPostgres(t.Context(), o); return err },
		"rabbitmq-server": func() error { _, err := privateserver.StartRabbitMQ(t.Context(), o); return err },
	} {
		err := start()
		if os.Geteuid() == 0 && (!errors.Is(err, privateserver.ErrNotInstalled) || !strings.Contains(err.Error(), name)) {
			t.Errorf("%s: %v", name, err)
		}
		if err == nil {
			t.Errorf("%s started from an empty folder", name)
		}
	}
}

func TestAStartThatFailsSaysWhatTheServerSaid(t *testing.T) {
	t.Parallel()
	_, err := privateserver.StartPostgres(t.Context(), privateserver.Options{Dir: folder(t), Settings: map[string]string{"fsync": "off", "no_such_setting": "1"}})
	if err == nil || !strings.Contains(err.Error(), "no_such_setting") {
		t.Errorf("got %v", err)
	}
}

func TestAFolderClosedToTheServersUserIsNamed(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Log("only root's servers run as another user")
		return
	}
	closed := t.TempDir()
	if err := os.Chmod(closed, 0o700); err != nil {
		t.Fatal(err)
	}
	_, err := privateserver.StartPostgres(t.Context(), privateserver.Options{Dir: filepath.Join(closed, "data")})
	if err == nil || !strings.Contains(err.Error(), "cannot pass through") {
		t.Errorf("got %v", err)
	}
}

func TestDataDirIsWhereTheServersCanReach(t *testing.T) {
	t.Parallel()
	open := filepath.Join(folder(t), "data")
	got, err := privateserver.DataDir(open)
	if err != nil || got != open {
		t.Errorf("an open folder: got %q, %v", got, err)
	}
	if os.Geteuid() != 0 {
		return
	}
	closed := t.TempDir()
	if err := os.Chmod(closed, 0o700); err != nil {
		t.Fatal(err)
	}
	first, err := privateserver.DataDir(filepath.Join(closed, "data"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(first) })
	second, err := privateserver.DataDir(filepath.Join(closed, "data"))
	if err != nil || first != second || !strings.HasPrefix(first, "/var/lib/posthorn/") {
		t.Errorf("a closed folder: got %q, then %q, %v", first, second, err)
	}
	if link, err := os.Readlink(filepath.Join(closed, "data")); err != nil || link != first {
		t.Errorf("the link leads to %q, %v", link, err)
	}
	pg := startPostgres(t, privateserver.Options{Dir: filepath.Join(first, "postgres")})
	if err := execute(t, pg.URL(), "SELECT 1"); err != nil {
		t.Error(err)
	}
}
