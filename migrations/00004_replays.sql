-- +goose Up
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '60s';

-- Past events to be delivered again, to one subscription. The leading relay
-- works through the positions above from_position, up to to_position, and
-- moves position in the transaction that begins the new runs.
CREATE TABLE posthorn.replays (
    id              uuid        PRIMARY KEY,
    account         text        NOT NULL DEFAULT 'default',
    subscription_id uuid        NOT NULL REFERENCES posthorn.subscriptions (id),
    cause           text        NOT NULL CHECK (cause IN ('replay', 'redrive')),
    from_position   bigint      NOT NULL,
    to_position     bigint      NOT NULL,
    -- What is selected; NULL selects all. positions are those of event_ids,
    -- or of deliveries that were named.
    from_time       timestamptz,
    to_time         timestamptz,
    event_types     text[],
    subjects        text[],
    event_ids       text[],
    positions       bigint[],
    only_dead       boolean     NOT NULL DEFAULT false,
    -- Which dead ones, where not all.
    error_class     text,
    last_status     integer,
    dead_since      timestamptz,
    dead_until      timestamptz,
    -- subscription: only what the subscription's event types match as they
    -- are when it is replayed; none: they do not count.
    filter          text        NOT NULL DEFAULT 'subscription' CHECK (filter IN ('subscription', 'none')),
    rate            integer     CHECK (rate > 0),
    status          text        NOT NULL DEFAULT 'running' CHECK (status IN ('running', 'paused', 'cancelled', 'done', 'failed')),
    position        bigint      NOT NULL,
    matched         bigint      NOT NULL DEFAULT 0,
    sent            bigint      NOT NULL DEFAULT 0,
    skipped         bigint      NOT NULL DEFAULT 0,
    error           text        NOT NULL DEFAULT '',
    created_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at     timestamptz
);

CREATE INDEX replays_running ON posthorn.replays (id) WHERE status = 'running';
CREATE INDEX replays_subscription ON posthorn.replays (subscription_id, id);

-- Subscriptions whose dead letters were redriven or purged: if none is left,
-- the leading relay empties the queue that shows them.
CREATE TABLE posthorn.dead_queue_checks (
    subscription_id uuid        PRIMARY KEY,
    asked_at        timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- +goose Down
DROP TABLE posthorn.dead_queue_checks, posthorn.replays;
