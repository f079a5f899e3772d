package main

import (
	"bytes"
	"log"
	"log/slog"
	"strings"
	"testing"
)

func TestUnsolicitedBytesStayOutOfTheLog(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	std := log.New(standardLog{slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}))}, "", 0)
	std.Printf("Unsolicited response received on idle HTTP channel starting with %q; err=%v", strings.Repeat("token=secret ", 300), nil)
	if got := out.String(); strings.Contains(got, "secret") || !strings.Contains(got, "DEBUG") {
		t.Errorf("logged %s", got)
	}
	out.Reset()
	std.Printf("http: panic serving 127.0.0.1:1: %s", strings.Repeat("x", 10_000))
	if got := out.String(); !strings.Contains(got, "WARN") || !strings.Contains(got, "panic serving") || len(got) > 1200 {
		t.Errorf("logged %d bytes: %.200s", len(got), got)
	}
}
