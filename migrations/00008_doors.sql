-- +goose Up
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '60s';

-- What a CloudEvent says beyond the columns, by the names of the CloudEvents
-- specification: source, dataschema, datacontenttype, extensions, and its id
-- at its source where the record has another one.
ALTER TABLE posthorn.outbox ADD COLUMN attributes jsonb NOT NULL DEFAULT '{}';

-- +goose StatementBegin
-- media_is_json tells whether data of a content type is JSON. Without one it is.
-- What a constraint calls is in plpgsql: Postgres tries to inline functions in
-- SQL whenever it prepares the constraints, which costs more than the checks.
CREATE FUNCTION posthorn.media_is_json(content_type text) RETURNS boolean
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
    RETURN content_type IS NULL OR lower(content_type) ~ '^[ \t]*(application/json|text/json|[^;]*[+]json)[ \t]*(;|$)';
END
$$;
-- +goose StatementEnd

-- +goose StatementBegin
-- attributes_allowed is what events.Event.Validate asks of the fields that the
-- attributes are made of.
CREATE FUNCTION posthorn.attributes_allowed(attributes jsonb) RETURNS boolean
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
    RETURN jsonb_typeof(attributes) = 'object' AND octet_length((attributes - 'id')::text) <= 15360 AND (
    SELECT coalesce(bool_and(CASE
        WHEN a.name IN ('id', 'source', 'dataschema', 'datacontenttype') AND jsonb_typeof(a.value) <> 'string' THEN false
        WHEN a.name = 'id' THEN attributes ? 'source' AND octet_length(a.value #>> '{}') BETWEEN 1 AND 1024
        WHEN a.name = 'source' THEN octet_length(a.value #>> '{}') <= 1024
            AND a.value #>> '{}' ~ '^([A-Za-z0-9._~:/?#@!$&''()*+,;=-]|\[|\]|%[0-9A-Fa-f]{2})+$'
        WHEN a.name = 'dataschema' THEN octet_length(a.value #>> '{}') <= 1024
            AND a.value #>> '{}' ~ '^[A-Za-z][A-Za-z0-9+.-]*:([A-Za-z0-9._~:/?#@!$&''()*+,;=-]|\[|\]|%[0-9A-Fa-f]{2})+$'
        WHEN a.name = 'datacontenttype' THEN octet_length(a.value #>> '{}') <= 256
            AND a.value #>> '{}' ~ '^[A-Za-z0-9!#$&^_.+-]+/[A-Za-z0-9!#$&^_.+-]+([ \t]*;[\t -~]*)?$'
        WHEN a.name IN ('specversion', 'type', 'subject', 'time', 'data') OR a.name !~ '^[a-z0-9]+$' OR octet_length(a.name) > 64 THEN false
        WHEN jsonb_typeof(a.value) = 'number' THEN (a.value #>> '{}')::numeric BETWEEN -2147483648 AND 2147483647
            AND (a.value #>> '{}')::numeric % 1 = 0
        ELSE jsonb_typeof(a.value) IN ('string', 'boolean')
    END), true)
    FROM jsonb_each(attributes) AS a(name, value));
END
$$;
-- +goose StatementEnd

-- +goose StatementBegin
-- depth_allowed tells whether JSON is nested at most 63 levels deep, which makes
-- 64 of the body that subscribers get. With few brackets it cannot be deeper;
-- jsonb is made of the others only.
CREATE FUNCTION posthorn.depth_allowed(data bytea) RETURNS boolean
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
    RETURN octet_length(data) - octet_length(replace(replace(convert_from(data, 'UTF8'), '[', ''), '{', '')) <= 63
        OR NOT jsonb_path_exists(convert_from(data, 'UTF8')::jsonb, 'strict $.**{63} ? (@.type() == "object" || @.type() == "array")');
END
$$;
-- +goose StatementEnd

-- The rules of the HTTP API as those of the table. Not validated: a log that
-- an older version has let other records into can be migrated, and is read all
-- the same. A new partition has them from its beginning.
ALTER TABLE posthorn.outbox
    ADD CONSTRAINT outbox_subject_is_at_most_512_bytes CHECK (octet_length(subject) <= 512) NOT VALID,
    ADD CONSTRAINT outbox_occurred_at_is_in_the_years_1_to_9999
        CHECK (occurred_at > '0001-01-01 00:00:00+00' AND occurred_at < '10000-01-01 00:00:00+00') NOT VALID,
    ADD CONSTRAINT outbox_recorded_at_is_in_the_years_1_to_9999
        CHECK (recorded_at > '0001-01-01 00:00:00+00' AND recorded_at < '10000-01-01 00:00:00+00') NOT VALID,
    ADD CONSTRAINT outbox_metadata_is_strings_of_at_most_8192_bytes
        CHECK (metadata = '{}' OR octet_length(metadata::text) <= 8192
               AND NOT jsonb_path_exists(metadata, 'strict $.* ? (@.type() != "string")')) NOT VALID,
    ADD CONSTRAINT outbox_attributes_are_those_of_a_cloudevent
        CHECK (attributes = '{}' OR posthorn.attributes_allowed(attributes)) NOT VALID,
    ADD CONSTRAINT outbox_data_is_json_nested_at_most_63_levels_deep
        CHECK (CASE WHEN attributes = '{}' OR posthorn.media_is_json(attributes ->> 'datacontenttype')
               THEN convert_from(data, 'UTF8')::json IS NOT NULL AND (octet_length(data) < 128 OR posthorn.depth_allowed(data))
               ELSE true END) NOT VALID;

-- +goose StatementBegin
-- check_json refuses data that does not mean the same to every reader (RFC
-- 7493), as the HTTP API does: a name given twice in one object, a NUL
-- character or half of a surrogate pair (which jsonb refuses), a number beyond
-- a double.
CREATE FUNCTION posthorn.check_json(data bytea) RETURNS void
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    doc     jsonb;
    outside text;
BEGIN
    BEGIN
        doc := convert_from(data, 'UTF8');
    EXCEPTION WHEN data_exception OR program_limit_exceeded THEN
        RAISE EXCEPTION 'data: want one JSON value in UTF-8: %', SQLERRM USING ERRCODE = 'check_violation';
    END;
    IF jsonb_path_exists(doc, 'strict $.**{63} ? (@.type() == "object" || @.type() == "array")') THEN
        RAISE EXCEPTION 'data: is nested deeper than 63 levels' USING ERRCODE = 'check_violation';
    END IF;
    outside := regexp_replace(convert_from(data, 'UTF8'), '"(?:[^"\\]|\\.)*"', '', 'g');
    IF length(outside) - length(replace(outside, ':', '')) <>
       jsonb_array_length(jsonb_path_query_array(doc, 'strict $.** ? (@.type() == "object").keyvalue()')) THEN
        RAISE EXCEPTION 'data: a name is given twice in one object' USING ERRCODE = 'check_violation';
    END IF;
    IF outside ~ '[eE]-0*[1-9][0-9]{4}' OR outside ~ '[0-9]{255}|[eE][+]?0*[1-9][0-9]{2}' AND EXISTS (
        -- Halfway between the greatest double and the one that would come after it.
        SELECT FROM regexp_matches(outside, '[0-9][0-9.]*(?:[eE][+-]?[0-9]+)?', 'g') AS n
        WHERE n[1]::numeric >= 2::numeric ^ 1024 - 2::numeric ^ 970) THEN
        RAISE EXCEPTION 'data: a number is out of range' USING ERRCODE = 'check_violation';
    END IF;
END
$$;
-- +goose StatementEnd

-- +goose StatementBegin
-- derived_id is the id of an event whose own one cannot be a webhook-id, or is
-- taken by an event of another source.
CREATE FUNCTION posthorn.derived_id(source text, id text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN 'ce_' || encode(sha256(convert_to(source, 'UTF8') || '\x00' || convert_to(id, 'UTF8')), 'hex');
-- +goose StatementEnd

-- +goose StatementBegin
-- comparable_attributes are the attributes that tell two events under one id
-- apart. Extensions do not: a trace context may differ from try to try.
CREATE FUNCTION posthorn.comparable_attributes(attributes jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN attributes = '{}' THEN attributes ELSE jsonb_strip_nulls(jsonb_build_object(
    'source', attributes -> 'source',
    'datacontenttype', nullif(lower(attributes ->> 'datacontenttype'), 'application/json'))) END;
-- +goose StatementEnd

DROP FUNCTION posthorn.event_digest;

-- +goose StatementBegin
-- event_digest tells whether two events under one id are the same event, where
-- the log no longer has the first one. The time counts only where the caller
-- gave one.
CREATE FUNCTION posthorn.event_digest(type text, subject text, data bytea, occurred_at timestamptz, attributes jsonb) RETURNS bytea
LANGUAGE sql STABLE
RETURN sha256(convert_to(CASE WHEN attributes = '{}'
    THEN json_build_array(type, subject, convert_from(data, 'UTF8'), extract(epoch FROM occurred_at))
    ELSE json_build_array(type, subject, encode(data, 'hex'), extract(epoch FROM occurred_at), attributes)
END::text, 'UTF8'));
-- +goose StatementEnd

-- An event as append_events was given it. identity is what is unique: the
-- account's id, or derived_id where the event has a source; id is what the
-- record is to have as its id if that is free.
CREATE TYPE posthorn.given_event AS (
    ordinal bigint, keyed boolean, account text, id text, identity text, source_id text, type text, subject text,
    data bytea, metadata jsonb, attributes jsonb, occurred_at timestamptz
);

-- +goose StatementBegin
-- identity_of is the identity of a record of the log. Before there were
-- attributes the source was kept in the metadata.
CREATE FUNCTION posthorn.identity_of(id text, attributes jsonb, metadata jsonb) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN attributes = '{}' AND NOT metadata ? 'ce_source' THEN id
    ELSE coalesce(posthorn.derived_id(coalesce(attributes ->> 'source', metadata ->> 'ce_source'), coalesce(attributes ->> 'id', id)), id) END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE FUNCTION posthorn.given_events(
    ids text[], keyed boolean[], accounts text[], types text[], subjects text[],
    data text[], metadata text[], occurred_at timestamptz[], attributes text[], data_bytes bytea[]
) RETURNS posthorn.given_event[]
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
BEGIN
    RETURN array_agg(ROW(
        n.ordinal, n.keyed, n.account,
        CASE WHEN n.source IS NULL OR octet_length(n.id) <= 128 AND n.id ~ '^[!--/-~]+$' THEN n.id ELSE n.identity END,
        coalesce(n.identity, n.id), n.source_id, n.type, n.subject, n.data, n.metadata, n.attributes, n.occurred_at
    )::posthorn.given_event ORDER BY n.ordinal)
    FROM (
        SELECT m.*, posthorn.derived_id(m.source, m.source_id) AS identity
        FROM (
            SELECT g.ordinal, g.keyed, g.account, g.type, g.subject, g.occurred_at, i.id,
                   a.attributes ->> 'source' AS source,
                   CASE WHEN a.attributes ? 'source' THEN coalesce(a.attributes ->> 'id', i.id) END AS source_id,
                   coalesce(g.bytes, convert_to(g.data, 'UTF8')) AS data, g.metadata::jsonb AS metadata, a.attributes - 'id' AS attributes
            FROM unnest(ids, keyed, accounts, types, subjects, data, metadata, occurred_at, attributes, data_bytes)
                WITH ORDINALITY AS g(id, keyed, account, type, subject, data, metadata, occurred_at, attributes, bytes, ordinal),
                LATERAL (SELECT CASE WHEN g.keyed THEN g.id ELSE 'evt_' || posthorn.uuid_v7() END AS id) i,
                LATERAL (SELECT CASE WHEN g.keyed THEN coalesce(g.attributes::jsonb, '{}')
                                     ELSE coalesce(g.attributes::jsonb - 'id', '{}') END AS attributes) a
        ) m
    ) n;
END
$$;
-- +goose StatementEnd

-- +goose StatementBegin
-- claim_ids enters the ids that the log does not have among the keys, in one
-- order for everybody, so that two batches that share ids wait for each other
-- instead of deadlocking. It returns those that nobody else had claimed. The
-- log is asked too, since ids that were generated have no entry.
CREATE FUNCTION posthorn.claim_ids(given posthorn.given_event[]) RETURNS text[]
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    fresh text[];
BEGIN
    WITH first AS MATERIALIZED (
        SELECT DISTINCT ON (g.account, g.identity) g.*
        FROM unnest(given) AS g WHERE g.keyed ORDER BY g.account, g.identity, g.ordinal
    ), there AS MATERIALIZED (
        SELECT o.account, o.id, posthorn.identity_of(o.id, o.attributes, o.metadata) AS identity
        FROM posthorn.outbox o WHERE o.id = ANY (ARRAY(SELECT f.id FROM first f UNION SELECT f.identity FROM first f))
    ), wanted AS (
        SELECT f.account, k.key, f.ordinal,
               posthorn.event_digest(f.type, f.subject, f.data, f.occurred_at, posthorn.comparable_attributes(f.attributes)) AS digest
        FROM first f CROSS JOIN LATERAL unnest(CASE WHEN f.identity = f.id THEN ARRAY[f.id] ELSE ARRAY[f.id, f.identity] END) AS k(key)
        WHERE NOT EXISTS (SELECT FROM there t WHERE t.account = f.account AND t.identity = f.identity)
          AND NOT EXISTS (SELECT FROM there t WHERE t.account = f.account AND t.id = k.key)
    ), claimed AS (
        INSERT INTO posthorn.idempotency_keys (account, key, digest)
        SELECT DISTINCT ON (w.account, w.key) w.account, w.key, w.digest FROM wanted w ORDER BY w.account, w.key, w.ordinal
        ON CONFLICT DO NOTHING
        RETURNING account, key
    )
    SELECT coalesce(array_agg(c.account || E'\n' || c.key), '{}') INTO fresh FROM claimed c;
    RETURN fresh;
END
$$;
-- +goose StatementEnd

-- +goose StatementBegin
-- append_given appends those of the events whose ids are fresh. Its statements
-- have a new snapshot: what a concurrent transaction committed under one of the
-- ids while claim_ids waited for it is visible.
CREATE FUNCTION posthorn.append_given(given posthorn.given_event[], fresh text[])
RETURNS TABLE (ordinal bigint, "position" bigint, id text, occurred timestamptz, recorded timestamptz, outcome text)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
BEGIN
    -- Nearly always all of them are, which takes a quarter of the time.
    IF cardinality(fresh) = (SELECT count(*) + count(*) FILTER (WHERE g.identity <> g.id) FROM unnest(given) AS g WHERE g.keyed) THEN
        RETURN QUERY
        WITH appended AS (
            INSERT INTO posthorn.outbox (id, account, type, subject, data, metadata, attributes, occurred_at)
            SELECT g.id, g.account, g.type, g.subject, g.data, g.metadata,
                   CASE WHEN g.source_id <> g.id THEN g.attributes || jsonb_build_object('id', g.source_id) ELSE g.attributes END,
                   coalesce(g.occurred_at, clock_timestamp())
            FROM unnest(given) AS g ORDER BY g.ordinal
            RETURNING outbox.position, outbox.id, outbox.occurred_at, outbox.recorded_at
        )
        SELECT row_number() OVER (ORDER BY a.position), a.position, a.id, a.occurred_at, a.recorded_at, 'appended'
        FROM appended a ORDER BY a.position;
        RETURN;
    END IF;
    RETURN QUERY
    WITH claimed AS MATERIALIZED (
        SELECT DISTINCT f.name FROM unnest(fresh) AS f(name)
    ), tried AS (
        SELECT g.*, i.name IS NOT NULL AS free,
               n.name IS NOT NULL AND row_number() OVER (PARTITION BY g.keyed, g.account, g.identity ORDER BY g.ordinal) = 1 AS new
        FROM unnest(given) AS g
        LEFT JOIN claimed i ON g.keyed AND i.name = g.account || E'\n' || g.id
        LEFT JOIN claimed n ON g.keyed AND n.name = g.account || E'\n' || g.identity
    ), placed AS MATERIALIZED (
        SELECT t.*, CASE
            WHEN NOT t.keyed THEN t.id
            WHEN NOT t.new THEN NULL
            WHEN t.free AND row_number() OVER (PARTITION BY t.account, t.id, t.new ORDER BY t.ordinal) = 1 THEN t.id
            WHEN t.identity <> t.id THEN t.identity
        END AS new_id
        FROM tried t
    ), appended AS (
        INSERT INTO posthorn.outbox (id, account, type, subject, data, metadata, attributes, occurred_at)
        SELECT p.new_id, p.account, p.type, p.subject, p.data, p.metadata,
               CASE WHEN p.source_id <> p.new_id THEN p.attributes || jsonb_build_object('id', p.source_id) ELSE p.attributes END,
               coalesce(p.occurred_at, clock_timestamp())
        FROM placed p WHERE p.new_id IS NOT NULL ORDER BY p.ordinal
        RETURNING outbox.position, outbox.kind, outbox.id, outbox.account, outbox.type, outbox.subject, outbox.data, outbox.attributes,
                  outbox.metadata, outbox.occurred_at, outbox.recorded_at
    ), known AS MATERIALIZED (
        SELECT k.*, posthorn.identity_of(k.id, k.attributes, k.metadata) AS identity
        FROM (
            SELECT * FROM appended
            UNION ALL
            SELECT o.position, o.kind, o.id, o.account, o.type, o.subject, o.data, o.attributes, o.metadata, o.occurred_at, o.recorded_at
            FROM posthorn.outbox o WHERE o.id = ANY (ARRAY(
                SELECT p.id FROM placed p WHERE p.new_id IS NULL UNION SELECT p.identity FROM placed p WHERE p.new_id IS NULL))
        ) k
    ), same AS (
        SELECT DISTINCT ON (k.account, k.identity) k.* FROM known k ORDER BY k.account, k.identity, k.position
    ), taken AS (
        SELECT DISTINCT ON (k.account, k.id) k.* FROM known k ORDER BY k.account, k.id, k.position
    )
    SELECT p.ordinal, coalesce(s.position, t.position), coalesce(s.id, p.id), coalesce(s.occurred_at, t.occurred_at),
           coalesce(s.recorded_at, t.recorded_at),
           CASE
               WHEN p.new_id IS NOT NULL THEN 'appended'
               WHEN s.position IS NOT NULL AND s.kind = 'event' AND s.type = p.type AND s.subject = p.subject AND s.data = p.data
                   AND (p.occurred_at IS NULL OR s.occurred_at = p.occurred_at)
                   AND (s.attributes = '{}' AND s.metadata ? 'ce_source'
                        OR posthorn.comparable_attributes(s.attributes) = posthorn.comparable_attributes(p.attributes)) THEN 'existing'
               WHEN s.position IS NULL AND t.position IS NULL AND k.digest = posthorn.event_digest(
                   p.type, p.subject, p.data, p.occurred_at, posthorn.comparable_attributes(p.attributes)) THEN 'existing'
               ELSE 'conflict'
           END
    FROM placed p
    LEFT JOIN same s ON s.account = p.account AND s.identity = p.identity
    LEFT JOIN taken t ON s.position IS NULL AND t.account = p.account AND t.id = p.id
    LEFT JOIN posthorn.idempotency_keys k ON s.position IS NULL AND k.account = p.account AND k.key = p.identity
    ORDER BY p.ordinal;
END
$$;
-- +goose StatementEnd

ALTER FUNCTION posthorn.append_events RENAME TO earlier_append_events;
ALTER FUNCTION posthorn.append_event RENAME TO earlier_append_event;

-- +goose StatementBegin
-- append_events appends a batch in the given order, in the caller's
-- transaction. keyed marks events whose id the caller chose: one that is in
-- the log already appends nothing and comes back as 'existing', or as
-- 'conflict' where its content differs. The others get an id here, whatever
-- was given for them. One row is returned for each event given.
--
-- With a source in its attributes an event is told from others by source and
-- id. The record has that id if it can be a webhook-id and no other event has
-- it, or else the derived_id. data_bytes, where not null, is the data instead.
-- checked says that the data has been through check_json's rules already.
--
-- It has its owner's rights, so EXECUTE is all that a producer needs.
CREATE FUNCTION posthorn.append_events(
    ids text[], keyed boolean[], accounts text[], types text[], subjects text[],
    data text[], metadata text[], occurred_at timestamptz[],
    attributes text[] DEFAULT NULL, data_bytes bytea[] DEFAULT NULL, checked boolean DEFAULT false
) RETURNS TABLE (ordinal bigint, "position" bigint, id text, occurred timestamptz, recorded timestamptz, outcome text)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    given  posthorn.given_event[];
    -- Ids of one batch differ in their last four digits, which takes a fifth of
    -- what a random one for each takes.
    series text := 'evt_' || left(posthorn.uuid_v7()::text, 32);
BEGIN
    IF cardinality(ids) <> ANY (ARRAY[cardinality(keyed), cardinality(accounts), cardinality(types), cardinality(subjects),
        cardinality(data), cardinality(metadata), cardinality(occurred_at)]) IS NOT false OR array_position(keyed, NULL) IS NOT NULL THEN
        RAISE EXCEPTION 'append_events: the arrays differ in length, or keyed has a null in it' USING ERRCODE = 'array_subscript_error';
    END IF;
    IF NOT checked THEN
        PERFORM posthorn.check_json(coalesce(g.bytes, convert_to(g.data, 'UTF8')))
        FROM unnest(data, attributes, data_bytes) AS g(data, attributes, bytes)
        WHERE posthorn.media_is_json(g.attributes::jsonb ->> 'datacontenttype');
    END IF;
    IF NOT true = ANY (keyed) THEN
        RETURN QUERY
        WITH appended AS (
            INSERT INTO posthorn.outbox (id, account, type, subject, data, metadata, attributes, occurred_at)
            SELECT CASE WHEN cardinality(types) < 65536 THEN series || lpad(to_hex(g.ordinal), 4, '0') ELSE 'evt_' || posthorn.uuid_v7() END,
                   g.account, g.type, g.subject, coalesce(g.bytes, convert_to(g.data, 'UTF8')),
                   g.metadata::jsonb, coalesce(g.attributes::jsonb, '{}'), coalesce(g.occurred_at, clock_timestamp())
            FROM unnest(accounts, types, subjects, data, metadata, occurred_at, attributes, data_bytes)
                WITH ORDINALITY AS g(account, type, subject, data, metadata, occurred_at, attributes, bytes, ordinal)
            ORDER BY g.ordinal
            RETURNING outbox.position, outbox.id, outbox.occurred_at, outbox.recorded_at
        )
        SELECT row_number() OVER (ORDER BY a.position), a.position, a.id, a.occurred_at, a.recorded_at, 'appended'
        FROM appended a ORDER BY a.position;
        RETURN;
    END IF;
    given := posthorn.given_events(ids, keyed, accounts, types, subjects, data, metadata, occurred_at, attributes, data_bytes);
    RETURN QUERY SELECT * FROM posthorn.append_given(given, posthorn.claim_ids(given));
END
$$;
-- +goose StatementEnd

-- +goose StatementBegin
-- append_event appends one event, in the caller's transaction, from any
-- language, and returns its id. An id given twice appends once; it is an
-- error where the content differs. attributes are those of a CloudEvent;
-- data_bytes is the data where it is no JSON.
CREATE FUNCTION posthorn.append_event(
    type text, subject text DEFAULT '', data json DEFAULT 'null', id text DEFAULT NULL,
    account text DEFAULT 'default', occurred_at timestamptz DEFAULT NULL, metadata jsonb DEFAULT '{}',
    attributes jsonb DEFAULT '{}', data_bytes bytea DEFAULT NULL
) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    got record;
BEGIN
    SELECT * INTO got FROM posthorn.append_events(
        ARRAY[append_event.id], ARRAY[append_event.id IS NOT NULL],
        ARRAY[append_event.account], ARRAY[append_event.type], ARRAY[append_event.subject],
        ARRAY[append_event.data::text], ARRAY[append_event.metadata::text], ARRAY[append_event.occurred_at],
        ARRAY[append_event.attributes::text], ARRAY[append_event.data_bytes]);
    IF got.outcome = 'conflict' THEN
        RAISE EXCEPTION 'event id % is taken by an event with other content', got.id
            USING ERRCODE = 'unique_violation', CONSTRAINT = 'idempotency_keys_pkey';
    END IF;
    RETURN got.id;
END
$$;
-- +goose StatementEnd

-- Functions are everybody's by default, and append_events has its owner's
-- rights: the right to look into the schema must not be the right to append.
REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA posthorn FROM PUBLIC;

-- +goose StatementBegin
-- Who could append may still do so: by a grant, or by the right to write into
-- the table, which producers needed.
DO $$
DECLARE
    grantee oid;
BEGIN
    FOR grantee IN
        SELECT a.grantee
        FROM pg_proc p, aclexplode(p.proacl) a
        WHERE p.pronamespace = 'posthorn'::regnamespace AND p.proname IN ('earlier_append_event', 'earlier_append_events')
        UNION
        SELECT a.grantee FROM pg_class c, aclexplode(c.relacl) a
        WHERE c.oid = 'posthorn.outbox'::regclass AND a.privilege_type = 'INSERT'
    LOOP
        CONTINUE WHEN grantee = 0;
        EXECUTE format('GRANT EXECUTE ON FUNCTION posthorn.append_event, posthorn.append_events TO %s', grantee::regrole);
    END LOOP;
END
$$;
-- +goose StatementEnd

DROP FUNCTION posthorn.earlier_append_event, posthorn.earlier_append_events;

-- +goose Down
DROP FUNCTION posthorn.append_event, posthorn.append_events, posthorn.append_given, posthorn.claim_ids, posthorn.given_events, posthorn.event_digest;
DROP TYPE posthorn.given_event;
DROP FUNCTION posthorn.identity_of, posthorn.comparable_attributes, posthorn.derived_id, posthorn.check_json;
ALTER TABLE posthorn.outbox
    DROP CONSTRAINT outbox_subject_is_at_most_512_bytes,
    DROP CONSTRAINT outbox_occurred_at_is_in_the_years_1_to_9999,
    DROP CONSTRAINT outbox_recorded_at_is_in_the_years_1_to_9999,
    DROP CONSTRAINT outbox_metadata_is_strings_of_at_most_8192_bytes,
    DROP CONSTRAINT outbox_attributes_are_those_of_a_cloudevent,
    DROP CONSTRAINT outbox_data_is_json_nested_at_most_63_levels_deep,
    DROP COLUMN attributes;
DROP FUNCTION posthorn.depth_allowed, posthorn.attributes_allowed, posthorn.media_is_json;

-- +goose StatementBegin
CREATE FUNCTION posthorn.event_digest(type text, subject text, data text, occurred_at timestamptz) RETURNS bytea
LANGUAGE sql STABLE
RETURN sha256(convert_to(json_build_array(type, subject, data, extract(epoch FROM occurred_at))::text, 'UTF8'));
-- +goose StatementEnd

-- +goose StatementBegin
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

GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA posthorn TO PUBLIC;
