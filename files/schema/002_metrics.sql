-- What the dashboards read. All counts are additive and listeners is a mergeable sketch, so any roll-up is right:
-- sum(streams), hll_cardinality(hll_union_agg(listeners)). A window is [window_start, window_start + width).
-- window_start leads each key, since every chart asks for a range of time. Rows of the open windows are rewritten
-- every batch; the free space in their pages (fillfactor) lets PostgreSQL do that without touching the index.

-- 5-minute windows
CREATE TABLE user_engagement_metrics (
    window_start      timestamptz NOT NULL,
    source            text        NOT NULL,
    subscription_type text        NOT NULL,
    age_group         text        NOT NULL,
    streams           bigint      NOT NULL,
    completions       bigint      NOT NULL,
    skips             bigint      NOT NULL,
    likes             bigint      NOT NULL,
    listened_ms       bigint      NOT NULL,
    duration_ms       bigint      NOT NULL,
    listeners         hll(11)     NOT NULL,
    updated_at        timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (window_start, source, subscription_type, age_group)
) WITH (fillfactor = 70);

-- 5-minute windows
CREATE TABLE geographic_metrics (
    window_start      timestamptz NOT NULL,
    source            text        NOT NULL,
    country           text        NOT NULL,
    region            text        NOT NULL,
    streams           bigint      NOT NULL,
    completions       bigint      NOT NULL,
    skips             bigint      NOT NULL,
    likes             bigint      NOT NULL,
    listened_ms       bigint      NOT NULL,
    duration_ms       bigint      NOT NULL,
    listeners         hll(11)     NOT NULL,
    updated_at        timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (window_start, source, country, region)
) WITH (fillfactor = 70);

-- 5-minute windows
CREATE TABLE device_usage_metrics (
    window_start      timestamptz NOT NULL,
    source            text        NOT NULL,
    device_type       text        NOT NULL,
    os                text        NOT NULL,
    streams           bigint      NOT NULL,
    completions       bigint      NOT NULL,
    skips             bigint      NOT NULL,
    likes             bigint      NOT NULL,
    listened_ms       bigint      NOT NULL,
    duration_ms       bigint      NOT NULL,
    listeners         hll(11)     NOT NULL,
    updated_at        timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (window_start, source, device_type, os)
) WITH (fillfactor = 70);

-- 1-hour windows: per song, shorter ones would hold one play each
CREATE TABLE content_performance_metrics (
    window_start      timestamptz NOT NULL,
    source            text        NOT NULL,
    song_id           text        NOT NULL,
    title             text        NOT NULL,
    artist            text        NOT NULL,
    genre             text        NOT NULL,
    streams           bigint      NOT NULL,
    completions       bigint      NOT NULL,
    skips             bigint      NOT NULL,
    likes             bigint      NOT NULL,
    listened_ms       bigint      NOT NULL,
    duration_ms       bigint      NOT NULL,
    listeners         hll(11)     NOT NULL,
    updated_at        timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (window_start, source, song_id, title, artist, genre)
) WITH (fillfactor = 85);

COMMENT ON TABLE user_engagement_metrics IS 'Plays per 5 minutes, subscription type and age group';
COMMENT ON TABLE geographic_metrics IS 'Plays per 5 minutes and country';
COMMENT ON TABLE device_usage_metrics IS 'Plays per 5 minutes, device type and operating system';
COMMENT ON TABLE content_performance_metrics IS 'Plays per hour and song';

-- Two roll-ups of content_performance_metrics, measured to be necessary: a chart over 28 days of 10 million plays
-- would read 6 million rows of it (several seconds on two cores), and reads 1 million of these (0.5 s).
-- Triggers keep them in the transaction that writes the metrics, from the difference of what was and what is. After
-- INSERT and UPDATE, whoever does it, their counts are exact at every commit. DELETE and TRUNCATE are not followed,
-- as a sketch forgets nobody: who deletes metrics deletes the same plays here, as musicctl demo remove does.

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

-- new_rows and old_rows are the rows that the statement wrote, after and before it; an insert has none before.
CREATE FUNCTION roll_up_inserted_content() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO public.song_day_streams AS t (day, source, song_id, title, artist, genre, streams)
    SELECT date_trunc('day', window_start, 'UTC'), source, song_id, title, artist, genre, sum(streams)
    FROM new_rows
    GROUP BY 1, 2, 3, 4, 5, 6 ORDER BY 1, 2, 3, 4, 5, 6
    ON CONFLICT (day, source, song_id, title, artist, genre) DO UPDATE SET streams = t.streams + excluded.streams;

    INSERT INTO public.genre_metrics AS t
        (window_start, source, genre, streams, completions, skips, likes, listened_ms, duration_ms, listeners)
    SELECT window_start, source, genre, sum(streams), sum(completions), sum(skips), sum(likes),
           sum(listened_ms), sum(duration_ms), hll_union_agg(listeners)
    FROM new_rows
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
    FROM (SELECT window_start, source, song_id, title, artist, genre, streams FROM new_rows
          UNION ALL
          SELECT window_start, source, song_id, title, artist, genre, -streams FROM old_rows) difference
    GROUP BY 1, 2, 3, 4, 5, 6 ORDER BY 1, 2, 3, 4, 5, 6
    ON CONFLICT (day, source, song_id, title, artist, genre) DO UPDATE SET streams = t.streams + excluded.streams;

    INSERT INTO public.genre_metrics AS t
        (window_start, source, genre, streams, completions, skips, likes, listened_ms, duration_ms, listeners)
    SELECT window_start, source, genre, sum(streams), sum(completions), sum(skips), sum(likes),
           sum(listened_ms), sum(duration_ms), hll_union_agg(listeners)
    FROM (SELECT window_start, source, genre, streams, completions, skips, likes, listened_ms, duration_ms, listeners
          FROM new_rows
          UNION ALL
          SELECT window_start, source, genre, -streams, -completions, -skips, -likes, -listened_ms, -duration_ms, NULL
          FROM old_rows) difference
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
    REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION roll_up_inserted_content();
CREATE TRIGGER roll_up_updated AFTER UPDATE ON content_performance_metrics
    REFERENCING NEW TABLE AS new_rows OLD TABLE AS old_rows
    FOR EACH STATEMENT EXECUTE FUNCTION roll_up_updated_content();
