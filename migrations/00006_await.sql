-- +goose Up
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '60s';

-- +goose StatementBegin
-- await_horizon waits until the log is settled beyond a position and returns
-- the horizon, or the position itself where that has not happened in time. It
-- looks every step here, in the server, which costs a hundredth of what asking
-- from outside does. The caller reads the rows in a later statement.
CREATE FUNCTION posthorn.await_horizon(beyond bigint, step interval, patience interval) RETURNS bigint
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    until   timestamptz := clock_timestamp() + patience;
    seconds double precision := extract(epoch FROM step);
    drawn   bigint;
    settled bigint;
BEGIN
    LOOP
        SELECT last_value INTO drawn FROM posthorn.outbox_position;
        IF drawn > beyond THEN
            settled := posthorn.horizon();
            IF settled > beyond THEN
                RETURN settled;
            END IF;
        END IF;
        IF clock_timestamp() >= until THEN
            RETURN beyond;
        END IF;
        PERFORM pg_sleep(seconds);
    END LOOP;
END
$$;
-- +goose StatementEnd

-- +goose Down
DROP FUNCTION posthorn.await_horizon;
