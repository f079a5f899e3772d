package photos

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/lib/pq"

	"posthorn/events"
	"posthorn/outbox"
	"posthorn/services/internal/eventlog"
	"posthorn/services/internal/postgres"
)

// The types of the events that the like count is computed from.
const (
	LikedPhoto   = "LIKED_PHOTO"
	UnlikedPhoto = "UNLIKED_PHOTO"
)

// ErrLogIncomplete is returned by ResetPhotos when the beginning of the log
// has been dropped: counts made from the rest would be wrong.
var ErrLogIncomplete = errors.New("the beginning of the log is gone")

// Like is a user's like of a photo.
type Like struct {
	PhotoID, UserID string
	// Metadata of the event.
	Metadata map[string]string
}

type likeData struct {
	PhotoID string `json:"photoId"`
	UserID  string `json:"userId,omitempty"`
}

// LikeEvent is the event of the given type for a photo and, if known, the user.
func LikeEvent(eventType, photoID, userID string, metadata map[string]string) (events.Event, error) {
	data, err := json.Marshal(likeData{PhotoID: photoID, UserID: userID})
	if err != nil {
		return events.Event{}, fmt.Errorf("encode like: %w", err)
	}
	return events.Event{Type: eventType, Subject: "photo/" + photoID, Data: data, Metadata: metadata}, nil
}

// LikeGroup records likes by known users in one commit: each is one row and one
// event. If a user likes the photo already, the earlier event comes back as
// outbox.Existing and nothing is appended.
func LikeGroup(ctx context.Context, db *sql.DB, batch []Like) ([]eventlog.Appended, error) {
	return eventlog.EachAlone(batch, func(batch []Like) ([]eventlog.Appended, error) {
		var out []eventlog.Appended
		err := postgres.CommitTx(ctx, db, func(tx *sql.Tx) (err error) {
			out, err = likeGroupTx(ctx, tx, batch)
			return err
		})
		if err != nil {
			return nil, err
		}
		return out, nil
	})
}

