-- Are the newest play and the watermark where they may be?
--
-- Proves: no play is dated further ahead than the tolerance (300 s, or what musicctl validate has set from the settings);
-- the newest time and the watermark, which such a play would have moved, are not ahead either; the watermark is behind
-- the newest play. `musicctl clock` finds and removes what a clock that was ahead has left.
WITH seen AS (
    SELECT (SELECT max(newest_event_time) FROM ingest_totals) AS newest,
           (SELECT max(watermark) FROM ingest_state) AS watermark,
           now() + make_interval(
               secs => coalesce(nullif(current_setting('music.future_tolerance_seconds', true), ''), '300')::int
           ) AS horizon
), told AS (
    SELECT *,
           (SELECT count(*) FROM stream_events, seen s WHERE event_time > s.horizon AND event_time > now()) AS ahead,
           to_char(newest AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS') AS newest_text,
           to_char(watermark AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS') AS watermark_text,
           to_char(horizon AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS') AS horizon_text
    FROM seen
)
SELECT 'no play is dated further ahead than the tolerance' AS name,
       coalesce(newest <= horizon, true) AND ahead = 0 AS ok,
       coalesce('newest ' || newest_text, 'no play')
           || coalesce('; ' || to_char(nullif(ahead, 0), 'FM999,999,999,990') || ' ahead: musicctl clock', '') AS found,
       'at most ' || horizon_text || ' (UTC)' AS wanted
FROM told
UNION ALL
SELECT 'the watermark is behind the newest play',
       watermark IS NULL OR coalesce(watermark <= newest, false),
       coalesce(watermark_text, 'none'),
       coalesce('at most ' || newest_text || ' (UTC)', 'none')
FROM told;
