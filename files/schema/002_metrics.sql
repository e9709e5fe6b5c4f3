-- What the dashboards read. All counts are additive, listeners and songs are mergeable sketches, so any roll-up is
-- right: sum(streams), hll_cardinality(hll_union_agg(listeners)). window_start leads each key, since every chart asks
-- for a range of time.
--
-- Windows widen as they age (metrics_folding): 5 minutes, then hours, then days. They do so in place, in the table
-- that the chart reads anyway, so no chart has to know; a sum over whole days is the same before and after.
--
-- Generated plays lie in partitions of their own, one a UTC day, and go with the raw plays of that day. The metrics
-- of real plays stay for ever in one plain table.

-- A song as the metrics of content know it: by a number, so that their rows are short. Songs are only ever added.
CREATE TABLE songs (
    song    integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    song_id text NOT NULL,
    title   text NOT NULL,
    artist  text NOT NULL,
    genre   text NOT NULL,
    UNIQUE (song_id, title, artist, genre)
);
COMMENT ON TABLE songs IS 'Song id, title, artist and genre as they were played, behind an integer key';

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
    songs             hll(11)     NOT NULL,
    updated_at        timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (window_start, source, subscription_type, age_group)
) PARTITION BY LIST (source);

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
    songs             hll(11)     NOT NULL,
    updated_at        timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (window_start, source, country, region)
) PARTITION BY LIST (source);

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
    songs             hll(11)     NOT NULL,
    updated_at        timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (window_start, source, device_type, os)
) PARTITION BY LIST (source);

-- Per song, shorter windows than an hour would hold one play each.
CREATE TABLE content_performance (
    window_start      timestamptz NOT NULL,
    source            text        NOT NULL,
    song              integer     NOT NULL,
    streams           bigint      NOT NULL,
    completions       bigint      NOT NULL,
    skips             bigint      NOT NULL,
    likes             bigint      NOT NULL,
    listened_ms       bigint      NOT NULL,
    duration_ms       bigint      NOT NULL,
    listeners         hll(11)     NOT NULL,
    updated_at        timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (window_start, source, song)
) PARTITION BY LIST (source);

COMMENT ON TABLE user_engagement_metrics IS 'Plays per window, subscription type and age group';
COMMENT ON TABLE geographic_metrics IS 'Plays per window and country';
COMMENT ON TABLE device_usage_metrics IS 'Plays per window, device type and operating system';
COMMENT ON TABLE content_performance IS 'Plays per window and song, songs by number; read content_performance_metrics';

-- Rows of the open windows are rewritten every batch: the free space in their pages (fillfactor) lets PostgreSQL do
-- that without touching the index, and vacuum comes after a twentieth of the rows has changed, not after a fifth.
DO $$
DECLARE
    name  text;
    often text;
BEGIN
    FOREACH name IN ARRAY ARRAY['user_engagement_metrics', 'geographic_metrics', 'device_usage_metrics', 'content_performance']
    LOOP
        often := format('fillfactor = %s, autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05',
                        CASE name WHEN 'content_performance' THEN 85 ELSE 70 END);
        EXECUTE format('CREATE TABLE %I PARTITION OF %I FOR VALUES IN (''scrobble'', ''import'') WITH (%s)',
                       name || '_own', name, often);
        EXECUTE format('CREATE TABLE %I PARTITION OF %I FOR VALUES IN (''demo'') PARTITION BY RANGE (window_start)',
                       name || '_demo', name);
        EXECUTE format('CREATE TABLE %I PARTITION OF %I FOR VALUES FROM (MINVALUE) TO (''2002-10-01 00:00:00+00'') WITH (%s)',
                       name || '_demo_old', name || '_demo', often);
    END LOOP;
END
$$;

CREATE VIEW content_performance_metrics AS
SELECT c.window_start, c.source, s.song_id, s.title, s.artist, s.genre, c.streams, c.completions, c.skips, c.likes,
       c.listened_ms, c.duration_ms, c.listeners, c.updated_at
FROM content_performance c JOIN songs s USING (song);
COMMENT ON VIEW content_performance_metrics IS 'Plays per window and song';

-- Roll-ups: the same plays once more, added up for charts that would else read millions of rows. The batch writes them
-- from the plays that it inserted, as it writes the tables above.

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
    songs        hll(11)     NOT NULL,
    updated_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (window_start, source, genre)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05);
COMMENT ON TABLE genre_metrics IS 'Plays per window of content_performance and genre';

-- Never folded, so that the hour of the day is known for any day of any year.
CREATE TABLE country_hour_streams (
    hour    timestamptz NOT NULL,
    source  text        NOT NULL,
    country text        NOT NULL,
    region  text        NOT NULL,
    streams bigint      NOT NULL,
    PRIMARY KEY (hour, source, country, region)
) WITH (fillfactor = 85, autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05);
COMMENT ON TABLE country_hour_streams IS 'Plays per hour and country, for ever in hours';

CREATE TABLE song_days (
    day     timestamptz NOT NULL,
    source  text        NOT NULL,
    song    integer     NOT NULL,
    streams bigint      NOT NULL,
    PRIMARY KEY (day, source, song)
) WITH (fillfactor = 85, autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05);
COMMENT ON TABLE song_days IS 'Plays per local day and song';

CREATE TABLE song_months (
    month   timestamptz NOT NULL,
    source  text        NOT NULL,
    song    integer     NOT NULL,
    streams bigint      NOT NULL,
    PRIMARY KEY (month, source, song)
) WITH (fillfactor = 85, autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05);
COMMENT ON TABLE song_months IS 'Plays per local month and song';

CREATE VIEW song_day_streams AS
SELECT d.day, d.source, s.song_id, s.title, s.artist, s.genre, d.streams FROM song_days d JOIN songs s USING (song);
COMMENT ON VIEW song_day_streams IS 'Plays per local day and song, with the song''s texts';

-- How old windows are folded. zone is the display time zone: a day of the metrics is a day of its owner, and an hour
-- begins when the owner's clock shows a full hour (hour_origin is such a moment), with +05:30 and +05:45 too.
CREATE TABLE metrics_folding (
    only_row     boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    zone         text        NOT NULL,
    hour_origin  timestamptz NOT NULL,
    hours_before timestamptz NOT NULL,
    days_before  timestamptz NOT NULL CHECK (days_before <= hours_before)
);
COMMENT ON TABLE metrics_folding IS 'Which windows are hours and which are days by now';
COMMENT ON COLUMN metrics_folding.zone IS 'Whose days windows are folded to; fixed once a play is stored';
COMMENT ON COLUMN metrics_folding.hours_before IS 'Windows of 5 minutes that begin before are hours';
COMMENT ON COLUMN metrics_folding.days_before IS 'Windows that begin before are local days';
INSERT INTO metrics_folding (zone, hour_origin, hours_before, days_before) VALUES
    ('UTC', 'epoch', date_trunc('day', now() - interval '14 days', 'UTC'), date_trunc('day', now() - interval '90 days', 'UTC'));

-- The other side of the equality, for what is no longer there.
CREATE TABLE metrics_expired (
    name        text   NOT NULL,
    source      text   NOT NULL,
    streams     bigint NOT NULL,
    completions bigint NOT NULL DEFAULT 0,
    skips       bigint NOT NULL DEFAULT 0,
    likes       bigint NOT NULL DEFAULT 0,
    listened_ms bigint NOT NULL DEFAULT 0,
    duration_ms bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (name, source)
) WITH (fillfactor = 50);
COMMENT ON TABLE metrics_expired IS 'What the dropped windows of generated plays had counted, per table of metrics';
