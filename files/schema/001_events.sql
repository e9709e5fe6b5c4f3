-- Every accepted play, raw. The key holds source and event_time because PostgreSQL wants the partition keys in it;
-- a duplicate delivery repeats all three.
--
-- Generated plays (source demo) lie in one partition per UTC day, so that days older than the retention go by
-- dropping a table. Real plays (scrobble, import) stay for ever in one plain table, where an event_id is there once.

CREATE TABLE stream_events (
    event_id          uuid        NOT NULL,
    event_time        timestamptz NOT NULL,
    source            text        NOT NULL,
    user_id           text        NOT NULL,
    session_id        text,
    song_id           text        NOT NULL,
    title             text        NOT NULL,
    artist            text        NOT NULL,
    album             text,
    genre             text        NOT NULL,
    duration_ms       bigint,
    listened_ms       bigint,
    skipped           boolean,
    liked             boolean,
    completed         boolean,
    subscription_type text        NOT NULL,
    age_group         text        NOT NULL,
    country           text        NOT NULL,
    region            text        NOT NULL,
    device_type       text        NOT NULL,
    os                text        NOT NULL,
    player            text        NOT NULL,
    reason_start      text,
    reason_end        text,
    late              boolean     NOT NULL,
    kafka_partition   integer     NOT NULL,
    kafka_offset      bigint      NOT NULL,
    ingested_at       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (event_id, event_time, source)
) PARTITION BY LIST (source);

COMMENT ON TABLE stream_events IS 'Accepted plays, one row each';
COMMENT ON COLUMN stream_events.event_time IS 'When playback started';
COMMENT ON COLUMN stream_events.late IS 'Behind the watermark when it arrived; counted in its window all the same';
COMMENT ON COLUMN stream_events.ingested_at IS 'Start of the transaction that wrote it; equals ingest_batches.ingested_at';

CREATE TABLE stream_events_own PARTITION OF stream_events FOR VALUES IN ('scrobble', 'import');
CREATE TABLE stream_events_demo PARTITION OF stream_events FOR VALUES IN ('demo') PARTITION BY RANGE (event_time);

-- One play is one play, whichever way it came first, and whatever time a sender gives it the second time.
CREATE UNIQUE INDEX ON stream_events_own (event_id);
CREATE INDEX ON stream_events_own (event_time);
-- Live plays arrive nearly in order: a block range index is a thousandth of a btree's size and writes.
CREATE INDEX ON stream_events_demo USING brin (event_time) WITH (pages_per_range = 32, autosummarize = on);
-- "Live" asks for the plays that arrived in the last minutes. Rows lie in order of arrival, so a block range index
-- finds them at next to no cost for the writer.
CREATE INDEX ON stream_events_demo USING brin (ingested_at) WITH (pages_per_range = 32, autosummarize = on);
CREATE INDEX ON stream_events_own USING brin (ingested_at) WITH (pages_per_range = 32, autosummarize = on);

-- Generated plays of days before demo_first_day.first_day lie together in stream_events_demo_old until the next
-- expiry. So a generated history of twenty years makes one table and not seven thousand.
CREATE TABLE stream_events_demo_old PARTITION OF stream_events_demo
    FOR VALUES FROM (MINVALUE) TO ('2002-10-01 00:00:00+00');

CREATE TABLE demo_first_day (
    only_row  boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    first_day date    NOT NULL
);
COMMENT ON TABLE demo_first_day IS 'First UTC day whose generated plays have a partition of their own';
INSERT INTO demo_first_day (first_day) VALUES ('2002-10-01');

-- Makes the missing daily partitions. CREATE TABLE + ATTACH takes SHARE UPDATE EXCLUSIVE on the parent, which
-- blocks neither readers nor writers; CREATE TABLE ... PARTITION OF would block both.
CREATE FUNCTION make_demo_partitions(days date[]) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    wanted date;
    child  text;
    made   integer := 0;
BEGIN
    FOR wanted IN
        SELECT DISTINCT d FROM unnest(days) AS d, public.demo_first_day AS f WHERE d >= f.first_day ORDER BY d
    LOOP
        child := 'stream_events_demo_' || to_char(wanted, 'YYYYMMDD');
        CONTINUE WHEN to_regclass('public.' || child) IS NOT NULL;
        PERFORM pg_advisory_xact_lock(hashtext('demo_partitions'));
        CONTINUE WHEN to_regclass('public.' || child) IS NOT NULL;
        EXECUTE format('CREATE TABLE public.%I (LIKE public.stream_events_demo INCLUDING DEFAULTS INCLUDING INDEXES)', child);
        EXECUTE format(
            'ALTER TABLE public.stream_events_demo ATTACH PARTITION public.%I FOR VALUES FROM (%L) TO (%L)',
            child, wanted::timestamp AT TIME ZONE 'UTC', (wanted + 1)::timestamp AT TIME ZONE 'UTC');
        made := made + 1;
    END LOOP;
    RETURN made;
END
$$;
COMMENT ON FUNCTION make_demo_partitions IS 'Makes the missing daily partitions for generated plays; returns how many';

-- Drops generated plays of days more than keep_days ago and adds their number to ingest_totals.expired.
-- Counting happens under a lock that lets readers pass; only the drop itself excludes them, and gives up after two
-- seconds of waiting for a long query (the job tries again later) rather than have every dashboard queue behind it.
CREATE FUNCTION expire_demo_events(keep_days integer) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp SET lock_timeout = '2s' AS $$
DECLARE
    horizon date := (now() AT TIME ZONE 'UTC')::date - keep_days;
    bound   timestamptz := horizon::timestamp AT TIME ZONE 'UTC';
    begins  date;
    child   text;
    gone    text[] := '{}';
    n       bigint;
    total   bigint := 0;
BEGIN
    IF keep_days < 1 THEN
        RAISE EXCEPTION 'retention of generated plays: found % days, wanted 1 or more', keep_days;
    END IF;
    PERFORM pg_advisory_xact_lock(hashtext('demo_partitions'));
    SELECT first_day INTO STRICT begins FROM public.demo_first_day;
    IF horizon <= begins THEN
        DELETE FROM public.stream_events_demo_old WHERE event_time < bound;
        GET DIAGNOSTICS total = ROW_COUNT;
    ELSE
        FOR child IN
            SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
            WHERE i.inhparent = 'public.stream_events_demo'::regclass
              AND (c.relname = 'stream_events_demo_old'
                   OR c.relname < 'stream_events_demo_' || to_char(horizon, 'YYYYMMDD'))
            ORDER BY c.relname
        LOOP
            EXECUTE format('LOCK TABLE public.%I IN SHARE MODE', child);
            EXECUTE format('SELECT count(*) FROM public.%I', child) INTO n;
            total := total + n;
            gone := gone || child;
        END LOOP;
        LOCK TABLE ONLY public.stream_events_demo IN ACCESS EXCLUSIVE MODE;
        FOREACH child IN ARRAY gone LOOP
            EXECUTE format('DROP TABLE public.%I', child);
        END LOOP;
        EXECUTE format(
            'CREATE TABLE public.stream_events_demo_old PARTITION OF public.stream_events_demo FOR VALUES FROM (MINVALUE) TO (%L)',
            bound);
        UPDATE public.demo_first_day SET first_day = horizon;
    END IF;
    UPDATE public.ingest_totals SET expired = expired + total, updated_at = now() WHERE source = 'demo' AND total > 0;
    RETURN total;
END
$$;
COMMENT ON FUNCTION expire_demo_events IS 'Drops generated plays older than keep_days whole UTC days; returns how many rows went';
