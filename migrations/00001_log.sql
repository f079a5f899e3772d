-- +goose Up
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '60s';

-- The log's positions. It starts "called" at 0, so that last_value always
-- means "the last position handed out" and never "the first one to come".
CREATE SEQUENCE posthorn.outbox_position AS bigint MINVALUE 0 START 0;
SELECT setval('posthorn.outbox_position', 0, true);

-- +goose StatementBegin
-- append_lock_key tags a position as the key of an appender's advisory lock:
-- 0x5048 ("PH") in the upper 16 bits, the position in the lower 48.
CREATE FUNCTION posthorn.append_lock_key(at_position bigint) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (20552::bigint << 48) | at_position;
-- +goose StatementEnd

-- +goose StatementBegin
-- next_position draws a position for a row of the outbox. Before its first
-- draw a transaction takes a shared advisory lock on the sequence's last
-- value, so that a reader can tell from pg_locks that positions above it may
-- still commit. The lock goes away only after the commit is visible.
--
-- One lock per transaction is enough and keeps the shared lock table small;
-- the transaction-local setting remembers it. It holds the transaction's id,
-- so that nothing set for the session can switch the lock off, and it is
-- undone together with the lock when a savepoint is rolled back.
CREATE FUNCTION posthorn.next_position() RETURNS bigint
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    me text := pg_current_xact_id()::text;
BEGIN
    IF current_setting('posthorn.appender', true) IS DISTINCT FROM me THEN
        PERFORM pg_advisory_xact_lock_shared(posthorn.append_lock_key(last_value))
        FROM posthorn.outbox_position;
        PERFORM set_config('posthorn.appender', me, true);
    END IF;
    RETURN nextval('posthorn.outbox_position');
END
$$;
-- +goose StatementEnd

-- +goose StatementBegin
-- horizon is the highest position up to which the log is settled: every row
-- at or below it is committed and visible to the next statement, or will
-- never exist. The order matters: the sequence is read before the locks, and
-- the caller reads rows after both, in a statement (so a snapshot) of its own.
CREATE FUNCTION posthorn.horizon() RETURNS bigint
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    drawn bigint;
    held  bigint;
BEGIN
    SELECT last_value INTO drawn FROM posthorn.outbox_position;
    SELECT min(((classid::bigint << 32) | objid::bigint) & ((1::bigint << 48) - 1)) INTO held
    FROM pg_locks
    WHERE locktype = 'advisory' AND objsubid = 1
      AND classid::bigint >> 16 = 20552
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database());
    RETURN least(drawn, held);
END
$$;
-- +goose StatementEnd

-- +goose StatementBegin
-- uuid_v7 is a time-ordered UUID (RFC 9562, version 7), made from a random
-- version 4 with its first 48 bits replaced by the milliseconds since 1970.
CREATE FUNCTION posthorn.uuid_v7() RETURNS uuid
LANGUAGE sql VOLATILE
RETURN encode(set_bit(set_bit(overlay(
    uuid_send(gen_random_uuid())
    PLACING substring(int8send(floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint) FROM 3)
    FROM 1 FOR 6), 52, 1), 53, 1), 'hex')::uuid;
-- +goose StatementEnd

-- The outbox: append-only, the one log of events and of changes to
-- subscriptions. data holds the bytes exactly as they were given.
CREATE TABLE posthorn.outbox (
    position    bigint      NOT NULL DEFAULT posthorn.next_position(),
    -- The length apart from the pattern: counting repetitions takes the regular
    -- expression longer than all of the rest of an insert.
    id          text        NOT NULL CHECK (octet_length(id) <= 128 AND id ~ '^[!--/-~]+$'),
    kind        text        NOT NULL DEFAULT 'event' CHECK (kind IN ('event', 'subscription', 'test')),
    account     text        NOT NULL DEFAULT 'default' CHECK (octet_length(account) <= 64 AND account ~ '^[a-z0-9_-]+$'),
    type        text        NOT NULL CHECK (octet_length(type) <= 128 AND type ~ '^[A-Za-z0-9_-]+([.][A-Za-z0-9_-]+)*$'),
    subject     text        NOT NULL DEFAULT '',
    data        bytea       NOT NULL CHECK (octet_length(data) <= 1048576),
    metadata    jsonb       NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(metadata) = 'object'),
    occurred_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (position)
) PARTITION BY RANGE (position);

