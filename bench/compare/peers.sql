-- What the peers write: the raw plays, and the same four tables of metrics as the product, with its windows. Two
-- shapes, as their engines write them: one table of sketches for those that commit all in one transaction, and one
-- table per metric, listeners as a number, for those that append or upsert rows.
CREATE TABLE raw (
    event_id text PRIMARY KEY, event_time timestamptz, source text, user_id text, session_id text, song_id text,
    title text, artist text, album text, genre text, duration_ms bigint, listened_ms bigint, skipped boolean,
    liked boolean, completed boolean, subscription_type text, age_group text, country text, device_type text, os text
);
CREATE TABLE metrics (
    kind int, window_start timestamptz, k1 text, k2 text, plays bigint, skips bigint, likes bigint,
    listened_ms bigint, duration_ms bigint, listeners hll, PRIMARY KEY (kind, window_start, k1, k2)
);
CREATE TABLE offsets (partition int PRIMARY KEY, next_offset bigint NOT NULL);

CREATE TABLE m_engagement (
    window_start timestamptz, subscription_type text, age_group text, plays bigint, skips bigint, likes bigint,
    listened_ms bigint, duration_ms bigint, listeners bigint, PRIMARY KEY (window_start, subscription_type, age_group)
);
CREATE TABLE m_content (
    window_start timestamptz, song_id text, genre text, plays bigint, skips bigint, likes bigint,
    listened_ms bigint, duration_ms bigint, listeners bigint, PRIMARY KEY (window_start, song_id, genre)
);
CREATE TABLE m_geography (
    window_start timestamptz, country text, source text, plays bigint, skips bigint, likes bigint,
    listened_ms bigint, duration_ms bigint, listeners bigint, PRIMARY KEY (window_start, country, source)
);
CREATE TABLE m_device (
    window_start timestamptz, device_type text, os text, plays bigint, skips bigint, likes bigint,
    listened_ms bigint, duration_ms bigint, listeners bigint, PRIMARY KEY (window_start, device_type, os)
);
