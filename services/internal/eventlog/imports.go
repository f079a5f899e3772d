package eventlog

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"fmt"
	"maps"
	"time"

	"posthorn/events"
	"posthorn/outbox"
	"posthorn/services/internal/postgres"
)

// Import appends the events that are not in the log yet, in one transaction,
// and returns their number. All events must have an id. If an id is taken by an
// event with other content, it returns a *ConflictError and appends nothing.
//
// It looks for the ids in the log itself: generated ids have no entry among the
// keys, and an entry does not have the time of an event that was appended
// without one.
func Import(ctx context.Context, db *sql.DB, batch []events.Event) (appended int, err error) {
	err = postgres.CommitTx(ctx, db, func(tx *sql.Tx) error {
		missing, err := Missing(ctx, tx, batch)
		if err != nil {
			return err
		}
		absent := make([]events.Event, len(missing))
		for i, index := range missing {
			absent[i] = batch[index]
		}
		results, err := outbox.AppendEach(ctx, tx, absent...)
		if err != nil {
			return fmt.Errorf("append imported events: %w", err)
		}
		var conflict ConflictError
		for i, r := range results {
			switch r.Outcome {
			case outbox.Appended:
				appended++
			case outbox.Conflict:
				conflict.Indexes = append(conflict.Indexes, missing[i])
			case outbox.Existing: // twice in the batch, or another import was faster
			}
		}
		if len(conflict.Indexes) > 0 {
			return &conflict
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	return appended, nil
}

// Missing returns the indexes of the events that are not in the log, or a
// *ConflictError if an id is taken by an event with other content. An event
// with a source is in the log if one with the same source and id is, whatever
// id the record has.
func Missing(ctx context.Context, q postgres.Queryer, batch []events.Event) (missing []int, err error) {
	ids := map[string][]string{}
	for _, e := range batch {
		account := e.Owner()
		ids[account] = append(ids[account], e.ID)
		if derived := derivedID(e); derived != "" && derived != e.ID {
			ids[account] = append(ids[account], derived)
		}
	}
	there := map[string]map[string]Record{}
	for account := range ids {
		if there[account], err = ByIDs(ctx, q, account, ids[account]); err != nil {
			return nil, err
		}
	}
	var conflict ConflictError
	for i, e := range batch {
		known := there[e.Owner()]
		r, found := known[e.ID]
		if derived := derivedID(e); derived != "" && !(found && derivedID(r.Event) == derived) {
			if r, found = known[derived]; found && derivedID(r.Event) != derived {
				found = false // appending it finds the conflict
			}
		}
		switch {
		case !found:
			missing = append(missing, i)
		case r.Kind != KindEvent || !sameContent(r.Event, e):
			conflict.Indexes = append(conflict.Indexes, i)
		}
	}
	if len(conflict.Indexes) > 0 {
		return nil, &conflict
	}
	return missing, nil
}

// derivedID is posthorn.derived_id of an event with a source, otherwise empty.
func derivedID(e events.Event) string {
	if e.Source == "" {
		return ""
	}
	id := e.SourceID
	if id == "" {
		id = e.ID
	}
	sum := sha256.Sum256([]byte(e.Source + "\x00" + id))
	return "ce_" + hex.EncodeToString(sum[:])
}

// sameContent compares the whole content of two events. Postgres keeps microseconds.
func sameContent(a, b events.Event) bool {
	data := func(e events.Event) string {
		if len(e.Data) == 0 && e.JSON() {
			return "null"
		}
		return string(e.Data)
	}
	return a.Type == b.Type && a.Subject == b.Subject && data(a) == data(b) && maps.Equal(a.Metadata, b.Metadata) &&
		a.Source == b.Source && a.DataSchema == b.DataSchema && a.ContentType == b.ContentType && maps.Equal(a.Extensions, b.Extensions) &&
		a.OccurredAt.Round(time.Microsecond).Equal(b.OccurredAt.Round(time.Microsecond))
}
