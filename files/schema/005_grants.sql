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
REVOKE ALL ON FUNCTION make_demo_partitions(date[]), expire_demo_events(integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION make_demo_partitions(date[]), expire_demo_events(integer) TO music_writer;

GRANT SELECT, INSERT ON stream_events TO music_writer;
GRANT SELECT, INSERT, UPDATE ON
    user_engagement_metrics, geographic_metrics, device_usage_metrics, content_performance_metrics,
    song_day_streams, genre_metrics
TO music_writer;
GRANT SELECT, INSERT, UPDATE ON
    ingest_offsets, ingest_limits, ingest_state, ingest_totals, ingest_reject_totals, ingest_flaw_totals
TO music_writer;
GRANT DELETE ON ingest_offsets TO music_writer;
GRANT SELECT, INSERT ON ingest_gaps TO music_writer;
GRANT SELECT, INSERT, DELETE ON ingest_batches, rejected_events TO music_writer;
GRANT SELECT ON schema_migrations, demo_first_day TO music_writer;

GRANT SELECT ON
    stream_events, user_engagement_metrics, geographic_metrics, device_usage_metrics, content_performance_metrics,
    song_day_streams, genre_metrics, countries,
    ingest_offsets, ingest_limits, ingest_state, ingest_totals, ingest_reject_totals, ingest_flaw_totals,
    ingest_batches, ingest_gaps, rejected_events,
    ingest_exactness, ingest_exactness_recent, demo_first_day, schema_migrations
TO superset_reader;
