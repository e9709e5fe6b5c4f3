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
-- expiry. So a generated history of twenty years makes one table and not seven thousand. The metrics of generated
-- plays have the same partitions (002_metrics.sql), made and dropped together with these (004_housekeeping.sql).
CREATE TABLE stream_events_demo_old PARTITION OF stream_events_demo
    FOR VALUES FROM (MINVALUE) TO ('2002-10-01 00:00:00+00');

CREATE TABLE demo_first_day (
    only_row  boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    first_day date    NOT NULL
);
COMMENT ON TABLE demo_first_day IS 'First UTC day whose generated plays have a partition of their own';
INSERT INTO demo_first_day (first_day) VALUES ('2002-10-01');
