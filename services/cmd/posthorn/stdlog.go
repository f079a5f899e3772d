package main

import (
	"log/slog"
	"strings"
)

// maxStandardLine is how much of a line of the standard library is logged: the
// stack of a panic begins with what matters.
const maxStandardLine = 1000

// standardLog logs what the standard library has to say, which is net/http's
// oddities. Some of it quotes what the other side sent, at any length, and that
// stays out of the log.
type standardLog struct{ logger *slog.Logger }

// Write implements io.Writer.
func (l standardLog) Write(line []byte) (int, error) {
	text := strings.TrimSpace(string(line))
	switch {
	case strings.HasPrefix(text, "Unsolicited response received on idle HTTP channel"):
		l.logger.Debug("server sent unsolicited bytes: its connection is closed")
	case len(text) > maxStandardLine:
		l.logger.Warn("message from the standard library", "says", text[:maxStandardLine]+" ...")
	default:
		l.logger.Warn("message from the standard library", "says", text)
	}
	return len(line), nil
}
