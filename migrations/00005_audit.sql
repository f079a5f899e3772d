-- +goose Up
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '60s';

-- +goose StatementBegin
-- type_matches tells whether a pattern selects an event type, as a topic
-- exchange would: "*" is one word, "#" any number of them. The pattern becomes
-- a regular expression: each word with its dot before it.
CREATE FUNCTION posthorn.type_matches(pattern text, type text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN strpos(pattern, '*') = 0 AND strpos(pattern, '#') = 0 THEN pattern = type
    ELSE ('.' || type) ~ ('^' || replace(replace(replace(
        '.' || pattern, '.', '\.'), '\.#', '(\.[^.]+)*'), '\.*', '\.[^.]+') || '$')
END;
-- +goose StatementEnd

-- +goose Down
DROP FUNCTION posthorn.type_matches;
