-- +goose Up
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '60s';

-- Not validated, so that a log which has longer types already can be migrated;
-- what is appended from here on is checked.
ALTER TABLE posthorn.outbox ADD CONSTRAINT outbox_type_words
    CHECK (length(type) - length(replace(type, '.', '')) < 16) NOT VALID;

ALTER TABLE posthorn.subscriptions
    DROP CONSTRAINT subscriptions_event_types_check,
    ADD CONSTRAINT subscriptions_event_types_count CHECK (cardinality(event_types) BETWEEN 1 AND 250);

-- +goose StatementBegin
-- pattern_allowed tells whether a pattern is within what events.ParsePattern
-- returns: its grammar, at most 16 words and at most two "#".
CREATE FUNCTION posthorn.pattern_allowed(pattern text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN octet_length(pattern) <= 128
   AND pattern ~ '^([A-Za-z0-9_-]+|[*#])([.]([A-Za-z0-9_-]+|[*#]))*$'
   AND length(pattern) - length(replace(pattern, '.', '')) < 16
   AND length(pattern) - length(replace(pattern, '#', '')) <= 2;
-- +goose StatementEnd

-- +goose StatementBegin
-- check_event_types refuses patterns beyond the limits. Those that were stored
-- before there were limits stay, or their subscriptions could not be changed.
CREATE FUNCTION posthorn.check_event_types() RETURNS trigger
LANGUAGE plpgsql AS $$
DECLARE
    refused text;
BEGIN
    SELECT p INTO refused FROM unnest(NEW.event_types) AS p
    WHERE NOT posthorn.pattern_allowed(p) AND (TG_OP = 'INSERT' OR NOT p = ANY (OLD.event_types))
    LIMIT 1;
    IF refused IS NOT NULL THEN
        RAISE EXCEPTION 'event type % is not allowed: want at most 16 words and two "#"', quote_literal(left(refused, 128))
            USING ERRCODE = 'check_violation', CONSTRAINT = 'subscriptions_event_types';
    END IF;
    RETURN NEW;
END
$$;
-- +goose StatementEnd

CREATE TRIGGER subscriptions_event_types BEFORE INSERT OR UPDATE OF event_types ON posthorn.subscriptions
    FOR EACH ROW EXECUTE FUNCTION posthorn.check_event_types();

-- Records that the relay has passed without forwarding them as it should. One
-- that is held reaches nobody until an operator retries or drops it; one that
-- was rerouted went to each subscription's queue, around the exchange that
-- did not take it.
CREATE TABLE posthorn.quarantine (
    position     bigint      PRIMARY KEY,
    kind         text        NOT NULL,
    account      text        NOT NULL,
    event_id     text        NOT NULL,
    reason       text        NOT NULL,
    status       text        NOT NULL CHECK (status IN ('held', 'rerouted', 'released', 'dropped')),
    set_aside_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at   timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- The few that an operator has yet to look at.
CREATE INDEX quarantine_open ON posthorn.quarantine (position) WHERE status IN ('held', 'rerouted');

-- +goose Down
DROP TABLE posthorn.quarantine;
DROP TRIGGER subscriptions_event_types ON posthorn.subscriptions;
DROP FUNCTION posthorn.check_event_types, posthorn.pattern_allowed;
ALTER TABLE posthorn.subscriptions
    DROP CONSTRAINT subscriptions_event_types_count,
    ADD CONSTRAINT subscriptions_event_types_check CHECK (cardinality(event_types) BETWEEN 1 AND 50) NOT VALID;
ALTER TABLE posthorn.outbox DROP CONSTRAINT outbox_type_words;