func likeGroupTx(ctx context.Context, tx *sql.Tx, batch []Like) ([]eventlog.Appended, error) {
	type key struct{ photo, user string }
	var (
		now                                = time.Now()
		out                                = make([]eventlog.Appended, len(batch))
		first                              = make(map[key]int, len(batch))
		photos, users, ids, data, meta, at []string
		waiting                            = make(map[key]bool, len(batch))
	)
	for i, l := range batch {
		k := key{l.PhotoID, l.UserID}
		if _, ok := first[k]; ok {
			continue
		}
		first[k] = i
		e, err := LikeEvent(LikedPhoto, l.PhotoID, l.UserID, nil)
		if err != nil {
			return nil, err
		}
		photos, users, ids = append(photos, l.PhotoID), append(users, l.UserID), append(ids, events.NewID(now))
		data, meta, at = append(data, string(e.Data)), append(meta, postgres.StringMapJSON(l.Metadata)), append(at, e.Subject)
		waiting[k] = true
	}
	take := func(query string, outcome outbox.Outcome, args ...any) (err error) {
		rows, err := tx.QueryContext(ctx, query, args...)
		if err != nil {
			return fmt.Errorf("like photos: %w", err)
		}
		defer func() { err = errors.Join(err, rows.Close()) }()
		for rows.Next() {
			var (
				k key
				r = outbox.Result{Outcome: outcome}
			)
			if err := rows.Scan(&k.photo, &k.user, &r.ID, &r.Position, &r.OccurredAt, &r.RecordedAt); err != nil {
				return fmt.Errorf("read like: %w", err)
			}
			r.Type, r.Subject = LikedPhoto, "photo/"+k.photo
			out[first[k]].Result = r
			delete(waiting, k)
		}
		return rows.Err()
	}
	// In the order of the key, so that groups that share likes wait for each
	// other instead of deadlocking. An update without effect locks an existing
	// like, so that it cannot be taken back before it is looked up.
	if err := take(`
		WITH given AS MATERIALIZED (
			SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[])
			WITH ORDINALITY AS g(photo_id, user_id, event_id, data, metadata, subject, ordinal)
		), liked AS (
			INSERT INTO posthorn.likes (photo_id, user_id, event_id)
			SELECT photo_id, user_id, event_id FROM given ORDER BY photo_id, user_id
			ON CONFLICT (photo_id, user_id) DO UPDATE SET event_id = likes.event_id
			RETURNING event_id
		), appended AS (
			INSERT INTO posthorn.outbox (id, type, subject, data, metadata)
			SELECT g.event_id, 'LIKED_PHOTO', g.subject, convert_to(g.data, 'UTF8'), g.metadata::jsonb
			FROM given g JOIN liked USING (event_id) ORDER BY g.ordinal
			RETURNING id, position, occurred_at, recorded_at
		)
		SELECT g.photo_id, g.user_id, a.id, a.position, a.occurred_at, a.recorded_at
		FROM appended a JOIN given g ON g.event_id = a.id`, outbox.Appended,
		pq.Array(photos), pq.Array(users), pq.Array(ids), pq.Array(data), pq.Array(meta), pq.Array(at)); err != nil {
		return nil, err
	}
	if len(waiting) > 0 {
		photos, users = photos[:0], users[:0]
		for k := range waiting {
			photos, users = append(photos, k.photo), append(users, k.user)
		}
		if err := take(`
			SELECT l.photo_id, l.user_id, l.event_id, coalesce(o.position, 0),
			       coalesce(o.occurred_at, clock_timestamp()), coalesce(o.recorded_at, clock_timestamp())
			FROM unnest($1::text[], $2::text[]) AS g(photo_id, user_id)
			JOIN posthorn.likes l USING (photo_id, user_id)
			LEFT JOIN posthorn.outbox o ON o.id = l.event_id`, outbox.Existing,
			pq.Array(photos), pq.Array(users)); err != nil {
			return nil, err
		}
	}
	for i, l := range batch {
		k := key{l.PhotoID, l.UserID}
		switch at := first[k]; {
		case waiting[k]:
			return nil, fmt.Errorf("like photos: the like of %q by %q is neither new nor there", l.PhotoID, l.UserID)
		case at != i:
			out[i] = out[at]
			out[i].Outcome = outbox.Existing
		}
	}
	return out, nil
}

// Unlike takes a user's like back and appends an event. It fails with
// ErrNotFound if the user does not like the photo.
func Unlike(ctx context.Context, db *sql.DB, l Like) (outbox.Result, error) {
	e, err := LikeEvent(UnlikedPhoto, l.PhotoID, l.UserID, l.Metadata)
	if err != nil {
		return outbox.Result{}, err
	}
	var result outbox.Result
	err = postgres.CommitTx(ctx, db, func(tx *sql.Tx) error {
		gone, err := tx.ExecContext(ctx, `
			DELETE FROM posthorn.likes WHERE photo_id = $1 AND user_id = $2`, l.PhotoID, l.UserID)
		if err != nil {
			return fmt.Errorf("take back like: %w", err)
		}
		if n, err := gone.RowsAffected(); err != nil || n == 0 {
			return fmt.Errorf("take back like: %w", errors.Join(postgres.ErrNotFound, err))
		}
		results, err := outbox.AppendEach(ctx, tx, e)
		if err != nil {
			return fmt.Errorf("take back like: %w", err)
		}
		result = results[0]
		return nil
	})
	return result, err
}

// foldLikes is the one definition of the like count, for a number of photos
// over a stretch of the log: from a start c, likes and unlikes in position
// order, never below 0. With S the running sums, that ends at
// c + S_n + greatest(0, -(c + min S)).
const (
	likeSteps = `
		SELECT substr(subject, 7) AS id,
		       sum(CASE type WHEN 'LIKED_PHOTO' THEN 1 ELSE -1 END) OVER (PARTITION BY subject ORDER BY position) AS s,
		       position
		FROM posthorn.outbox
		WHERE kind = 'event' AND account = 'default' AND type IN ('LIKED_PHOTO', 'UNLIKED_PHOTO')`
	likeSums = `
		SELECT id, (array_agg(s ORDER BY position DESC))[1] AS total, min(s) AS lowest FROM steps GROUP BY id`
	likesAfter = `coalesce(p.likes, 0) + f.total + greatest(0, -(coalesce(p.likes, 0) + f.lowest))`
)

