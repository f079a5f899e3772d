package main

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"

	"posthorn/events"
	"posthorn/services/internal/eventlog"
)

func TestALineHasTheBytesOfTheData(t *testing.T) {
	t.Parallel()
	const data = `{"b": 1.0,  "a":"\u0000<é>"}`
	line, err := recordLine(&eventlog.Record{Kind: eventlog.KindEvent, Event: events.Event{ID: "e", Type: "A", Data: []byte(data)}})
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(line), `"data":`+data+`,`) || strings.Contains(string(line), "dataBase64") {
		t.Errorf("got %s", line)
	}
}

func TestNothingInALineReachesTheTerminal(t *testing.T) {
	t.Parallel()
	for _, data := range []string{
		"{\n\t\"a\":\r 1}", "\"\u009b31m\"", "\"\u007f\"", "\"\u202e\"", `"\u001b[31m"`, "\x1b[31m", "\xff\x9b", "",
	} {
		line, err := recordLine(&eventlog.Record{Event: events.Event{
			ID: "e", Type: "A", Subject: "\x1b[2J\u009b\u202e\n", Data: []byte(data), Metadata: map[string]string{"\x1b": "\u0085\u007f"},
		}})
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range strings.TrimSuffix(string(line), "\n") {
			if r < ' ' || r >= 0x7f && r <= 0x9f || r == 0x202e {
				t.Errorf("%q: character %U is in %q", data, r, line)
			}
		}
		var got struct {
			Subject    string          `json:"subject"`
			Data       json.RawMessage `json:"data"`
			DataBase64 string          `json:"dataBase64"`
		}
		if err := json.Unmarshal(line, &got); err != nil {
			t.Fatalf("%q: %v in %s", data, err, line)
		}
		exact := string(got.Data)
		if got.DataBase64 != "" {
			b, err := base64.StdEncoding.DecodeString(got.DataBase64)
			if err != nil {
				t.Fatal(err)
			}
			exact = string(b)
		}
		if exact != data && data != "" || got.Subject != "\x1b[2J\u009b\u202e\n" {
			t.Errorf("%q came back as %q, subject %q", data, exact, got.Subject)
		}
	}
}
