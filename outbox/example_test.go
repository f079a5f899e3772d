package outbox_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"

	"posthorn/events"
	"posthorn/outbox"
)

// The change and its event are committed together.
func ExampleAppend() {
	pay := func(ctx context.Context, db *sql.DB, order int) error {
		tx, err := db.BeginTx(ctx, nil)
		if err != nil {
			return fmt.Errorf("begin: %w", err)
		}
		defer func() { _ = tx.Rollback() }() // does nothing after the commit
		if _, err := tx.ExecContext(ctx, "UPDATE orders SET paid = true WHERE id = $1", order); err != nil {
			return fmt.Errorf("pay order: %w", err)
		}
		data, err := json.Marshal(map[string]int{"order": order})
		if err != nil {
			return fmt.Errorf("encode event: %w", err)
		}
		_, err = outbox.Append(ctx, tx, events.Event{
			// With your own id, appending again is harmless.
			ID: fmt.Sprintf("order-%d-paid", order), Type: "ORDER_PAID", Subject: fmt.Sprintf("order/%d", order), Data: data,
		})
		if err != nil {
			return fmt.Errorf("append event: %w", err)
		}
		return tx.Commit()
	}
	_ = pay
}

// AppendEach reports the outcome of each event of a batch.
func ExampleAppendEach() {
	importAll := func(ctx context.Context, tx *sql.Tx, batch []events.Event) (duplicates, conflicts int, err error) {
		results, err := outbox.AppendEach(ctx, tx, batch...)
		if err != nil {
			return 0, 0, err
		}
		for _, r := range results {
			switch r.Outcome {
			case outbox.Existing:
				duplicates++
			case outbox.Conflict:
				conflicts++
			case outbox.Appended:
			}
		}
		return duplicates, conflicts, nil
	}
	_ = importAll
}
