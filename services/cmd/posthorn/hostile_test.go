package main

import (
	"strings"
	"testing"

	"github.com/alecthomas/kong"

	"posthorn/migrations/pgtest"
	"posthorn/services/internal/postgres"
	"posthorn/services/internal/signing"
)

// commandLines has arguments for every command that make it print stored data:
// %[1]s is the address of the database. Commands that run until they are
// stopped, or show no stored data, are nil.
func commandLines(sub, rpl, dlv string) map[string][][]string {
	return map[string][][]string{
		"run": nil, "api": nil, "relay": nil, "delivery": nil, "inbox": nil, "dev": nil, "migrate": nil, "photos rebuild": nil,
		"healthcheck": nil, "version": nil, "secrets status": {{"--secret-key", signing.GenerateKey()}, {"--json", "--secret-key", signing.GenerateKey()}},
		"doctor":         {{"--amqp-url=amqp://127.0.0.1:1/", "--secret-key", signing.GenerateKey()}},
		"secrets reseal": {{"--dry-run", "--secret-key", signing.GenerateKey()}, {"--secret-key", signing.GenerateKey()}}, "outbox import": {{"/nowhere/\u009b31m"}},
		"replay start": {{"--subscription", sub, "--dry-run"}, {"--subscription", sub, "--type", "\u009b31m"}},
		"replay list":  {{}, {"--json"}}, "replay show": {{rpl}}, "replay pause": {{rpl}}, "replay resume": {{rpl}}, "replay cancel": {{rpl}},
		"dead-letters list": {{}}, "dead-letters show": {{dlv}, {dlv, "--curl"}},
		"dead-letters redrive": {{dlv}}, "dead-letters purge": {{"--subscription", sub, "--confirm", "7"}},
		"audit": {{}, {"--json"}}, "explain": {{"1"}, {"1", "--json"}, {"\u009b31m"}},
		"outbox tail": {{}, {"--from", "1"}, {"--type", "\u009b31m"}}, "outbox show": {{"1"}}, "outbox export": {{}, {"-o", "/nowhere/\u009b31m"}},
		"outbox quarantine list": {{}, {"--json"}}, "outbox quarantine retry": {{"1"}}, "outbox quarantine drop": {{"1"}},
	}
}

// Whatever is stored in any field, no command prints characters that a terminal
// could obey, or that hide or reorder others. A command that is missing here
// fails the test.
func TestNoCommandPrintsControlCharacters(t *testing.T) {
	t.Parallel()
	url := pgtest.URL(t)
	sub, rpl, dlv := hostileDatabase(t, url)
	lines := commandLines(sub, rpl, dlv)
	for _, name := range leaves(t) {
		all, ok := lines[name]
		if !ok {
			t.Errorf("there are no arguments for %q", name)
		}
		for _, args := range all {
			words := strings.Fields(name)
			if name == "replay start" {
				words = words[:1]
			}
			args = append(append(words, args...), "--database-url="+url)
			code, out, errOut := command(t, args...)
			for _, r := range out + errOut {
				if r != '\n' && r != '\t' && !printable(r) {
					t.Errorf("%v: shows %U: %q", args, r, out+errOut)
					break
				}
			}
			if code == 0 && out == "" && errOut == "" {
				t.Errorf("%v: shows nothing", args)
			}
		}
	}
}

// leaves returns the paths of all commands.
func leaves(t *testing.T) (paths []string) {
	t.Helper()
	parser, err := kong.New(&cli{}, kong.Name("posthorn"))
	if err != nil {
		t.Fatal(err)
	}
	for _, node := range parser.Model.Leaves(false) {
		path := strings.Fields(node.Path())
		words := path[:0]
		for _, word := range path {
			if !strings.HasPrefix(word, "<") && !strings.HasPrefix(word, "[") && !strings.HasPrefix(word, "--") {
				words = append(words, word)
			}
		}
		paths = append(paths, strings.Join(words, " "))
	}
	return paths
}

// hostileDatabase has such characters in every stored text.
func hostileDatabase(t *testing.T, url string) (sub, rpl, dlv string) {
	t.Helper()
	db, err := postgres.Open(url, "test", 2)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	const evil = `E'\u009b31m\u202e\u200b\u0007\u2028\u0085evil\u00a0'`
	if _, err := db.ExecContext(t.Context(), strings.ReplaceAll(`
		DO $$
		DECLARE c record;
		BEGIN
			FOR c IN SELECT conname FROM pg_constraint WHERE conrelid = 'posthorn.outbox'::regclass AND contype = 'c' LOOP
				EXECUTE format('ALTER TABLE posthorn.outbox DROP CONSTRAINT %I', c.conname);
			END LOOP;
		END $$;
		ALTER TABLE posthorn.subscriptions DISABLE TRIGGER ALL;
		INSERT INTO posthorn.outbox (id, type, subject, account, data, metadata)
		VALUES (EVIL, EVIL, EVIL, 'default', convert_to(to_json(EVIL::text)::text, 'UTF8'), jsonb_build_object(EVIL, EVIL));
		INSERT INTO posthorn.subscriptions (id, url, event_types, description, secret)
		VALUES ('01a20c87-0425-7ea1-9ec4-43d4855a3496', 'http://x/' || EVIL, ARRAY[EVIL, '#'], EVIL, '');
		INSERT INTO posthorn.deliveries (position, subscription_id, event_id, status, attempts, last_error, finished_at)
		VALUES (1, '01a20c87-0425-7ea1-9ec4-43d4855a3496', EVIL, 'dead', 1, EVIL, now());
		INSERT INTO posthorn.attempts (position, subscription_id, number, cause, started_at, duration, error_class, error,
		    request_headers, response_headers, response_body, next_step)
		VALUES (1, '01a20c87-0425-7ea1-9ec4-43d4855a3496', 1, EVIL, now(), '1s', EVIL, EVIL, jsonb_build_object(EVIL, EVIL),
		    jsonb_build_object(EVIL, EVIL), convert_to(EVIL, 'UTF8'), EVIL);
		INSERT INTO posthorn.replays (id, subscription_id, cause, from_position, to_position, position, event_types, subjects, error)
		VALUES ('01a20c87-0425-7ea1-9ec4-43d4855a3497', '01a20c87-0425-7ea1-9ec4-43d4855a3496', 'replay', 0, 9, 0, ARRAY[EVIL], ARRAY[EVIL], EVIL);
		INSERT INTO posthorn.quarantine (position, kind, account, event_id, reason, status) VALUES (1, EVIL, EVIL, EVIL, EVIL, 'held');
		UPDATE posthorn.readers SET position = 1 WHERE name = 'relay'`, "EVIL", evil)); err != nil {
		t.Fatal(err)
	}
	const id = "01a20c87-0425-7ea1-9ec4-43d4855a349"
	return "sub_" + id + "6", "rpl_" + id + "7", "dlv_1_" + id + "6"
}
