-- +goose Up
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '60s';

-- The broker has lost its messages, and what was entered in the ledger before this time and has not
-- ended is yet to be sent again. It is set before the broker is given a new memory, so that a relay
-- that crashes between leaves the work to its successor.
ALTER TABLE posthorn.readers ADD COLUMN resend_before timestamptz;

-- +goose Down
ALTER TABLE posthorn.readers DROP COLUMN resend_before;
