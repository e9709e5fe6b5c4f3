-- Both sides of the equality that the appliance promises, for each source, from one snapshot. Reads every row:
-- for musicctl validate, not for a chart that refreshes.
CREATE VIEW ingest_exactness AS
SELECT s.source,
       s.accepted,
       s.present,
       s.expired,
       s.user_engagement,
       s.geographic,
       s.device_usage,
       s.content_performance,
       s.accepted = s.present + s.expired
           AND s.accepted = s.user_engagement AND s.accepted = s.geographic
           AND s.accepted = s.device_usage AND s.accepted = s.content_performance AS exact
FROM (
    SELECT t.source,
           t.accepted,
           t.expired,
           coalesce(r.n, 0)::bigint AS present,
           coalesce(u.n, 0)::bigint AS user_engagement,
           coalesce(g.n, 0)::bigint AS geographic,
           coalesce(d.n, 0)::bigint AS device_usage,
           coalesce(c.n, 0)::bigint AS content_performance
    FROM ingest_totals t
    LEFT JOIN (SELECT source, count(*) AS n FROM stream_events GROUP BY source) r USING (source)
    LEFT JOIN (SELECT source, sum(streams) AS n FROM user_engagement_metrics GROUP BY source) u USING (source)
    LEFT JOIN (SELECT source, sum(streams) AS n FROM geographic_metrics GROUP BY source) g USING (source)
    LEFT JOIN (SELECT source, sum(streams) AS n FROM device_usage_metrics GROUP BY source) d USING (source)
    LEFT JOIN (SELECT source, sum(streams) AS n FROM content_performance_metrics GROUP BY source) c USING (source)
) s;
COMMENT ON VIEW ingest_exactness IS 'Per source: accepted = present + expired = streams of each metric table. Slow on years of data';

-- The same for the plays of the last 24 hours and the running one: whole hours, so that all windows fit. For charts.
CREATE VIEW ingest_exactness_recent AS
SELECT s.*,
       s.present = s.user_engagement AND s.present = s.geographic
           AND s.present = s.device_usage AND s.present = s.content_performance AS exact
FROM (
    SELECT t.source,
           coalesce(r.n, 0)::bigint AS present,
           coalesce(u.n, 0)::bigint AS user_engagement,
           coalesce(g.n, 0)::bigint AS geographic,
           coalesce(d.n, 0)::bigint AS device_usage,
           coalesce(c.n, 0)::bigint AS content_performance
    FROM ingest_totals t
    LEFT JOIN (SELECT source, count(*) AS n FROM stream_events
               WHERE event_time >= date_trunc('hour', now()) - interval '24 hours' GROUP BY source) r USING (source)
    LEFT JOIN (SELECT source, sum(streams) AS n FROM user_engagement_metrics
               WHERE window_start >= date_trunc('hour', now()) - interval '24 hours' GROUP BY source) u USING (source)
    LEFT JOIN (SELECT source, sum(streams) AS n FROM geographic_metrics
               WHERE window_start >= date_trunc('hour', now()) - interval '24 hours' GROUP BY source) g USING (source)
    LEFT JOIN (SELECT source, sum(streams) AS n FROM device_usage_metrics
               WHERE window_start >= date_trunc('hour', now()) - interval '24 hours' GROUP BY source) d USING (source)
    LEFT JOIN (SELECT source, sum(streams) AS n FROM content_performance_metrics
               WHERE window_start >= date_trunc('hour', now()) - interval '24 hours' GROUP BY source) c USING (source)
) s;
COMMENT ON VIEW ingest_exactness_recent IS 'Per source, last 24 hours: rows present = streams of each metric table';

-- A window is final once the watermark has passed its end. Later plays still count in it; they are marked late.
CREATE FUNCTION window_is_final(window_end timestamptz) RETURNS boolean
LANGUAGE sql STABLE AS 'SELECT coalesce(window_end <= (SELECT min(watermark) FROM public.ingest_state), false)';
COMMENT ON FUNCTION window_is_final IS 'Whether the watermark has passed the end of a window';
