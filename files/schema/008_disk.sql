-- How much each part takes of the disk, noted by the job about once an hour, so that musicctl status and Pipeline health
-- can say how fast it grows and when the disk will be full.

CREATE TABLE disk_samples (
    taken_at timestamptz NOT NULL DEFAULT now(),
    part     text        NOT NULL,
    bytes    bigint      NOT NULL,
    most     bigint,
    PRIMARY KEY (taken_at, part)
);
COMMENT ON TABLE disk_samples IS 'Bytes on disk by part, kept for eight days; the part "free" is what is left on the disk of the broker';
COMMENT ON COLUMN disk_samples.most IS 'Where its settings bound it; NULL where nothing does';

-- Growth is that of the last seven days, or of as many as there are; below an hour it would be chance. A part with a bound
-- takes what is missing to it and then nothing more; the rest of what is free lasts for as long as the others grow as now.
CREATE VIEW disk_growth AS
WITH span AS (
    SELECT min(taken_at) FILTER (WHERE taken_at >= newest.at - interval '7 days') AS since, max(newest.at) AS until
    FROM disk_samples, (SELECT max(taken_at) AS at FROM disk_samples) newest
), parts AS (
    SELECT now.part, now.bytes, now.most, span.since, span.until,
           CASE WHEN until - since >= interval '1 hour'
                THEN round((now.bytes - coalesce(before.bytes, 0)) * 86400 / extract(epoch FROM until - since))::bigint
           END AS bytes_a_day
    FROM span
    JOIN disk_samples now ON now.taken_at = span.until
    LEFT JOIN disk_samples before ON before.taken_at = span.since AND before.part = now.part
), whole AS (
    SELECT max(bytes) FILTER (WHERE part = 'free') AS free,
           coalesce(sum(greatest(most - bytes, 0)) FILTER (WHERE bytes_a_day > 0), 0) AS bounded,
           sum(bytes_a_day) FILTER (WHERE bytes_a_day > 0 AND most IS NULL AND part <> 'free') AS unbounded
    FROM parts
)
SELECT part, bytes, most, bytes_a_day, since, until,
       floor(greatest(free - bounded, 0) / nullif(unbounded, 0))::bigint AS full_in_days
FROM parts, whole;
COMMENT ON VIEW disk_growth IS 'Size and growth by part; full_in_days is of the whole disk, NULL where nothing grows without a bound';

GRANT SELECT, INSERT, DELETE ON disk_samples TO music_writer;
GRANT SELECT ON disk_samples, disk_growth TO superset_reader;
