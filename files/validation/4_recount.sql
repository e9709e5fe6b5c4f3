-- Do the newest plays, counted again one by one, give the same rows?
--
-- Proves, for the 5-minute windows of the last ten minutes, that each row of the metrics is what its plays make, and
-- not only the sums over all. The newest alone: the cost must not grow with the years.
WITH newest AS MATERIALIZED (
    SELECT date_bin('5 minutes', event_time, 'epoch') AS window_start, *
    FROM stream_events
    WHERE event_time >= date_bin('5 minutes', now() - interval '10 minutes', 'epoch')
), counted AS (
    SELECT kind.name, window_start, source, kind.key, count(*) AS streams,
           count(*) FILTER (WHERE completed) AS completions, count(*) FILTER (WHERE skipped) AS skips,
           count(*) FILTER (WHERE liked) AS likes, coalesce(sum(listened_ms), 0)::bigint AS listened_ms,
           coalesce(sum(duration_ms), 0)::bigint AS duration_ms
    FROM newest
    CROSS JOIN LATERAL (VALUES ('user_engagement_metrics', ARRAY[subscription_type, age_group]),
                               ('geographic_metrics', ARRAY[country, region]),
                               ('device_usage_metrics', ARRAY[device_type, os])) kind (name, key)
    GROUP BY kind.name, window_start, source, kind.key
), every_stored AS (
    SELECT 'user_engagement_metrics' AS name, window_start, source, ARRAY[subscription_type, age_group] AS key,
           streams, completions, skips, likes, listened_ms, duration_ms
    FROM user_engagement_metrics
    UNION ALL
    SELECT 'geographic_metrics', window_start, source, ARRAY[country, region],
           streams, completions, skips, likes, listened_ms, duration_ms
    FROM geographic_metrics
    UNION ALL
    SELECT 'device_usage_metrics', window_start, source, ARRAY[device_type, os],
           streams, completions, skips, likes, listened_ms, duration_ms
    FROM device_usage_metrics
), stored AS (
    SELECT * FROM every_stored
    WHERE window_start >= date_bin('5 minutes', now() - interval '10 minutes', 'epoch')
), different AS (
    (TABLE counted EXCEPT TABLE stored) UNION ALL (TABLE stored EXCEPT TABLE counted)
)
SELECT tables.name || ': the newest plays, counted again, give the same rows' AS name,
       differing.n = 0 AS ok,
       to_char(differing.n, 'FM999,999,999,990') || ' rows differ ('
           || to_char(plays.n, 'FM999,999,999,990') || ' plays)' AS found,
       '0 rows differ' AS wanted
FROM (VALUES (1, 'user_engagement_metrics'), (2, 'geographic_metrics'), (3, 'device_usage_metrics'))
    tables (place, name)
CROSS JOIN LATERAL (SELECT count(*) AS n FROM different WHERE different.name = tables.name) differing
CROSS JOIN (SELECT count(*) AS n FROM newest) plays
ORDER BY place;
