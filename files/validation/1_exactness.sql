-- Do all tables tell of the same plays?
--
-- Proves for each source: the accepted plays = the rows ever written (present + expired) = the streams of each table of
-- metrics (present + expired). And for each other count: its sum is the same in each of them. Counted are the hours and
-- days that are open; for the others stands what was proved when they closed (music.validate_full counts all).
WITH span AS MATERIALIZED (
    SELECT starts, ends, source, accepted FROM ingest_periods
    WHERE open OR current_setting('music.validate_full', true) = 'on'
), sums AS (
    SELECT 1 AS place, 'user_engagement_metrics' AS name, span.source, span.starts, m.*
    FROM span CROSS JOIN LATERAL (
        SELECT sum(streams) AS streams, sum(completions) AS completions, sum(skips) AS skips, sum(likes) AS likes,
               sum(listened_ms) AS listened_ms, sum(duration_ms) AS duration_ms
        FROM user_engagement_metrics m
        WHERE m.source = span.source AND window_start >= span.starts AND window_start < span.ends) m
    UNION ALL
    SELECT 2, 'geographic_metrics', span.source, span.starts, m.*
    FROM span CROSS JOIN LATERAL (
        SELECT sum(streams), sum(completions), sum(skips), sum(likes), sum(listened_ms), sum(duration_ms)
        FROM geographic_metrics m
        WHERE m.source = span.source AND window_start >= span.starts AND window_start < span.ends) m
    UNION ALL
    SELECT 3, 'device_usage_metrics', span.source, span.starts, m.*
    FROM span CROSS JOIN LATERAL (
        SELECT sum(streams), sum(completions), sum(skips), sum(likes), sum(listened_ms), sum(duration_ms)
        FROM device_usage_metrics m
        WHERE m.source = span.source AND window_start >= span.starts AND window_start < span.ends) m
    UNION ALL
    SELECT 4, 'content_performance', span.source, span.starts, m.*
    FROM span CROSS JOIN LATERAL (
        SELECT sum(streams), sum(completions), sum(skips), sum(likes), sum(listened_ms), sum(duration_ms)
        FROM content_performance m
        WHERE m.source = span.source AND window_start >= span.starts AND window_start < span.ends) m
    UNION ALL
    SELECT 5, 'genre_metrics', span.source, span.starts, m.*
    FROM span CROSS JOIN LATERAL (
        SELECT sum(streams), sum(completions), sum(skips), sum(likes), sum(listened_ms), sum(duration_ms)
        FROM genre_metrics m
        WHERE m.source = span.source AND window_start >= span.starts AND window_start < span.ends) m
    UNION ALL
    SELECT 6, 'country_hour_streams', span.source, span.starts, m.streams, NULL, NULL, NULL, NULL, NULL
    FROM span CROSS JOIN LATERAL (
        SELECT sum(streams) AS streams FROM country_hour_streams m
        WHERE m.source = span.source AND hour >= span.starts AND hour < span.ends) m
), tables (place, name) AS (
    VALUES (1, 'user_engagement_metrics'), (2, 'geographic_metrics'), (3, 'device_usage_metrics'),
           (4, 'content_performance'), (5, 'genre_metrics'), (6, 'country_hour_streams')
), day AS MATERIALIZED (
    -- Of generated plays the oldest day may be there in parts.
    SELECT DISTINCT span.source, day_start(span.starts) AS day FROM span, demo_first_day
    WHERE span.source <> 'demo' OR day_start(span.starts) >= first_day::timestamp AT TIME ZONE 'UTC'
), of_days AS (
    SELECT day.source, sum(p.accepted) AS accepted, sum(s.streams) AS streams
    FROM day
    CROSS JOIN LATERAL (SELECT sum(accepted) AS accepted FROM ingest_periods p WHERE p.source = day.source
                        AND p.starts >= day.day AND p.starts < day_ceiling(day.day + interval '1 hour')) p
    CROSS JOIN LATERAL (SELECT coalesce(sum(streams), 0) AS streams FROM song_days s
                        WHERE s.source = day.source AND s.day = day.day) s
    GROUP BY day.source
), of_months AS (
    SELECT month.source, sum(d.streams) AS of_days, sum(m.streams) AS streams
    FROM (SELECT DISTINCT source, month_start(day) AS month FROM day) month
    CROSS JOIN LATERAL (SELECT coalesce(sum(streams), 0) AS streams FROM song_days d WHERE d.source = month.source
                        AND d.day >= month.month AND d.day < month_ceiling(month.month + interval '1 hour')) d
    CROSS JOIN LATERAL (SELECT coalesce(sum(streams), 0) AS streams FROM song_months m
                        WHERE m.source = month.source AND m.month = month.month) m
    GROUP BY month.source
), totals AS (
    SELECT t.source, t.accepted, t.expired,
           (SELECT coalesce(sum(p.proved), 0) FROM ingest_periods p WHERE p.source = t.source AND NOT p.open
            AND coalesce(current_setting('music.validate_full', true), '') <> 'on') AS proved
    FROM ingest_totals t
), sides AS (
    SELECT source, accepted, 0 AS place, 'rows' AS name,
           expired + proved + (
               SELECT coalesce(sum(n), 0) FROM span CROSS JOIN LATERAL (
                   SELECT count(*) AS n FROM stream_events e WHERE e.source = span.source
                   AND event_time >= span.starts AND event_time < span.ends) e
               WHERE span.source = totals.source) AS number
    FROM totals
    UNION ALL
    SELECT source, accepted, place, name, proved
           + coalesce((SELECT sum(streams) FROM sums WHERE sums.source = totals.source AND sums.name = tables.name), 0)
           + coalesce((SELECT x.streams FROM metrics_expired x WHERE x.source = totals.source AND x.name = tables.name), 0)
    FROM totals CROSS JOIN tables
    UNION ALL
    SELECT source, totals.accepted, 7, 'song_days', totals.accepted - of_days.accepted + of_days.streams
    FROM totals JOIN of_days USING (source)
    UNION ALL
    SELECT source, totals.accepted, 8, 'song_months', totals.accepted - of_months.of_days + of_months.streams
    FROM totals JOIN of_months USING (source)
), counts AS (
    SELECT count, source, place, name, coalesce(sum(total), 0) AS total
    FROM ingest_totals CROSS JOIN tables
    CROSS JOIN unnest(ARRAY['completions', 'skips', 'likes', 'listened_ms', 'duration_ms']) AS count
    LEFT JOIN (
        SELECT source, name, unpivoted.count, unpivoted.total
        FROM sums
        CROSS JOIN LATERAL (VALUES ('completions', completions), ('skips', skips), ('likes', likes),
                                   ('listened_ms', listened_ms), ('duration_ms', duration_ms)) unpivoted (count, total)
        WHERE source <> 'demo' OR starts >= (SELECT first_day::timestamp AT TIME ZONE 'UTC' FROM demo_first_day)
    ) summed USING (source, name, count)
    WHERE place <= 5  -- the others have streams only
    GROUP BY 1, 2, 3, 4
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
    SELECT 2, count, count || ': the same sum in each metric table, of what is open', bool_and(same),
           string_agg(source || ' ' || told, '; ' ORDER BY source), 'equal'
    FROM count_of_source GROUP BY count
) answers
ORDER BY part, item;
