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
