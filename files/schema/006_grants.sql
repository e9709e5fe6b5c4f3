-- Least privilege: music_owner changes tables, music_writer adds to them, superset_reader reads them.
-- Partitions need no grants: access goes through stream_events.

DO $$
BEGIN
    EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database());
    EXECUTE format('GRANT CONNECT, TEMPORARY ON DATABASE %I TO music_writer', current_database());
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO superset_reader', current_database());
END
$$;

REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO music_writer, superset_reader;
REVOKE ALL ON FUNCTION
    make_demo_partitions(date[]), expire_demo_events(integer), expire_demo_rollups(timestamptz),
    note_expired(text, text), fold_table(text, text, text[], timestamptz, timestamptz, text),
    fold_next_day(integer, integer), prove_periods(integer), analyze_partitioned(), set_folding_zone(text)
FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
    make_demo_partitions(date[]), expire_demo_events(integer), fold_next_day(integer, integer), prove_periods(integer),
    analyze_partitioned(), set_folding_zone(text)
TO music_writer;

GRANT SELECT, INSERT ON stream_events TO music_writer;
GRANT SELECT, INSERT, UPDATE ON
    user_engagement_metrics, geographic_metrics, device_usage_metrics, content_performance,
    genre_metrics, country_hour_streams, song_days, song_months, ingest_periods
TO music_writer;
GRANT SELECT, INSERT ON songs TO music_writer;
GRANT SELECT, INSERT, UPDATE ON
    ingest_offsets, ingest_limits, ingest_state, ingest_totals, ingest_reject_totals, ingest_flaw_totals
TO music_writer;
GRANT DELETE ON ingest_offsets TO music_writer;
GRANT SELECT, INSERT ON ingest_gaps TO music_writer;
GRANT SELECT, INSERT, DELETE ON ingest_batches, rejected_events TO music_writer;
GRANT SELECT ON schema_migrations, demo_first_day, metrics_folding TO music_writer;

GRANT SELECT ON
    stream_events, user_engagement_metrics, geographic_metrics, device_usage_metrics, content_performance_metrics,
    content_performance, songs, genre_metrics, country_hour_streams, song_days, song_months, song_day_streams,
    countries,
    metrics_folding, metrics_expired, ingest_periods, ingest_recounts,
    ingest_offsets, ingest_limits, ingest_state, ingest_totals, ingest_reject_totals, ingest_flaw_totals,
    ingest_batches, ingest_gaps, rejected_events,
    ingest_exactness, ingest_exactness_recent, demo_first_day, schema_migrations
TO superset_reader;
