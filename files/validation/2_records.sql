-- Is every record of Kafka that was read accounted for?
--
-- Proves: each is an accepted play, a duplicate, a reject or a tombstone; the totals by source and by reason, which are
-- kept apart, say the same as those by topic. What was removed had been accepted: the topic's totals are for ever.
WITH topic AS (
    SELECT coalesce(sum(records), 0) AS records, coalesce(sum(accepted), 0) AS accepted,
           coalesce(sum(duplicates), 0) AS duplicates, coalesce(sum(rejected), 0) AS rejected,
           coalesce(sum(tombstones), 0) AS tombstones
    FROM ingest_state
), source AS (
    SELECT sum(accepted + removed) AS accepted, sum(duplicates) AS duplicates FROM ingest_totals
), rejects AS (
    SELECT (SELECT coalesce(sum(rejected), 0) FROM ingest_reject_totals) AS counted,
           (SELECT count(*) FROM rejected_events) AS kept
)
SELECT 'every record is accepted, a duplicate, a reject or a tombstone' AS name,
       accepted + duplicates + rejected + tombstones = records AS ok,
       to_char(accepted, 'FM999,999,999,990') || ' accepted + '
           || to_char(duplicates, 'FM999,999,999,990') || ' duplicates + '
           || to_char(rejected, 'FM999,999,999,990') || ' rejected + '
           || to_char(tombstones, 'FM999,999,999,990') || ' tombstones' AS found,
       to_char(records, 'FM999,999,999,990') || ' records' AS wanted
FROM topic
UNION ALL
SELECT 'accepted: by source = by topic', source.accepted = topic.accepted,
       to_char(source.accepted, 'FM999,999,999,990'), to_char(topic.accepted, 'FM999,999,999,990')
FROM source, topic
UNION ALL
SELECT 'duplicates: by source = by topic', source.duplicates = topic.duplicates,
       to_char(source.duplicates, 'FM999,999,999,990'), to_char(topic.duplicates, 'FM999,999,999,990')
FROM source, topic
UNION ALL
SELECT 'rejects: by reason = by topic, no more kept than counted',
       counted = topic.rejected AND kept <= counted,
       to_char(counted, 'FM999,999,999,990') || ' counted, ' || to_char(kept, 'FM999,999,999,990') || ' kept',
       to_char(topic.rejected, 'FM999,999,999,990') || ' counted'
FROM rejects, topic;
