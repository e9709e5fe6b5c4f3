-- Takes one real play out again, as its listener asks: the row, and what it added to each metric. The job waits meanwhile,
-- as each of its batches begins with the rows of ingest_offsets. The windows that the play is in are made anew from the
-- plays that stay, for a sketch forgets nobody.

-- One window of one key. keys: the columns of stream_events that are the key; songs: whether there is that sketch.
CREATE FUNCTION recount_own_window(
    metrics_name text, keys text[], song integer, songs boolean, starts timestamptz, ends timestamptz, play stream_events_own
) RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    same    text := (SELECT string_agg(format('%1$I = ($3).%1$I', k), ' AND ') FROM unnest(keys) k);
    key     text := CASE WHEN song IS NULL THEN array_to_string(keys, ', ') ELSE 'song' END;
    made    text := CASE WHEN song IS NULL THEN array_to_string(keys, ', ') ELSE '$4' END;
    changed integer;
BEGIN
    EXECUTE format('DELETE FROM public.%I WHERE window_start = $1 AND source = ($3).source AND %s', metrics_name,
                   CASE WHEN song IS NULL THEN same ELSE 'song = $4' END)
    USING starts, ends, play, song;
    GET DIAGNOSTICS changed = ROW_COUNT;
    IF changed <> 1 THEN
        RAISE EXCEPTION 'play %: found % rows of its window in %, wanted 1; nothing was changed',
            play.event_id, changed, metrics_name USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    EXECUTE format('
        INSERT INTO public.%1$I (window_start, source, %2$s, streams, completions, skips, likes, listened_ms, duration_ms,
                                 listeners %5$s)
        SELECT $1, source, %3$s, count(*), count(*) FILTER (WHERE completed), count(*) FILTER (WHERE skipped),
               count(*) FILTER (WHERE liked), coalesce(sum(listened_ms), 0), coalesce(sum(duration_ms), 0),
               hll_add_agg(hll_hash_text(user_id), 11) %6$s
        FROM public.stream_events
        WHERE source = ($3).source AND event_time >= $1 AND event_time < $2 AND %4$s
        GROUP BY source, %7$s',
        metrics_name, key, made, same, CASE WHEN songs THEN ', songs' ELSE '' END,
        CASE WHEN songs THEN ', hll_add_agg(hll_hash_text(song_id), 11)' ELSE '' END, array_to_string(keys, ', '))
    USING starts, ends, play, song;
END
$$;

CREATE FUNCTION remove_own_play(wanted uuid, whose text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp SET lock_timeout = '5s' AS $$
DECLARE
    play        stream_events_own%ROWTYPE;
    folding     metrics_folding%ROWTYPE;
    number      integer;
    song_keys   text[] := '{song_id,title,artist,genre}';
    whole_hour  timestamptz;
    since       timestamptz;
    until       timestamptz;
    song_since  timestamptz;
    song_until  timestamptz;
BEGIN
    LOCK TABLE ingest_offsets IN EXCLUSIVE MODE;
    -- Windows are not folded meanwhile.
    PERFORM pg_advisory_xact_lock(hashtext('metrics_folding'));
    DELETE FROM stream_events WHERE event_id = wanted AND user_id = whose AND source IN ('scrobble', 'import')
    RETURNING * INTO play;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    SELECT * INTO STRICT folding FROM metrics_folding;
    whole_hour := date_bin('1 hour', play.event_time, folding.hour_origin);
    IF play.event_time >= folding.days_before THEN
        song_since := whole_hour;
        song_until := whole_hour + interval '1 hour';
    ELSE
        song_since := day_start(play.event_time);
        song_until := day_ceiling(song_since + interval '1 hour');
    END IF;
    IF play.event_time >= folding.hours_before THEN
        since := date_bin('5 minutes', play.event_time, 'epoch');
        until := since + interval '5 minutes';
    ELSE
        since := song_since;
        until := song_until;
    END IF;
    SELECT song INTO STRICT number FROM songs
    WHERE (song_id, title, artist, genre) = (play.song_id, play.title, play.artist, play.genre);

    PERFORM recount_own_window('user_engagement_metrics', '{subscription_type,age_group}', NULL, true, since, until, play);
    PERFORM recount_own_window('geographic_metrics', '{country,region}', NULL, true, since, until, play);
    PERFORM recount_own_window('device_usage_metrics', '{device_type,os}', NULL, true, since, until, play);
    PERFORM recount_own_window('content_performance', song_keys, number, false, song_since, song_until, play);
    PERFORM recount_own_window('genre_metrics', '{genre}', NULL, true, song_since, song_until, play);

    UPDATE country_hour_streams AS t SET streams = t.streams - 1
    WHERE t.hour = whole_hour AND t.source = play.source AND t.country = play.country AND t.region = play.region;
    UPDATE song_days AS t SET streams = t.streams - 1
    WHERE t.day = day_start(play.event_time) AND t.source = play.source AND t.song = number;
    UPDATE song_months AS t SET streams = t.streams - 1
    WHERE t.month = month_start(play.event_time) AND t.source = play.source AND t.song = number;
    DELETE FROM country_hour_streams AS t
    WHERE t.hour = whole_hour AND t.source = play.source AND t.streams = 0;
    DELETE FROM song_days AS t WHERE t.day = day_start(play.event_time) AND t.source = play.source AND t.streams = 0;
    DELETE FROM song_months AS t WHERE t.month = month_start(play.event_time) AND t.source = play.source AND t.streams = 0;
    UPDATE ingest_periods AS t SET accepted = t.accepted - 1, open = true
    WHERE t.starts = song_since AND t.source = play.source;
    UPDATE ingest_totals SET
        accepted = accepted - 1, removed = removed + 1, late = late - play.late::int, updated_at = now()
    WHERE source = play.source;
    RETURN true;
END
$$;
COMMENT ON FUNCTION remove_own_play IS 'Takes a real play of a listener out of plays and metrics; whether it was there';
REVOKE ALL ON FUNCTION
    remove_own_play(uuid, text),
    recount_own_window(text, text[], integer, boolean, timestamptz, timestamptz, stream_events_own)
FROM PUBLIC;
GRANT EXECUTE ON FUNCTION remove_own_play(uuid, text) TO music_scrobble;