// Likes returns the like count of a photo as of everything committed: the
// projection and the events that are not projected yet.
func Likes(ctx context.Context, q postgres.Queryer, photoID string) (int64, error) {
	var likes int64
	err := q.QueryRowContext(ctx, `
		WITH steps AS (`+likeSteps+`
			AND subject = 'photo/' || $1 AND position > (SELECT position FROM posthorn.readers WHERE name = 'photos')
		), folded AS (`+likeSums+`)
		SELECT coalesce((
			SELECT `+likesAfter+` FROM folded f LEFT JOIN posthorn.photos p ON p.id = f.id
		), (SELECT likes FROM posthorn.photos WHERE id = $1), 0)::bigint`, photoID).Scan(&likes)
	if err != nil {
		return 0, postgres.Translate(fmt.Errorf("count likes: %w", err))
	}
	return likes, nil
}

// ProjectPhotos projects the next stretch of the log, at most positions long,
// into the like counts. The counts and the reader's position move together. led
// is false if another process leads.
func ProjectPhotos(ctx context.Context, db *sql.DB, horizon int64, positions int) (through int64, led bool, err error) {
	err = postgres.InTx(ctx, db, func(tx *sql.Tx) error {
		err := tx.QueryRowContext(ctx, `
			SELECT position FROM posthorn.readers WHERE name = 'photos' FOR UPDATE SKIP LOCKED`).Scan(&through)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("lead the photos: %w", err)
		}
		led = true
		after := through
		if through = min(horizon, after+int64(positions)); through <= after {
			through = after
			return nil
		}
		// left() and not LIKE, so that no plan can use the index on subjects,
		// which would read the photos' whole past for each stretch.
		if _, err := tx.ExecContext(ctx, `
			WITH steps AS (`+likeSteps+`
				AND left(subject, 6) = 'photo/' AND length(subject) > 6 AND position > $1 AND position <= $2
			), folded AS (`+likeSums+`)
			INSERT INTO posthorn.photos AS t (id, likes)
			SELECT f.id, `+likesAfter+` FROM folded f LEFT JOIN posthorn.photos p ON p.id = f.id ORDER BY f.id
			ON CONFLICT (id) DO UPDATE SET likes = excluded.likes`, after, through); err != nil {
			return fmt.Errorf("project photos: %w", err)
		}
		if _, err := tx.ExecContext(ctx, `
			UPDATE posthorn.readers SET position = $1, updated_at = clock_timestamp() WHERE name = 'photos'`, through); err != nil {
			return fmt.Errorf("move the photos' position: %w", err)
		}
		return nil
	})
	return through, led, err
}

// ResetPhotos deletes the projection and sets its reader to the beginning of
// the log. Likes stays correct meanwhile.
func ResetPhotos(ctx context.Context, db *sql.DB) error {
	return postgres.InTx(ctx, db, func(tx *sql.Tx) error {
		var whole bool
		err := tx.QueryRowContext(ctx, `SELECT to_regclass('posthorn.outbox_000000') IS NOT NULL`).Scan(&whole)
		if err != nil {
			return fmt.Errorf("look for the beginning of the log: %w", err)
		}
		if !whole {
			return ErrLogIncomplete
		}
		// Lock the row first, so that a projection in progress finishes.
		if _, err := tx.ExecContext(ctx, `
			UPDATE posthorn.readers SET position = 0, updated_at = clock_timestamp() WHERE name = 'photos'`); err != nil {
			return fmt.Errorf("reset the photos' position: %w", err)
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM posthorn.photos`); err != nil {
			return fmt.Errorf("forget the like counts: %w", err)
		}
		return nil
	})
}
