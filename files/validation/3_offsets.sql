-- Was any record of Kafka passed over?
--
-- Proves: the offsets behind the job, less the gaps that it noted, are no more than the records that it read. A row
-- with a note is worth knowing and makes nothing wrong: Kafka's retention was quicker than the job.
WITH seen AS (
    SELECT (SELECT coalesce(sum(next_offset), 0) FROM ingest_offsets)
               -- What a topic that was deleted held up to its last read offset was read too.
               + (SELECT coalesce(sum(from_offset), 0) FROM ingest_gaps WHERE to_offset IS NULL) AS reached,
           (SELECT coalesce(sum(to_offset - from_offset), 0) FROM ingest_gaps) AS lost,
           (SELECT coalesce(sum(records), 0) FROM ingest_state) AS records
)
SELECT 'offsets are continuous: no record was passed over in silence' AS name,
       -- More records than offsets: a broker that lost its newest records gave their offsets to others.
       records >= reached - lost AS ok,
       to_char(records, 'FM999,999,999,990') || ' records' AS found,
       to_char(reached - lost, 'FM999,999,999,990') || ' offsets that hold one' AS wanted,
       false AS note
FROM seen
UNION ALL
SELECT 'records that Kafka deleted before they were read', true, to_char(lost, 'FM999,999,999,990'), '0', lost > 0
FROM seen;
