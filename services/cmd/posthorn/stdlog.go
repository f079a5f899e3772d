package main

import (
	"log/slog"
	"strings"
)

// maxStandardLine limits a logged line of the standard library: the stack of a
// panic begins with the important part.
const maxStandardLine = 1000

// standardLog logs the messages of the standard library, which come from
// net/http. Some quote the peer's bytes, at any length, and those stay out of
// the log.
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