CREATE INDEX outbox_id ON posthorn.outbox (id);
CREATE INDEX outbox_subject ON posthorn.outbox (subject, position) WHERE subject <> '';
CREATE INDEX outbox_type ON posthorn.outbox (type, position);
CREATE INDEX outbox_recorded_at ON posthorn.outbox USING brin (recorded_at);
-- The few records that are not events, so that whoever follows only them
-- does not read through the events between.
CREATE INDEX outbox_control ON posthorn.outbox (position) WHERE kind <> 'event';

-- Ids that callers chose: the same id again is the same event, or a conflict
-- where the content differs. Generated ids need no entry.
CREATE TABLE posthorn.idempotency_keys (
    account     text        NOT NULL,
    key         text        NOT NULL,
    digest      bytea       NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (account, key)
);

-- What a reader of the log has taken in, one row per reader. The row's lock
-- elects the active one among several processes of the same kind.
CREATE TABLE posthorn.readers (
    name       text        PRIMARY KEY,
    position   bigint      NOT NULL DEFAULT 0,
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- The ledger. One row for each event owed to a subscription. A replay or a
-- redrive begins a new run of the same delivery: its attempts count from 1
-- again, and messages of earlier runs count for nothing.
CREATE TABLE posthorn.deliveries (
    position        bigint      NOT NULL,
    subscription_id uuid        NOT NULL,
    event_id        text        NOT NULL,
    status          text        NOT NULL CHECK (status IN ('pending', 'retrying', 'delivered', 'dead', 'cancelled')),
    cause           text        NOT NULL DEFAULT 'live',
    run             integer     NOT NULL DEFAULT 0,
    attempts        integer     NOT NULL DEFAULT 0,
    next_attempt_at timestamptz,
    claimed_until   timestamptz,
    last_status     integer,
    last_error      text,
    created_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at     timestamptz,
    PRIMARY KEY (position, subscription_id)
) PARTITION BY RANGE (position);

-- What the sweeper looks for; finished rows have no next attempt.
CREATE INDEX deliveries_next_attempt ON posthorn.deliveries (next_attempt_at) WHERE next_attempt_at IS NOT NULL;
CREATE INDEX deliveries_dead ON posthorn.deliveries (subscription_id, position) WHERE status = 'dead';

-- One row for each HTTP request that was made for a delivery.
CREATE TABLE posthorn.attempts (
    position         bigint      NOT NULL,
    subscription_id  uuid        NOT NULL,
    run              integer     NOT NULL DEFAULT 0,
    number           integer     NOT NULL,
    cause            text        NOT NULL,
    started_at       timestamptz NOT NULL,
    duration         interval    NOT NULL,
    status           integer,
    error_class      text        NOT NULL,
    error            text        NOT NULL DEFAULT '',
    request_headers  jsonb       NOT NULL DEFAULT '{}',
    response_headers jsonb       NOT NULL DEFAULT '{}',
    response_body    bytea       NOT NULL DEFAULT '',
    next_step        text        NOT NULL,
    -- The time is in the key because around a crash one number can be made twice.
    PRIMARY KEY (position, subscription_id, run, number, started_at)
) PARTITION BY RANGE (position);

CREATE INDEX attempts_subscription ON posthorn.attempts (subscription_id, started_at);

-- +goose StatementBegin
-- ensure_partitions makes the partitions of the log and of the ledger from
-- the one that holds the given position to `ahead` further ones. A new one is
-- made apart and then attached, which does not stop readers and writers.
CREATE FUNCTION posthorn.ensure_partitions(at_position bigint, ahead integer) RETURNS integer
LANGUAGE plpgsql AS $$
DECLARE
    width   constant bigint := 10000000;
    lo      bigint;
    part    text;
    parent  text;
    made    integer := 0;
BEGIN
    -- Nearly always everything is there, which is told without a lock.
    IF to_regclass(format('posthorn.attempts_%s', lpad((at_position / width + ahead)::text, 6, '0'))) IS NOT NULL THEN
        RETURN 0;
    END IF;
    PERFORM pg_advisory_xact_lock(hashtextextended('posthorn.ensure_partitions', 0));
    FOR i IN 0..ahead LOOP
        lo := (at_position / width + i) * width;
        FOREACH parent IN ARRAY ARRAY['outbox', 'deliveries', 'attempts'] LOOP
            part := format('%s_%s', parent, lpad((lo / width)::text, 6, '0'));
            CONTINUE WHEN to_regclass(format('posthorn.%I', part)) IS NOT NULL;
            EXECUTE format('CREATE TABLE posthorn.%I (LIKE posthorn.%I INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', part, parent);
            IF parent = 'deliveries' THEN
                -- Each row is written once and updated once: room for it on its page.
                EXECUTE format('ALTER TABLE posthorn.%I SET (fillfactor = 70)', part);
            END IF;
            EXECUTE format('ALTER TABLE posthorn.%I ATTACH PARTITION posthorn.%I FOR VALUES FROM (%s) TO (%s)', parent, part, lo, lo + width);
            made := made + 1;
        END LOOP;
    END LOOP;
    RETURN made;
END
$$;
-- +goose StatementEnd

SELECT posthorn.ensure_partitions(0, 3);

-- +goose StatementBegin
-- event_digest tells whether two events under one id are the same event.
-- The time counts only where the caller gave one.
CREATE FUNCTION posthorn.event_digest(type text, subject text, data text, occurred_at timestamptz) RETURNS bytea
LANGUAGE sql STABLE
RETURN sha256(convert_to(json_build_array(type, subject, data, extract(epoch FROM occurred_at))::text, 'UTF8'));
-- +goose StatementEnd

-- +goose StatementBegin
-- append_events appends a batch in the given order, in the caller's
-- transaction. keyed marks ids that the caller chose: one that was used
-- before appends nothing and comes back as 'existing', or as 'conflict'
-- where its content differs. One row is returned for each event given.
CREATE FUNCTION posthorn.append_events(
    ids text[], keyed boolean[], accounts text[], types text[], subjects text[],
    data text[], metadata text[], occurred_at timestamptz[]
) RETURNS TABLE (ordinal bigint, "position" bigint, id text, occurred timestamptz, recorded timestamptz, outcome text)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    fresh text[];
BEGIN
    IF NOT true = ANY (keyed) THEN
        RETURN QUERY
        WITH appended AS (
            INSERT INTO posthorn.outbox (id, account, type, subject, data, metadata, occurred_at)
            SELECT g.id, g.account, g.type, g.subject, convert_to(g.data, 'UTF8'), g.metadata::jsonb,
                   coalesce(g.occurred_at, clock_timestamp())
            FROM unnest(ids, accounts, types, subjects, data, metadata, occurred_at)
                WITH ORDINALITY AS g(id, account, type, subject, data, metadata, occurred_at, ordinal)
            ORDER BY g.ordinal
            RETURNING outbox.position, outbox.id, outbox.occurred_at, outbox.recorded_at
        )
        SELECT row_number() OVER (ORDER BY a.position), a.position, a.id, a.occurred_at, a.recorded_at, 'appended'
        FROM appended a ORDER BY a.position;
        RETURN;
    END IF;

    -- Keys first, in one order for everybody, so that two batches that share
    -- keys wait for each other instead of deadlocking.
    WITH given AS (
        SELECT DISTINCT ON (g.account, g.id) g.account, g.id,
               posthorn.event_digest(g.type, g.subject, g.data, g.occurred_at) AS digest
        FROM unnest(ids, keyed, accounts, types, subjects, data, occurred_at)
            WITH ORDINALITY AS g(id, keyed, account, type, subject, data, occurred_at, ordinal)
        WHERE g.keyed
        ORDER BY g.account, g.id, g.ordinal
    ), claimed AS (
        INSERT INTO posthorn.idempotency_keys (account, key, digest)
        SELECT account, id, digest FROM given ORDER BY account, id
        ON CONFLICT DO NOTHING
        RETURNING account, key
    )
    SELECT coalesce(array_agg(account || E'\n' || key), '{}') INTO fresh FROM claimed;

    -- The statement below has a new snapshot: what a concurrent transaction
    -- committed under one of the keys while we waited for it is visible.
    RETURN QUERY
    WITH given AS MATERIALIZED (
        SELECT g.*, row_number() OVER (PARTITION BY g.keyed, g.account, g.id ORDER BY g.ordinal) = 1 AS first
        FROM unnest(ids, keyed, accounts, types, subjects, data, metadata, occurred_at)
            WITH ORDINALITY AS g(id, keyed, account, type, subject, data, metadata, occurred_at, ordinal)
    ), appended AS (
        INSERT INTO posthorn.outbox (id, account, type, subject, data, metadata, occurred_at)
        SELECT g.id, g.account, g.type, g.subject, convert_to(g.data, 'UTF8'), g.metadata::jsonb,
               coalesce(g.occurred_at, clock_timestamp())
        FROM given g
        WHERE NOT g.keyed OR (g.first AND g.account || E'\n' || g.id = ANY (fresh))
        ORDER BY g.ordinal
        RETURNING outbox.position, outbox.account, outbox.id, outbox.occurred_at, outbox.recorded_at
    )
    SELECT g.ordinal, coalesce(a.position, o.position), g.id,
           coalesce(a.occurred_at, o.occurred_at), coalesce(a.recorded_at, o.recorded_at),
           CASE
               WHEN NOT g.keyed OR (a.id IS NOT NULL AND g.first) THEN 'appended'
               WHEN posthorn.event_digest(g.type, g.subject, g.data, g.occurred_at) = coalesce(k.digest, f.digest) THEN 'existing'
               ELSE 'conflict'
           END
    FROM given g
    LEFT JOIN appended a ON a.account = g.account AND a.id = g.id
    LEFT JOIN posthorn.outbox o ON a.id IS NULL AND o.id = g.id AND o.account = g.account
    LEFT JOIN posthorn.idempotency_keys k ON g.keyed AND k.account = g.account AND k.key = g.id
    LEFT JOIN LATERAL (
        SELECT posthorn.event_digest(b.type, b.subject, b.data, b.occurred_at) AS digest
        FROM given b WHERE b.first AND b.keyed AND b.account = g.account AND b.id = g.id
    ) f ON g.keyed AND NOT g.first
    ORDER BY g.ordinal;
END
$$;
-- +goose StatementEnd

-- +goose StatementBegin
-- append_event appends one event, in the caller's transaction, from any
-- language, and returns its id. An id given twice appends once; it is an
-- error where the content differs.
CREATE FUNCTION posthorn.append_event(
    type text, subject text DEFAULT '', data json DEFAULT 'null', id text DEFAULT NULL,
    account text DEFAULT 'default', occurred_at timestamptz DEFAULT NULL, metadata jsonb DEFAULT '{}'
) RETURNS text
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    got record;
BEGIN
    SELECT * INTO got FROM posthorn.append_events(
        ARRAY[coalesce(append_event.id, 'evt_' || posthorn.uuid_v7())], ARRAY[append_event.id IS NOT NULL],
        ARRAY[append_event.account], ARRAY[append_event.type], ARRAY[append_event.subject],
        ARRAY[append_event.data::text], ARRAY[append_event.metadata::text], ARRAY[append_event.occurred_at]);
    IF got.outcome = 'conflict' THEN
        RAISE EXCEPTION 'event id % is taken by an event with other content', got.id
            USING ERRCODE = 'unique_violation', CONSTRAINT = 'idempotency_keys_pkey';
    END IF;
    RETURN got.id;
END
$$;
-- +goose StatementEnd

-- +goose Down
DROP FUNCTION posthorn.append_event, posthorn.append_events, posthorn.event_digest, posthorn.ensure_partitions, posthorn.horizon;
DROP TABLE posthorn.attempts, posthorn.deliveries, posthorn.readers, posthorn.idempotency_keys, posthorn.outbox;
DROP FUNCTION posthorn.uuid_v7, posthorn.next_position, posthorn.append_lock_key;
DROP SEQUENCE posthorn.outbox_position;
