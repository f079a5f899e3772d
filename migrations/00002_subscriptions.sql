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
    version               integer     NOT NULL DEFAULT 1,
    created_at            timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at            timestamptz NOT NULL DEFAULT clock_timestamp(),
    deleted_at            timestamptz
);

CREATE INDEX subscriptions_listed ON posthorn.subscriptions (account, created_at, id) WHERE status <> 'deleted';

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

-- +goose Down
DROP TABLE posthorn.routes, posthorn.subscriptions;
