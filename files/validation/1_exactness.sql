-- Do all tables tell of the same plays?
--
-- Proves for each source: the accepted plays = the rows ever written (present + expired) = the streams of each table of
-- metrics. And for each other count: its sum is the same in each of them. What was expired is in the metrics for ever.
WITH sums AS (
    SELECT 'user_engagement_metrics' AS name, source, sum(streams) AS streams, sum(completions) AS completions,
           sum(skips) AS skips, sum(likes) AS likes, sum(listened_ms) AS listened_ms, sum(duration_ms) AS duration_ms
    FROM user_engagement_metrics GROUP BY source
    UNION ALL
    SELECT 'geographic_metrics', source, sum(streams), sum(completions), sum(skips), sum(likes), sum(listened_ms),
           sum(duration_ms)
    FROM geographic_metrics GROUP BY source
    UNION ALL
    SELECT 'device_usage_metrics', source, sum(streams), sum(completions), sum(skips), sum(likes), sum(listened_ms),
           sum(duration_ms)
    FROM device_usage_metrics GROUP BY source
    UNION ALL
    SELECT 'content_performance_metrics', source, sum(streams), sum(completions), sum(skips), sum(likes),
           sum(listened_ms), sum(duration_ms)
    FROM content_performance_metrics GROUP BY source
    UNION ALL
    SELECT 'genre_metrics', source, sum(streams), sum(completions), sum(skips), sum(likes), sum(listened_ms),
           sum(duration_ms)
    FROM genre_metrics GROUP BY source
    UNION ALL
    SELECT 'song_day_streams', source, sum(streams), NULL, NULL, NULL, NULL, NULL
    FROM song_day_streams GROUP BY source
), tables (place, name) AS (
    VALUES (1, 'user_engagement_metrics'), (2, 'geographic_metrics'), (3, 'device_usage_metrics'),
           (4, 'content_performance_metrics'), (5, 'genre_metrics'), (6, 'song_day_streams')
), sides AS (
    SELECT t.source, t.accepted, 0 AS place, 'rows' AS name, t.expired + coalesce(present.n, 0) AS number
    FROM ingest_totals t
    LEFT JOIN (SELECT source, count(*) AS n FROM stream_events GROUP BY source) present USING (source)
    UNION ALL
    SELECT t.source, t.accepted, tables.place, tables.name, coalesce(sums.streams, 0)
    FROM ingest_totals t CROSS JOIN tables LEFT JOIN sums USING (source, name)
), counts AS (
    SELECT count, source, tables.place, tables.name, coalesce(total, 0) AS total
    FROM ingest_totals CROSS JOIN tables
    CROSS JOIN unnest(ARRAY['completions', 'skips', 'likes', 'listened_ms', 'duration_ms']) AS count
    LEFT JOIN (
        SELECT source, name, unpivoted.count, unpivoted.total
        FROM sums
        CROSS JOIN LATERAL (VALUES ('completions', completions), ('skips', skips), ('likes', likes),
                                   ('listened_ms', listened_ms), ('duration_ms', duration_ms)) unpivoted (count, total)
    ) summed USING (source, name, count)
    WHERE tables.name <> 'song_day_streams'  -- has streams only
), count_of_source AS (
    SELECT count, source, min(total) = max(total) AS same,
           CASE WHEN min(total) = max(total) THEN to_char(min(total), 'FM999,999,999,999,999,990')
                ELSE string_agg(name || ' ' || to_char(total, 'FM999,999,999,999,999,990'), ', ' ORDER BY place)
           END AS told
    FROM counts GROUP BY count, source
)
SELECT name, ok, found, wanted
FROM (
    SELECT 1 AS part, source AS item,
           source || ': accepted = rows ever written = streams of each metric table' AS name,
           bool_and(number = accepted) AS ok,
           CASE WHEN min(number) = max(number) THEN to_char(min(number), 'FM999,999,999,999,990') || ' in each'
                ELSE string_agg(name || ' ' || to_char(number, 'FM999,999,999,999,990'), ', ' ORDER BY place)
           END AS found,
           to_char(accepted, 'FM999,999,999,999,990') || ' accepted' AS wanted
    FROM sides GROUP BY source, accepted
    UNION ALL
    SELECT 2, count, count || ': the same sum in each metric table', bool_and(same),
           string_agg(source || ' ' || told, '; ' ORDER BY source), 'equal'
    FROM count_of_source GROUP BY count
) answers
ORDER BY part, item;
