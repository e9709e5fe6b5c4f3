-- What the job remembers and what it reports about itself. All of it is written in the transaction of the batch.

-- The job's only memory: the next record to read. topic_id tells a topic from another one of the same name;
-- newest_kafka_time tells whether the broker lost records after a power cut and gave their offsets to new ones.
CREATE TABLE ingest_offsets (
    topic       text    NOT NULL,
    partition   integer NOT NULL,
    topic_id    text    NOT NULL,
    next_offset bigint  NOT NULL CHECK (next_offset >= 0),
    newest_kafka_time timestamptz,
    updated_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (topic, partition)
) WITH (fillfactor = 50);

-- Beside the offsets: the watermark (it never goes back, restarts included) and running totals for ever.
-- records = accepted + duplicates + rejected + tombstones, at every commit.
CREATE TABLE ingest_state (
    topic       text   PRIMARY KEY,
    watermark   timestamptz,
    records     bigint NOT NULL DEFAULT 0,
    accepted    bigint NOT NULL DEFAULT 0,
    duplicates  bigint NOT NULL DEFAULT 0,
    rejected    bigint NOT NULL DEFAULT 0,
    tombstones  bigint NOT NULL DEFAULT 0,
    updated_at  timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50);

-- Running totals per source, for ever.
CREATE TABLE ingest_totals (
    source            text   PRIMARY KEY,
    accepted          bigint NOT NULL DEFAULT 0,
    duplicates        bigint NOT NULL DEFAULT 0,
    late              bigint NOT NULL DEFAULT 0,
    expired           bigint NOT NULL DEFAULT 0,
    newest_event_time timestamptz,
    updated_at        timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50);
COMMENT ON COLUMN ingest_totals.expired IS 'Raw rows dropped by the retention; their metrics stay';
INSERT INTO ingest_totals (source) VALUES ('demo'), ('scrobble'), ('import');

CREATE TABLE ingest_reject_totals (
    reason     text   PRIMARY KEY,
    rejected   bigint NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50);

CREATE TABLE ingest_batches (
    batch             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    topic             text   NOT NULL,
    records           bigint NOT NULL,
    accepted          bigint NOT NULL,
    duplicates        bigint NOT NULL,
    late              bigint NOT NULL,
    rejected          bigint NOT NULL,
    tombstones        bigint NOT NULL,
    watermark         timestamptz,
    newest_event_time timestamptz,
    read_at           timestamptz NOT NULL,
    ingested_at       timestamptz NOT NULL DEFAULT now(),
    committed_at      timestamptz NOT NULL
);
COMMENT ON TABLE ingest_batches IS 'One row a micro-batch, kept for days';
COMMENT ON COLUMN ingest_batches.read_at IS 'When Spark began to read the batch';
COMMENT ON COLUMN ingest_batches.committed_at IS 'Taken as the last statement before COMMIT';
CREATE INDEX ON ingest_batches (committed_at);
CREATE INDEX ON ingest_batches (ingested_at);

-- raw holds the first 8 KiB as they came: bytea, since it may be no text at all.
CREATE TABLE rejected_events (
    topic_id        text    NOT NULL,
    kafka_partition integer NOT NULL,
    kafka_offset    bigint  NOT NULL,
    topic           text    NOT NULL,
    reason          text    NOT NULL,
    field           text,
    raw             bytea   NOT NULL CHECK (length(raw) <= 8192),
    raw_length      bigint  NOT NULL,
    kafka_time      timestamptz NOT NULL,
    rejected_at     timestamptz NOT NULL DEFAULT now(),
    serial          bigint  GENERATED ALWAYS AS IDENTITY UNIQUE,
    PRIMARY KEY (topic_id, kafka_partition, kafka_offset)
);
COMMENT ON COLUMN rejected_events.serial IS 'Order of arrival; only the newest rows are kept';
CREATE INDEX ON rejected_events (rejected_at);

CREATE TABLE ingest_gaps (
    topic       text    NOT NULL,
    topic_id    text    NOT NULL,
    partition   integer NOT NULL,
    from_offset bigint  NOT NULL,
    to_offset   bigint,
    cause       text    NOT NULL CHECK (cause IN ('retention', 'hole', 'topic_recreated')),
    noticed_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (topic, topic_id, partition, from_offset)
);
COMMENT ON TABLE ingest_gaps IS 'Records that were gone from Kafka before they were read: [from_offset, to_offset)';
COMMENT ON COLUMN ingest_gaps.to_offset IS 'Unknown (NULL) where the topic itself was deleted';

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
