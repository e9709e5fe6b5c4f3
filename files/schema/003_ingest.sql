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
-- records = accepted + duplicates + rejected + tombstones, at every commit. And offsets passed + rewound = records +
-- control + those of the gaps.
CREATE TABLE ingest_state (
    topic       text   PRIMARY KEY,
    watermark   timestamptz,
    records     bigint NOT NULL DEFAULT 0,
    accepted    bigint NOT NULL DEFAULT 0,
    duplicates  bigint NOT NULL DEFAULT 0,
    rejected    bigint NOT NULL DEFAULT 0,
    tombstones  bigint NOT NULL DEFAULT 0,
    control     bigint NOT NULL DEFAULT 0,
    rewound     bigint NOT NULL DEFAULT 0,
    updated_at  timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50);
COMMENT ON COLUMN ingest_state.control IS 'Offsets of transactions'' markers and of aborted records, which are no records to be read';
COMMENT ON COLUMN ingest_state.rewound IS 'Offsets that Kafka gave a second time, after its log was shortened';

-- Running totals per source, for ever. The topic's totals never shrink, so a source remembers what was deleted again:
-- the sum of accepted + removed over the sources is the topic's accepted.
CREATE TABLE ingest_totals (
    source            text   PRIMARY KEY,
    accepted          bigint NOT NULL DEFAULT 0,
    duplicates        bigint NOT NULL DEFAULT 0,
    late              bigint NOT NULL DEFAULT 0,
    expired           bigint NOT NULL DEFAULT 0,
    removed           bigint NOT NULL DEFAULT 0,
    newest_event_time timestamptz,
    updated_at        timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50);
COMMENT ON COLUMN ingest_totals.expired IS 'Raw rows dropped by the retention; their metrics stay';
COMMENT ON COLUMN ingest_totals.removed IS 'Plays deleted with their metrics (musicctl demo remove), no longer accepted';
INSERT INTO ingest_totals (source) VALUES ('demo'), ('scrobble'), ('import');

CREATE TABLE ingest_reject_totals (
    reason     text   PRIMARY KEY,
    rejected   bigint NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50);

-- How many records the next batch may have: less than most after one that was too large or too slow. A table of its
-- own, as it is written while a batch holds its locks.
CREATE TABLE ingest_limits (
    topic      text    PRIMARY KEY,
    records    bigint  NOT NULL CHECK (records > 0),
    most       bigint  NOT NULL,
    why        text    NOT NULL,
    changed_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON COLUMN ingest_limits.why IS 'What made the limit smaller; empty where it is the one of the settings';

-- What was sent and is stored as unknown: the play counts, the field does not. A play that is sent twice counts twice.
CREATE TABLE ingest_flaw_totals (
    field      text   NOT NULL,
    reason     text   NOT NULL,
    plays      bigint NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (field, reason)
) WITH (fillfactor = 50);
COMMENT ON TABLE ingest_flaw_totals IS 'Optional fields that made no sense and were left out, since ever';

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
    due             timestamptz,
    serial          bigint  GENERATED ALWAYS AS IDENTITY UNIQUE,
    PRIMARY KEY (topic_id, kafka_partition, kafka_offset)
);
COMMENT ON COLUMN rejected_events.serial IS 'Order of arrival; only the newest rows are kept';
COMMENT ON COLUMN rejected_events.due IS 'Its event_time, where that was in the future: it is judged again once it would be accepted';
CREATE INDEX ON rejected_events (rejected_at);
CREATE INDEX ON rejected_events (due) WHERE due IS NOT NULL;

CREATE TABLE ingest_gaps (
    topic       text    NOT NULL,
    topic_id    text    NOT NULL,
    partition   integer NOT NULL,
    from_offset bigint  NOT NULL,
    to_offset   bigint,
    cause       text    NOT NULL CHECK (cause IN ('retention', 'hole', 'topic_recreated', 'shortened', 'began_anew')),
    noticed_at  timestamptz NOT NULL DEFAULT now(),
    -- A log that is lost twice may leave two gaps that begin alike.
    PRIMARY KEY (topic, topic_id, partition, from_offset, noticed_at)
);
COMMENT ON TABLE ingest_gaps IS 'Records that were gone from Kafka before they were read: [from_offset, to_offset)';
COMMENT ON COLUMN ingest_gaps.to_offset IS 'Unknown (NULL) where the topic was deleted or its log shortened';

-- The proof, in periods that windows never straddle: hours of content_performance, and its days once it is folded. A
-- batch adds to accepted and opens the period. Housekeeping counts a period that the watermark has passed once more,
-- from the raw plays and from each table of metrics; where all say the same, that number is kept and the period closed.
CREATE TABLE ingest_periods (
    starts    timestamptz NOT NULL,
    source    text        NOT NULL,
    ends      timestamptz NOT NULL,
    accepted  bigint      NOT NULL,
    open      boolean     NOT NULL DEFAULT true,
    proved    bigint,
    proved_at timestamptz,
    PRIMARY KEY (starts, source)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05);
CREATE INDEX ON ingest_periods (starts) WHERE open;
COMMENT ON TABLE ingest_periods IS 'Plays per hour or day, and whether all tables were found to agree on them';
COMMENT ON COLUMN ingest_periods.open IS 'Not counted again since the newest play came';
COMMENT ON COLUMN ingest_periods.proved IS 'Plays that the raw table and each table of metrics had, when last counted';
