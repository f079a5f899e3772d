package api

import (
	"encoding/base64"
	"net/http"
	"strconv"
	"strings"
	"time"

	"posthorn/services/internal/ledger"
	"posthorn/services/internal/postgres"
)

// A cursor marks where the next page of a list begins. It is opaque to clients;
// an invented cursor or one of another list is refused.
func cursor(list, place string) string {
	return base64.RawURLEncoding.EncodeToString([]byte(list + ":" + place))
}

// showPage converts a page for a response, and returns the cursor of the next
// page if there is one.
func showPage[T, V any](page postgres.Page[T], list string, show func(T) V, place func(T) string) (items []V, next string) {
	items = make([]V, len(page.Items))
	for i, item := range page.Items {
		items[i] = show(item)
	}
	if page.More && len(page.Items) > 0 {
		next = cursor(list, place(page.Items[len(page.Items)-1]))
	}
	return items, next
}

func openCursor(list, given string) (string, error) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(given)
	if err != nil {
		return "", badCursor()
	}
	place, ok := strings.CutPrefix(string(b), list+":")
	if !ok {
		return "", badCursor()
	}
	return place, nil
}

func badCursor() *Problem {
	return problem(http.StatusBadRequest, "The cursor was not issued by this list.",
		FieldIssue{Location: "query", Field: "cursor", Message: "is not a cursor of this list"})
}

func positionCursor(given string) (int64, error) {
	place, err := openCursor("events", given)
	if err != nil {
		return 0, err
	}
	position, err := strconv.ParseInt(place, 10, 64)
	if err != nil || position < 1 {
		return 0, badCursor()
	}
	return position, nil
}

func attemptPlace(k ledger.AttemptKey) string {
	return strconv.FormatInt(k.StartedAt.UnixMicro(), 10) + "." + strconv.FormatInt(k.Position, 10) + "." + strconv.Itoa(k.Number)
}

func attemptCursor(given string) (*ledger.AttemptKey, error) {
	place, err := openCursor("attempts", given)
	if err != nil {
		return nil, err
	}
	parts := strings.Split(place, ".")
	if len(parts) != 3 {
		return nil, badCursor()
	}
	var numbers [3]int64
	for i, part := range parts {
		if numbers[i], err = strconv.ParseInt(part, 10, 64); err != nil || numbers[i] < 0 {
			return nil, badCursor()
		}
	}
	// The bounds of Postgres: the year 9999, and an integer.
	if numbers[0] > 253_402_300_799_000_000 || numbers[2] > 1<<31-1 {
		return nil, badCursor()
	}
	return &ledger.AttemptKey{StartedAt: time.UnixMicro(numbers[0]).UTC(), Position: numbers[1], Number: int(numbers[2])}, nil
}
