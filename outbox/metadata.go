package outbox

import (
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf8"

	"posthorn/events"
)

// encodeMetadata is the JSON object for the metadata column. Postgres' jsonb
// has no way to hold a NUL character, so it is refused here with a name to it.
func encodeMetadata(metadata map[string]string) (string, error) {
	if len(metadata) == 0 {
		return "{}", nil
	}
	for k, v := range metadata {
		if !utf8.ValidString(k) || !utf8.ValidString(v) || strings.ContainsRune(k, 0) || strings.ContainsRune(v, 0) {
			return "", fmt.Errorf("%w: metadata %q: not UTF-8 text", events.ErrInvalid, k)
		}
	}
	b, err := json.Marshal(metadata)
	if err != nil {
		return "", fmt.Errorf("encode metadata: %w", err)
	}
	return string(b), nil
}
