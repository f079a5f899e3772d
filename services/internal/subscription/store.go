package subscription

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/lib/pq"

	"posthorn/events"
	"posthorn/services/internal/postgres"
	"posthorn/services/internal/retry"
	"posthorn/services/internal/target"
)

// ErrUnchanged may be returned by the change passed to Update: the subscription
// needs no change, and nothing is written.
var ErrUnchanged = errors.New("subscription is unchanged")

// Filter selects subscriptions for a list; the zero value of a
// field selects all.
type Filter struct {
	Account string
	// EventType selects those with a pattern that matches this type, or that
	// equals it.
	EventType string
	URL       string
	Status    Status
	// After is the last id of the previous page.
	After ID
	Limit int
}

// Columns are the columns that Query reads, in its order.
const Columns = `
	id, account, url, event_types, description, status,
	CASE WHEN retry_schedule IS NOT NULL THEN ARRAY(
		SELECT (extract(epoch FROM d) * 1000000)::bigint FROM unnest(retry_schedule) WITH ORDINALITY AS u(d, n) ORDER BY n) END,
	(extract(epoch FROM timeout) * 1000000)::bigint, max_in_flight,
	secret, previous_secret, previous_secret_until, since, version, created_at, updated_at, deleted_at`

func scanSubscription(scan func(...any) error) (Subscription, error) {
	var (
		s                Subscription
		id               uuid.UUID
		types            []string
		schedule         pq.Int64Array
		timeout          int64
		until, deletedAt sql.NullTime
	)
	err := scan(&id, &s.Account, &s.URL, pq.Array(&types), &s.Description, &s.Status, &schedule, &timeout, &s.MaxInFlight,
		&s.Sealed.Secret, &s.Sealed.Previous, &until, &s.Since, &s.Version, &s.CreatedAt, &s.UpdatedAt, &deletedAt)
	if err != nil {
		return Subscription{}, fmt.Errorf("read subscription: %w", err)
	}
	if normal, err := target.NormalizeURL(s.URL); err == nil {
		s.URL = normal // older rows may not be normalised
	}
	s.ID = FromUUID(id)
	for _, t := range types {
		s.EventTypes = append(s.EventTypes, storedPattern(t))
	}
	if schedule != nil {
		s.Schedule = make(retry.Schedule, 0, len(schedule))
	}
	for _, micros := range schedule {
		s.Schedule = append(s.Schedule, time.Duration(micros)*time.Microsecond)
	}
	s.Timeout = time.Duration(timeout) * time.Microsecond
	s.PreviousSecretUntil, s.DeletedAt = until.Time, deletedAt.Time
	return s, nil
}

// storedPattern returns a pattern from the database in its short form. One that
// was stored before the limits existed, and exceeds them, stays unchanged.
func storedPattern(text string) events.Pattern {
	if p, err := events.ParsePattern(text); err == nil {
		return p
	}
	return events.Pattern(text)
}

// storedColumns are the arguments for the columns that a change may set, from $2.
func storedColumns(s Subscription) []any {
	types := make([]string, len(s.EventTypes))
	for i, p := range s.EventTypes {
		types[i] = string(p)
	}
	var schedule any
	if s.Schedule != nil {
		micros := make([]int64, len(s.Schedule))
		for i, d := range s.Schedule {
			micros[i] = d.Microseconds()
		}
		schedule = pq.Array(micros)
	}
	var previous any
	if len(s.Sealed.Previous) > 0 {
		previous = s.Sealed.Previous
	}
	secret := s.Sealed.Secret
	if secret == nil {
		secret = []byte{}
	}
	return []any{
		s.ID.UUID(), s.URL, pq.Array(types), s.Description, string(s.Status), schedule, postgres.Interval(s.Timeout), s.MaxInFlight,
		secret, previous,
		sql.NullTime{Time: s.PreviousSecretUntil, Valid: !s.PreviousSecretUntil.IsZero()},
	}
}

const scheduleValue = `
	CASE WHEN $6::bigint[] IS NOT NULL THEN ARRAY(
		SELECT d * interval '1 microsecond' FROM unnest($6::bigint[]) WITH ORDINALITY AS u(d, n) ORDER BY n) END`

