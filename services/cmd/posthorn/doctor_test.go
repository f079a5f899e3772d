package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"testing"

	"posthorn/migrations/pgtest"
	"posthorn/services/internal/signing"
)

func TestDoctorNamesWhatIsWrongAndWhatToDo(t *testing.T) {
	t.Parallel()
	database, amqp := pgtest.URL(t), os.Getenv("AMQP_URL")
	if amqp == "" {
		t.Fatal("AMQP_URL is not set: run the tests with `make test`")
	}
	key := signing.GenerateKey()
	change := func(raw string, f func(u *url.URL)) string {
		u, err := url.Parse(raw)
		if err != nil {
			t.Fatal(err)
		}
		f(u)
		return u.String()
	}
	wrong := func(u *url.URL) { u.User = url.UserPassword(u.User.Username(), "wrong-secret") }
	management := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(`[{"fd_total":65536,"fd_used":100},{"fd_total":256,"fd_used":90}]`))
	}))
	t.Cleanup(management.Close)
	for name, c := range map[string]struct {
		args  []string
		code  int
		wants map[string]string // by check: its status and the beginning of its detail
	}{
		"all is well": {
			[]string{"--database-url=" + database, "--amqp-url=" + amqp, "--secret-key=" + key},
			0,
			map[string]string{"postgres": "ok version", "schema": "ok up to date", "clocks": "ok within", "rabbitmq": "ok RabbitMQ", "secret key": "ok", "relay": "ok 0", "quarantine": "ok", "broker files": "ok"},
		},
		"wrong passwords": {
			[]string{"--database-url=" + change(database, wrong), "--amqp-url=" + change(amqp, wrong), "--secret-key=" + key},
			3,
			map[string]string{"postgres": "fail postgres cannot be used: it refuses the user or the password", "rabbitmq": "fail RabbitMQ refuses the user, the password"},
		},
		"nobody there": {
			[]string{"--database-url=postgres://u@127.0.0.1:1/d", "--amqp-url=amqp://127.0.0.1:1/", "--secret-key=" + key},
			3,
			map[string]string{"postgres": "fail the database cannot be reached", "rabbitmq": "fail RabbitMQ cannot be reached"},
		},
		"addresses that are none": {
			[]string{"--database-url=postgres://u:wrong-/secret@h/d", "--amqp-url=amqp://u:wrong-/secret@h", "--secret-key=" + key},
			3,
			map[string]string{"postgres": "fail DATABASE_URL", "rabbitmq": "fail AMQP_URL"},
		},
		"few files": {
			[]string{"--database-url=" + database, "--amqp-url=" + amqp, "--secret-key=" + key, "--management-url=" + management.URL},
			3,
			map[string]string{"broker files": "fail RabbitMQ may open 256"},
		},
		"no key": {
			[]string{"--database-url=" + database, "--amqp-url=" + amqp, "--data-dir=" + t.TempDir()},
			3,
			map[string]string{"secret key": "fail POSTHORN_SECRET_KEY is not set"},
		},
	} {
		code, out, errOut := command(t, append([]string{"doctor", "--json"}, c.args...)...)
		if code != c.code {
			t.Errorf("%s: exit code %d\n%s%s", name, code, out, errOut)
		}
		got := map[string]string{}
		for line := range strings.Lines(out) {
			var f finding
			if err := json.Unmarshal([]byte(line), &f); err != nil {
				t.Fatalf("%s: %s: %v", name, line, err)
			}
			got[f.Check] = f.Status + " " + f.Detail
		}
		for check, want := range c.wants {
			if !strings.HasPrefix(got[check], want) {
				t.Errorf("%s: %s is %q, want %q", name, check, got[check], want)
			}
		}
		if strings.Contains(out+errOut, "wrong-") || strings.Contains(out+errOut, key) {
			t.Errorf("%s: it shows a secret:\n%s%s", name, out, errOut)
		}
	}
	if code, out, _ := command(t, "doctor", "--database-url="+database, "--amqp-url="+amqp, "--secret-key="+key); code != 0 || !strings.Contains(out, "ok    postgres     version") {
		t.Errorf("as text: exit code %d\n%s", code, out)
	}
}
