-- Takes one real play out again, as its listener asks: the row, and what it added to each metric. The job waits meanwhile,
-- as each of its batches begins with the rows of ingest_offsets. Sketches are made anew from the plays that stay.
CREATE FUNCTION remove_own_play(wanted uuid, whose text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp SET lock_timeout = '5s' AS $$
DECLARE
    play     stream_events_own%ROWTYPE;
    minutes5 timestamptz;
    hour     timestamptz;
    five     interval := '5 minutes';
    changed  integer;
    total    integer := 0;
BEGIN
    LOCK TABLE ingest_offsets IN EXCLUSIVE MODE;
    DELETE FROM stream_events WHERE event_id = wanted AND user_id = whose AND source IN ('scrobble', 'import')
    RETURNING * INTO play;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    minutes5 := date_bin(five, play.event_time, 'epoch'::timestamptz);
    hour := date_bin('1 hour', play.event_time, 'epoch'::timestamptz);

    UPDATE user_engagement_metrics AS t SET
        streams = t.streams - 1,
        completions = t.completions - coalesce(play.completed, false)::int,
        skips = t.skips - coalesce(play.skipped, false)::int,
        likes = t.likes - coalesce(play.liked, false)::int,
        listened_ms = t.listened_ms - coalesce(play.listened_ms, 0),
        duration_ms = t.duration_ms - coalesce(play.duration_ms, 0),
        listeners = coalesce((
            SELECT hll_add_agg(hll_hash_text(e.user_id), 11) FROM stream_events e
            WHERE e.source = play.source AND e.event_time >= minutes5 AND e.event_time < minutes5 + five
              AND e.subscription_type = play.subscription_type AND e.age_group = play.age_group), hll_empty(11)),
        updated_at = now()
    WHERE t.window_start = minutes5 AND t.source = play.source
      AND t.subscription_type = play.subscription_type AND t.age_group = play.age_group;
    GET DIAGNOSTICS changed = ROW_COUNT;
    total := total + changed;

    UPDATE geographic_metrics AS t SET
        streams = t.streams - 1,
        completions = t.completions - coalesce(play.completed, false)::int,
        skips = t.skips - coalesce(play.skipped, false)::int,
        likes = t.likes - coalesce(play.liked, false)::int,
        listened_ms = t.listened_ms - coalesce(play.listened_ms, 0),
        duration_ms = t.duration_ms - coalesce(play.duration_ms, 0),
        listeners = coalesce((
            SELECT hll_add_agg(hll_hash_text(e.user_id), 11) FROM stream_events e
            WHERE e.source = play.source AND e.event_time >= minutes5 AND e.event_time < minutes5 + five
              AND e.country = play.country AND e.region = play.region), hll_empty(11)),
        updated_at = now()
    WHERE t.window_start = minutes5 AND t.source = play.source
      AND t.country = play.country AND t.region = play.region;
    GET DIAGNOSTICS changed = ROW_COUNT;
    total := total + changed;

    UPDATE device_usage_metrics AS t SET
        streams = t.streams - 1,
        completions = t.completions - coalesce(play.completed, false)::int,
        skips = t.skips - coalesce(play.skipped, false)::int,
        likes = t.likes - coalesce(play.liked, false)::int,
        listened_ms = t.listened_ms - coalesce(play.listened_ms, 0),
        duration_ms = t.duration_ms - coalesce(play.duration_ms, 0),
        listeners = coalesce((
            SELECT hll_add_agg(hll_hash_text(e.user_id), 11) FROM stream_events e
            WHERE e.source = play.source AND e.event_time >= minutes5 AND e.event_time < minutes5 + five
              AND e.device_type = play.device_type AND e.os = play.os), hll_empty(11)),
        updated_at = now()
    WHERE t.window_start = minutes5 AND t.source = play.source
      AND t.device_type = play.device_type AND t.os = play.os;
    GET DIAGNOSTICS changed = ROW_COUNT;
    total := total + changed;

    -- Its trigger takes the play out of the two roll-ups as well.
    UPDATE content_performance_metrics AS t SET
        streams = t.streams - 1,
        completions = t.completions - coalesce(play.completed, false)::int,
        skips = t.skips - coalesce(play.skipped, false)::int,
        likes = t.likes - coalesce(play.liked, false)::int,
        listened_ms = t.listened_ms - coalesce(play.listened_ms, 0),
        duration_ms = t.duration_ms - coalesce(play.duration_ms, 0),
        listeners = coalesce((
            SELECT hll_add_agg(hll_hash_text(e.user_id), 11) FROM stream_events e
            WHERE e.source = play.source AND e.event_time >= hour AND e.event_time < hour + interval '1 hour'
              AND e.song_id = play.song_id AND e.title = play.title AND e.artist = play.artist
              AND e.genre = play.genre), hll_empty(11)),
        updated_at = now()
    WHERE t.window_start = hour AND t.source = play.source AND t.song_id = play.song_id
      AND t.title = play.title AND t.artist = play.artist AND t.genre = play.genre;
    GET DIAGNOSTICS changed = ROW_COUNT;
    total := total + changed;
    IF total <> 4 THEN
        RAISE EXCEPTION 'play %: found its windows in % of 4 metric tables, wanted all; nothing was changed', wanted, total
            USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;

    UPDATE genre_metrics AS t SET
        listeners = coalesce((
            SELECT hll_add_agg(hll_hash_text(e.user_id), 11) FROM stream_events e
            WHERE e.source = play.source AND e.event_time >= hour AND e.event_time < hour + interval '1 hour'
              AND e.genre = play.genre), hll_empty(11))
    WHERE t.window_start = hour AND t.source = play.source AND t.genre = play.genre;

    DELETE FROM user_engagement_metrics WHERE window_start = minutes5 AND source = play.source AND streams = 0;
    DELETE FROM geographic_metrics WHERE window_start = minutes5 AND source = play.source AND streams = 0;
    DELETE FROM device_usage_metrics WHERE window_start = minutes5 AND source = play.source AND streams = 0;
    DELETE FROM content_performance_metrics WHERE window_start = hour AND source = play.source AND streams = 0;
    DELETE FROM genre_metrics WHERE window_start = hour AND source = play.source AND streams = 0;
    DELETE FROM song_day_streams
    WHERE day = date_trunc('day', play.event_time, 'UTC') AND source = play.source AND song_id = play.song_id
      AND streams = 0;
    UPDATE ingest_totals SET
        accepted = accepted - 1, removed = removed + 1, late = late - play.late::int, updated_at = now()
    WHERE source = play.source;
    RETURN true;
END
$$;
COMMENT ON FUNCTION remove_own_play IS 'Takes a real play of a listener out of plays and metrics; whether it was there';
REVOKE ALL ON FUNCTION remove_own_play FROM PUBLIC;
GRANT EXECUTE ON FUNCTION remove_own_play TO music_scrobble;