// Create stores a subscription, with its secrets sealed, and appends the record
// from whose position on it is owed events.
func Create(ctx context.Context, db *sql.DB, s Subscription) (created Subscription, err error) {
	err = postgres.CommitTx(ctx, db, func(tx *sql.Tx) (err error) {
		created, err = CreateTx(ctx, tx, s)
		return err
	})
	return created, err
}

// CreateTx is Create in the caller's transaction.
func CreateTx(ctx context.Context, tx *sql.Tx, s Subscription) (Subscription, error) {
	created, err := scanSubscription(tx.QueryRowContext(ctx, `
		INSERT INTO posthorn.subscriptions (id, url, event_types, description, status, retry_schedule, timeout,
		    max_in_flight, secret, previous_secret, previous_secret_until, account)
		VALUES ($1, $2, $3, $4, $5, `+scheduleValue+`, $7::interval, $8, $9, $10, $11, $12)
		RETURNING `+Columns, append(storedColumns(s), s.Account)...).Scan)
	if err != nil {
		return Subscription{}, err
	}
	if created.Since, err = appendRecordTx(ctx, tx, created.Record()); err != nil {
		return Subscription{}, err
	}
	if _, err := tx.ExecContext(ctx, `
		UPDATE posthorn.subscriptions SET since = $2 WHERE id = $1`, s.ID.UUID(), created.Since); err != nil {
		return Subscription{}, fmt.Errorf("store position of subscription: %w", err)
	}
	return created, nil
}

// Update changes a subscription that is not deleted and appends the record of
// the change. change gets it with its secrets sealed, may refuse with its own
// error, and may return ErrUnchanged; Update itself sets the version and the
// times. Setting the status to deleted deletes it and its secrets.
func Update(ctx context.Context, db *sql.DB, account string, id ID,
	change func(*Subscription) error,
) (Subscription, error) {
	var changed Subscription
	err := postgres.CommitTx(ctx, db, func(tx *sql.Tx) error {
		// The row's lock comes before the record's position, so that the log
		// has the changes of one subscription in the order of their commits.
		s, err := scanSubscription(tx.QueryRowContext(ctx, `
			SELECT `+Columns+` FROM posthorn.subscriptions
			WHERE id = $1 AND account = $2 AND status <> 'deleted' FOR NO KEY UPDATE`, id.UUID(), account).Scan)
		if err != nil {
			return err
		}
		changed = s
		if err := change(&changed); err != nil {
			return err
		}
		if changed.Status == Deleted {
			changed.Sealed, changed.PreviousSecretUntil = Sealed{}, time.Time{}
		}
		changed, err = scanSubscription(tx.QueryRowContext(ctx, `
			UPDATE posthorn.subscriptions
			SET url = $2, event_types = $3, description = $4, status = $5, retry_schedule = `+scheduleValue+`,
			    timeout = $7::interval, max_in_flight = $8, secret = $9, previous_secret = $10, previous_secret_until = $11,
			    version = version + 1, updated_at = clock_timestamp(),
			    deleted_at = CASE WHEN $5 = 'deleted' THEN clock_timestamp() END
			WHERE id = $1
			RETURNING `+Columns, storedColumns(changed)...).Scan)
		if err != nil {
			return err
		}
		_, err = appendRecordTx(ctx, tx, changed.Record())
		return err
	})
	if errors.Is(err, ErrUnchanged) {
		return changed, nil
	}
	return changed, err
}

// appendRecordTx appends the record of a change and returns its position. The
// caller holds the lock of the subscription's row.
func appendRecordTx(ctx context.Context, tx *sql.Tx, r Record) (position int64, err error) {
	data, err := r.Encode()
	if err != nil {
		return 0, err
	}
	if err := tx.QueryRowContext(ctx, `
		INSERT INTO posthorn.outbox (id, kind, account, type, subject, data)
		VALUES ($1, 'subscription', $2, $3, $4, $5) RETURNING position`,
		events.NewID(time.Now()), r.Account, RecordType, string(r.ID), data).Scan(&position); err != nil {
		return 0, fmt.Errorf("append subscription record: %w", err)
	}
	return position, nil
}

