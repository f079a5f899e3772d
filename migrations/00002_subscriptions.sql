-- +goose Up
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '60s';

-- A URL and the event types that it wants. Each change is a record of the
-- log too (kind 'subscription'), which is what the relay and the deliveries
-- act on; deleted ones stay, so that an old event can still be explained.
CREATE TABLE posthorn.subscriptions (
    id                    uuid        PRIMARY KEY,
    account               text        NOT NULL DEFAULT 'default',
    url                   text        NOT NULL,
    event_types           text[]      NOT NULL CHECK (cardinality(event_types) BETWEEN 1 AND 50),
    description           text        NOT NULL DEFAULT '',
    status                text        NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'paused', 'disabled', 'deleted')),
    retry_schedule        interval[],
    timeout               interval    NOT NULL DEFAULT '15s',
    max_in_flight         integer     NOT NULL DEFAULT 8,
    secret                bytea       NOT NULL,
    previous_secret       bytea,
    previous_secret_until timestamptz,
    since                 bigint      NOT NULL DEFAULT 0,
    version               integer     NOT NULL DEFAULT 1,
    created_at            timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at            timestamptz NOT NULL DEFAULT clock_timestamp(),
    deleted_at            timestamptz
);

-- Ids sort by the time at which they were made, so lists go by id.
CREATE INDEX subscriptions_listed ON posthorn.subscriptions (account, id);

-- Whoever delivers looks for changes by time.
CREATE INDEX subscriptions_updated ON posthorn.subscriptions (updated_at);

-- What a subscription was at a position: its last record before it.
CREATE INDEX outbox_subscription ON posthorn.outbox (subject, position) WHERE kind = 'subscription';

-- The relay's view of the subscriptions as of its position in the log,
-- written in the transaction that moves the position. since is the position
-- of the record that created it: earlier events are not its own.
CREATE TABLE posthorn.routes (
    subscription_id uuid   PRIMARY KEY,
    account         text   NOT NULL,
    event_types     text[] NOT NULL,
    status          text   NOT NULL,
    since           bigint NOT NULL
);

-- +goose StatementBegin
-- position_since is the first position that was recorded at or after the
-- given time, or the next one to come. It halves the log instead of reading
-- it: the times rise with the positions, but for the moment between the two
-- being taken, so ask for a little more and look at the times of the rows.
CREATE FUNCTION posthorn.position_since(at timestamptz) RETURNS bigint
LANGUAGE plpgsql STABLE AS $$
DECLARE
    lo  bigint;
    hi  bigint;
    mid bigint;
    row record;
BEGIN
    SELECT last_value + 1 INTO hi FROM posthorn.outbox_position;
    SELECT o.position INTO lo FROM posthorn.outbox o ORDER BY o.position LIMIT 1;
    lo := coalesce(lo, hi);
    WHILE lo < hi LOOP
        mid := lo + (hi - lo) / 2;
        SELECT o.position, o.recorded_at INTO row
        FROM posthorn.outbox o WHERE o.position >= mid ORDER BY o.position LIMIT 1;
        IF row.position IS NULL OR row.recorded_at >= at THEN
            hi := mid;
        ELSE
            lo := row.position + 1;
        END IF;
    END LOOP;
    RETURN lo;
END
$$;
-- +goose StatementEnd

-- +goose Down
DROP FUNCTION posthorn.position_since;
DROP INDEX posthorn.outbox_subscription;
DROP TABLE posthorn.routes, posthorn.subscriptions;
