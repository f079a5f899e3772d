-- +goose Up
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '60s';

COMMENT ON TABLE posthorn.readers IS
    'The position up to which each reader has processed the log. The lock of the row of photos elects the process that counts likes; the relay that leads holds the advisory lock posthorn.lead.relay in its session, and moves its row only from the position that it expects there.';

-- +goose Down
COMMENT ON TABLE posthorn.readers IS NULL;