// OfAccount returns a subscription of the account that is not deleted.
func OfAccount(ctx context.Context, q postgres.Queryer, account string, id ID) (Subscription, error) {
	s, err := scanSubscription(q.QueryRowContext(ctx, `
		SELECT `+Columns+` FROM posthorn.subscriptions
		WHERE id = $1 AND account = $2 AND status <> 'deleted'`, id.UUID(), account).Scan)
	return s, postgres.Translate(err)
}

// ByID returns a subscription of any account, including deleted ones, which
// have no secrets.
func ByID(ctx context.Context, q postgres.Queryer, id ID) (Subscription, error) {
	s, err := scanSubscription(q.QueryRowContext(ctx, `
		SELECT `+Columns+` FROM posthorn.subscriptions WHERE id = $1`, id.UUID()).Scan)
	return s, postgres.Translate(err)
}

// List returns one page of an account's subscriptions, oldest first.
func List(ctx context.Context, q postgres.Queryer, f Filter) (postgres.Page[Subscription], error) {
	after := f.After.UUID()
	if after == "" {
		after = uuid.Nil.String()
	}
	for {
		page, err := postgres.ReadPage(ctx, q, "list subscriptions", `
			SELECT `+Columns+`,
			       octet_length(url) + octet_length(description) + octet_length(event_types::text) + octet_length(secret) + 512 AS page_size
			FROM posthorn.subscriptions
			WHERE account = $1 AND id > $2 AND status <> 'deleted'
			  AND ($3 = '' OR status = $3) AND ($4 = '' OR url = $4)
			  AND ($5 = '' OR $5 = ANY (event_types) OR EXISTS (
				SELECT 1 FROM unnest(event_types) AS p WHERE posthorn.type_matches(p, $5)))`,
			"id", f.Limit, []any{f.Account, after, string(f.Status), f.URL, f.EventType}, scanSubscription)
		if err != nil || f.EventType == "" || len(page.Items) == 0 {
			return page, err
		}
		// The query narrows; the Matcher decides, as for deliveries.
		after = page.Items[len(page.Items)-1].ID.UUID()
		page.Items = slices.DeleteFunc(page.Items, func(s Subscription) bool {
			return !s.Matches(f.EventType) && !slices.Contains(s.EventTypes, events.Pattern(f.EventType))
		})
		if len(page.Items) > 0 || !page.More {
			return page, nil
		}
	}
}

// Query reads the subscriptions that a query with Columns finds.
func Query(ctx context.Context, q postgres.Queryer, query string, args ...any) ([]Subscription, error) {
	return postgres.Collect(ctx, q, "list subscriptions", scanSubscription, query, args...)
}

// AppendTest appends an event that goes only to this subscription, if allow
// permits it. The row stays locked against changes until then.
func AppendTest(ctx context.Context, db *sql.DB, account string, id ID, e events.Event,
	allow func(Subscription) error,
) (events.Event, error) {
	err := postgres.CommitTx(ctx, db, func(tx *sql.Tx) error {
		s, err := scanSubscription(tx.QueryRowContext(ctx, `
			SELECT `+Columns+` FROM posthorn.subscriptions
			WHERE id = $1 AND account = $2 AND status <> 'deleted' FOR SHARE`, id.UUID(), account).Scan)
		if err != nil {
			return err
		}
		if err := allow(s); err != nil {
			return err
		}
		e.Account = account
		e.Metadata = map[string]string{"subscription": string(id)}
		err = tx.QueryRowContext(ctx, `
			INSERT INTO posthorn.outbox (id, kind, account, type, subject, data, metadata)
			VALUES ($1, 'test', $2, $3, $4, $5, $6)
			RETURNING id, position, occurred_at, recorded_at`,
			events.NewID(time.Now()), account, e.Type, e.Subject, e.Data, postgres.StringMapJSON(e.Metadata)).
			Scan(&e.ID, &e.Position, &e.OccurredAt, &e.RecordedAt)
		if err != nil {
			return fmt.Errorf("append test event: %w", err)
		}
		return nil
	})
	return e, err
}
