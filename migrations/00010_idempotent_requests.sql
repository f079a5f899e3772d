-- +goose Up
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '60s';

-- Requests that a client marked with an Idempotency-Key and that succeeded: the
-- same one again gets the same answer. A row is committed together with what
-- its request did. The answer, which may hold a signing secret, is sealed.
CREATE TABLE posthorn.idempotent_requests (
    account     text        NOT NULL,
    key         text        NOT NULL,
    fingerprint bytea       NOT NULL,
    status      integer     NOT NULL,
    answer      bytea       NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (account, key)
);

CREATE INDEX idempotent_requests_created_at ON posthorn.idempotent_requests (created_at);

-- +goose Down
DROP TABLE posthorn.idempotent_requests;
