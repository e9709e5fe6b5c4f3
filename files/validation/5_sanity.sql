-- Does each row of the metrics make sense on its own?
--
-- Proves, for the hours and days that are open (music.validate_full: all): no count is negative and no row empty; no more completions, skips or likes than plays; each window begins
-- where windows begin; each sketch holds at least one listener and, within what its 2^11 registers may be off (15 % for
-- one window), no more than there were plays.
WITH span AS MATERIALIZED (
    SELECT starts, ends, source FROM ingest_periods
    WHERE open OR current_setting('music.validate_full', true) = 'on'
), metrics AS (
    -- OFFSET 0: range by range through the key; a join of all with all would be planned else.
    SELECT 1 AS place, 'user_engagement_metrics' AS name, m.*
    FROM span CROSS JOIN LATERAL (
        SELECT window_start, streams, completions, skips, likes, listened_ms, duration_ms,
               hll_cardinality(listeners) AS listeners, hll_cardinality(songs) AS songs
        FROM user_engagement_metrics m
        WHERE m.source = span.source AND window_start >= span.starts AND window_start < span.ends OFFSET 0) m
    UNION ALL
    SELECT 2, 'geographic_metrics', m.*
    FROM span CROSS JOIN LATERAL (
        SELECT window_start, streams, completions, skips, likes, listened_ms, duration_ms,
               hll_cardinality(listeners) AS listeners, hll_cardinality(songs) AS songs
        FROM geographic_metrics m
        WHERE m.source = span.source AND window_start >= span.starts AND window_start < span.ends OFFSET 0) m
    UNION ALL
    SELECT 3, 'device_usage_metrics', m.*
    FROM span CROSS JOIN LATERAL (
        SELECT window_start, streams, completions, skips, likes, listened_ms, duration_ms,
               hll_cardinality(listeners) AS listeners, hll_cardinality(songs) AS songs
        FROM device_usage_metrics m
        WHERE m.source = span.source AND window_start >= span.starts AND window_start < span.ends OFFSET 0) m
    UNION ALL
    SELECT 4, 'content_performance', m.*
    FROM span CROSS JOIN LATERAL (
        SELECT window_start, streams, completions, skips, likes, listened_ms, duration_ms,
               hll_cardinality(listeners) AS listeners, streams::float8 AS songs
        FROM content_performance m
        WHERE m.source = span.source AND window_start >= span.starts AND window_start < span.ends OFFSET 0) m
    UNION ALL
    SELECT 5, 'genre_metrics', m.*
    FROM span CROSS JOIN LATERAL (
        SELECT window_start, streams, completions, skips, likes, listened_ms, duration_ms,
               hll_cardinality(listeners) AS listeners, hll_cardinality(songs) AS songs
        FROM genre_metrics m
        WHERE m.source = span.source AND window_start >= span.starts AND window_start < span.ends OFFSET 0) m
), tables (place, name) AS (
    VALUES (1, 'user_engagement_metrics'), (2, 'geographic_metrics'), (3, 'device_usage_metrics'),
           (4, 'content_performance'), (5, 'genre_metrics')
), bad AS (
    SELECT place, count(*) AS rows,
           count(*) FILTER (WHERE streams <= 0 OR least(completions, skips, likes, listened_ms, duration_ms) < 0)
               AS negative,
           count(*) FILTER (WHERE greatest(completions, skips, likes) > streams) AS too_many,
           -- Hours and days of every time zone begin at a quarter of an hour.
           count(*) FILTER (WHERE window_start <> date_bin(
               CASE WHEN place <= 3 AND window_start >= f.hours_before THEN interval '5 minutes'
                    ELSE interval '15 minutes' END, window_start, 'epoch')) AS misaligned,
           count(*) FILTER (WHERE least(listeners, songs) < 0.85 OR greatest(listeners, songs) > streams * 1.15 + 1)
               AS absurd
    FROM metrics CROSS JOIN metrics_folding f GROUP BY place
)
SELECT tables.name || ': counts, listeners and windows make sense' AS name,
       coalesce(negative + too_many + misaligned + absurd = 0, true) AS ok,
       coalesce(nullif(concat_ws(', ', nullif(negative, 0) || ' negative or empty',
                                 nullif(too_many, 0) || ' with more completions, skips or likes than streams',
                                 nullif(misaligned, 0) || ' with a window misaligned',
                                 nullif(absurd, 0) || ' with listeners or songs absurd'), ''),
                to_char(coalesce(rows, 0), 'FM999,999,999,990') || ' rows good') AS found,
       'all rows good' AS wanted
FROM tables LEFT JOIN bad USING (place)
ORDER BY place;
