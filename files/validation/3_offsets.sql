-- Was any record of Kafka passed over?
--
-- Proves: the offsets behind the job, less the gaps that it noted, are those of the records that it read and of the
-- transactions' markers and aborted records, which nobody is shown. What Kafka gave twice, as its log was shortened, is
-- counted twice. A row with a note is worth knowing and makes nothing wrong: what is gone was noted.
WITH seen AS (
    SELECT (SELECT coalesce(sum(next_offset), 0) FROM ingest_offsets)
               -- What a topic that was deleted held up to its last read offset was read too.
               + (SELECT coalesce(sum(from_offset), 0) FROM ingest_gaps WHERE cause = 'topic_recreated')
               + (SELECT coalesce(sum(rewound), 0) FROM ingest_state) AS reached,
           (SELECT coalesce(sum(to_offset - from_offset), 0) FROM ingest_gaps) AS lost,
           (SELECT count(*) FROM ingest_gaps WHERE cause IN ('shortened', 'began_anew')) AS shortened,
           (SELECT coalesce(sum(records), 0) FROM ingest_state) AS records,
           (SELECT coalesce(sum(control), 0) FROM ingest_state) AS control
)
SELECT 'offsets are continuous: no record was passed over in silence' AS name,
       records + control = reached - lost AS ok,
       to_char(records, 'FM999,999,999,990') || ' records'
           || coalesce(' and ' || to_char(nullif(control, 0), 'FM999,999,999,990') || ' of transactions', '') AS found,
       to_char(reached - lost, 'FM999,999,999,990') || ' offsets that hold one' AS wanted,
       false AS note
FROM seen
UNION ALL
SELECT 'records that Kafka deleted before they were read', true, to_char(lost, 'FM999,999,999,990'), '0', lost > 0
FROM seen
UNION ALL
SELECT 'times that Kafka''s log was shortened, and held unread what nobody knows', true,
       to_char(shortened, 'FM999,999,999,990'), '0', shortened > 0
FROM seen;
