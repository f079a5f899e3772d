package api_test

import (
	"fmt"
	"net/url"
	"strings"
	"testing"
)

func TestTimesAreParsedAsRFC3339Everywhere(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	sub := s.subscribe(hook).ID
	n := 0
	doors := map[string]func(at string) reply{
		"occurredAt": func(at string) reply { return s.do("POST", "/events", `{"type":"A","occurredAt":"`+at+`"}`) },
		"timestamp":  func(at string) reply { return s.do("POST", "/events", `{"type":"A","timestamp":"`+at+`"}`) },
		"[0].occurredAt": func(at string) reply {
			return s.do("POST", "/events", `[{"type":"A","occurredAt":"`+at+`"}]`)
		},
		"time": func(at string) reply {
			n++
			return s.do("POST", "/events", fmt.Sprintf(`{"specversion":"1.0","id":"%d","source":"/a","type":"A","time":"%s"}`, n, at),
				"Content-Type", "application/cloudevents+json")
		},
		"ce-time": func(at string) reply {
			n++
			return s.do("POST", "/events", `{}`, "Ce-Specversion", "1.0", "Ce-Id", fmt.Sprint("b", n), "Ce-Source", "/a", "Ce-Type", "A", "Ce-Time", at)
		},
		"since":  func(at string) reply { return s.do("GET", "/events?since="+url.QueryEscape(at), "") },
		"until":  func(at string) reply { return s.do("GET", "/events?until="+url.QueryEscape(at), "") },
		"since ": func(at string) reply { return s.do("GET", "/dead-letters?since="+url.QueryEscape(at), "") },
		"until ": func(at string) reply { return s.do("GET", "/dead-letters?until="+url.QueryEscape(at), "") },
		"since of a redrive": func(at string) reply {
			return s.do("POST", "/dead-letters/redrive", `{"subscription":"`+sub+`","since":"`+at+`"}`)
		},
		"until of a redrive": func(at string) reply {
			return s.do("POST", "/dead-letters/redrive", `{"subscription":"`+sub+`","until":"`+at+`"}`)
		},
		"from": func(at string) reply {
			return s.do("POST", "/replays", `{"subscription":"`+sub+`","dryRun":true,"from":"`+at+`"}`)
		},
		"to": func(at string) reply {
			return s.do("POST", "/replays", `{"subscription":"`+sub+`","dryRun":true,"to":"`+at+`"}`)
		},
		"startFrom": func(at string) reply {
			return s.do("POST", "/subscription", strings.TrimSuffix(hook, "}")+`,"startFrom":"`+at+`"}`)
		},
	}
	for name, door := range doors {
		for _, at := range []string{
			"2026-01-31T08:00:00Z", "2026-01-31t08:00:00z", "2026-01-31T08:00:00.123456789012z", "2026-01-31t08:00:00-08:00", "2016-12-31T23:59:60Z",
		} {
			if r := door(at); r.Status >= 300 {
				t.Errorf("%s %s: %d %s", name, at, r.Status, r.Body)
			}
		}
		for at, says := range map[string]string{
			"2026-01-31T08:00:00,5Z": "comma", "2026-01-31 08:00:00Z": "space", "2026-01-31T24:00:00Z": "24", "2026-01-31T08:00:60Z": "second 60",
			"2026-01-31T8:00:00Z": "2026-01-31T08:00:00Z", "2026-02-30T08:00:00Z": "day", "2026-01-31T08:00:00+99:00": "offset", "0000-01-01T00:00:00Z": "years",
		} {
			r := door(at)
			if r.Status != 422 || !strings.Contains(string(r.Body), says) {
				t.Errorf("%s %s: %d %s, want %q", name, at, r.Status, r.Body, says)
				continue
			}
			field, _, _ := strings.Cut(name, " ")
			r.names(field)
		}
	}
	// A plus that was not escaped is a space.
	if r := s.do("GET", "/events?since=2026-01-31T08:00:00+01:00", "").want(422); !strings.Contains(string(r.Body), "%2B") {
		t.Errorf("%s", r.Body)
	}
	if n := s.count(`SELECT count(*) FROM posthorn.outbox WHERE occurred_at = '2016-12-31 23:59:59Z'`); n != 5 {
		t.Errorf("%d events at the leap second, want 5", n)
	}
	var document struct {
		Paths map[string]map[string]struct {
			Parameters []struct {
				Name   string
				Schema struct{ Format string }
			}
		}
	}
	s.do("GET", "/openapi.json", "").want(200).decode(&document)
	described := 0
	for _, path := range []string{"/events", "/dead-letters"} {
		for _, p := range document.Paths[path]["get"].Parameters {
			if p.Name == "since" || p.Name == "until" {
				described++
				if p.Schema.Format != "date-time" {
					t.Errorf("GET %s: %s has the format %q", path, p.Name, p.Schema.Format)
				}
			}
		}
	}
	if described != 4 {
		t.Errorf("%d of 4 parameters are described", described)
	}
}
