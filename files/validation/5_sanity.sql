-- Does each row of the metrics make sense on its own?
--
-- Proves: no count is negative and no row empty; no more completions, skips or likes than plays; each window begins
-- where windows begin; each sketch holds at least one listener and, within what its 2^11 registers may be off (15 % for
-- one window), no more than there were plays.
WITH metrics AS (
    SELECT 1 AS place, 'user_engagement_metrics' AS name, interval '5 minutes' AS width, window_start,
           streams, completions, skips, likes, listened_ms, duration_ms, hll_cardinality(listeners) AS listeners
    FROM user_engagement_metrics
    UNION ALL
    SELECT 2, 'geographic_metrics', interval '5 minutes', window_start,
           streams, completions, skips, likes, listened_ms, duration_ms, hll_cardinality(listeners)
    FROM geographic_metrics
    UNION ALL
    SELECT 3, 'device_usage_metrics', interval '5 minutes', window_start,
           streams, completions, skips, likes, listened_ms, duration_ms, hll_cardinality(listeners)
    FROM device_usage_metrics
    UNION ALL
    SELECT 4, 'content_performance_metrics', interval '1 hour', window_start,
           streams, completions, skips, likes, listened_ms, duration_ms, hll_cardinality(listeners)
    FROM content_performance_metrics
    UNION ALL
    SELECT 5, 'genre_metrics', interval '1 hour', window_start,
           streams, completions, skips, likes, listened_ms, duration_ms, hll_cardinality(listeners)
    FROM genre_metrics
), tables (place, name) AS (
    VALUES (1, 'user_engagement_metrics'), (2, 'geographic_metrics'), (3, 'device_usage_metrics'),
           (4, 'content_performance_metrics'), (5, 'genre_metrics')
), bad AS (
    SELECT place, count(*) AS rows,
           count(*) FILTER (WHERE streams <= 0 OR least(completions, skips, likes, listened_ms, duration_ms) < 0)
               AS negative,
           count(*) FILTER (WHERE greatest(completions, skips, likes) > streams) AS too_many,
           count(*) FILTER (WHERE window_start <> date_bin(width, window_start, 'epoch')) AS misaligned,
           count(*) FILTER (WHERE listeners < 0.85 OR listeners > streams * 1.15 + 1) AS absurd
    FROM metrics GROUP BY place
)
SELECT tables.name || ': counts, listeners and windows make sense' AS name,
       coalesce(negative + too_many + misaligned + absurd = 0, true) AS ok,
       coalesce(nullif(concat_ws(', ', nullif(negative, 0) || ' negative or empty',
                                 nullif(too_many, 0) || ' with more completions, skips or likes than streams',
                                 nullif(misaligned, 0) || ' with a window misaligned',
                                 nullif(absurd, 0) || ' with listeners absurd'), ''),
                to_char(coalesce(rows, 0), 'FM999,999,999,990') || ' rows good') AS found,
       'all rows good' AS wanted
FROM tables LEFT JOIN bad USING (place)
ORDER BY place;
