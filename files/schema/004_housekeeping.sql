-- What the job calls every ten minutes, each in a short transaction of its own: make and drop partitions of generated
-- plays, fold windows, prove periods, analyze. They run as the tables' owner, since the job may not drop or delete.

-- Local days and months, in the zone that windows are folded in. The next day begins within 25 hours.
CREATE FUNCTION day_start(moment timestamptz) RETURNS timestamptz LANGUAGE sql STABLE PARALLEL SAFE AS
    'SELECT date_trunc(''day'', moment, zone) FROM public.metrics_folding';
CREATE FUNCTION day_ceiling(moment timestamptz) RETURNS timestamptz LANGUAGE sql STABLE PARALLEL SAFE AS
    'SELECT CASE WHEN date_trunc(''day'', moment, zone) = moment THEN moment
            ELSE date_trunc(''day'', date_trunc(''day'', moment, zone) + interval ''25 hours'', zone) END
     FROM public.metrics_folding';
CREATE FUNCTION month_start(moment timestamptz) RETURNS timestamptz LANGUAGE sql STABLE PARALLEL SAFE AS
    'SELECT date_trunc(''month'', moment, zone) FROM public.metrics_folding';
CREATE FUNCTION month_ceiling(moment timestamptz) RETURNS timestamptz LANGUAGE sql STABLE PARALLEL SAFE AS
    'SELECT CASE WHEN date_trunc(''month'', moment, zone) = moment THEN moment
            ELSE date_trunc(''month'', date_trunc(''month'', moment, zone) + interval ''32 days'', zone) END
     FROM public.metrics_folding';

-- Sets the zone of folding. Days that are added up cannot be cut anew, so a zone holds as long as a play is there.
CREATE FUNCTION set_folding_zone(wanted text) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    found text;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('metrics_folding'));
    SELECT zone INTO STRICT found FROM public.metrics_folding;
    IF found <> wanted AND NOT EXISTS (SELECT FROM public.ingest_totals WHERE accepted > 0) THEN
        UPDATE public.metrics_folding SET
            zone = wanted,
            hour_origin = date_trunc('hour', now(), wanted),
            hours_before = date_trunc('day', hours_before, wanted),
            days_before = date_trunc('day', days_before, wanted);
        found := wanted;
    END IF;
    RETURN found;
END
$$;
COMMENT ON FUNCTION set_folding_zone IS 'Makes days those of the zone, while no play is stored; returns the zone that holds';

-- Makes the missing daily partitions, and those of the day before, in which a window may begin. CREATE TABLE + ATTACH
-- takes SHARE UPDATE EXCLUSIVE on the parent, which blocks neither readers nor writers; CREATE TABLE ... PARTITION OF
-- would block both.
CREATE FUNCTION make_demo_partitions(days date[]) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    wanted date;
    parent text;
    child  text;
    made   integer := 0;
BEGIN
    FOR wanted IN
        SELECT DISTINCT d - n FROM unnest(days) AS d, generate_series(0, 1) AS n, public.demo_first_day AS f
        WHERE d - n >= f.first_day ORDER BY 1
    LOOP
        child := to_char(wanted, '"_"YYYYMMDD');
        CONTINUE WHEN to_regclass('public.stream_events_demo' || child) IS NOT NULL;
        PERFORM pg_advisory_xact_lock(hashtext('demo_partitions'));
        -- Expiry may have moved the first day while this waited.
        CONTINUE WHEN wanted < (SELECT first_day FROM public.demo_first_day);
        CONTINUE WHEN to_regclass('public.stream_events_demo' || child) IS NOT NULL;
        FOR parent IN SELECT table_name FROM public.demo_tables() LOOP
            EXECUTE format('CREATE TABLE public.%I (LIKE public.%I INCLUDING DEFAULTS INCLUDING INDEXES)%s',
                parent || child, parent, CASE WHEN parent = 'stream_events_demo' THEN '' ELSE
                    format(' WITH (fillfactor = %s, autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05)',
                           CASE parent WHEN 'content_performance_demo' THEN 85 ELSE 70 END) END);
            EXECUTE format('ALTER TABLE public.%I ATTACH PARTITION public.%I FOR VALUES FROM (%L) TO (%L)', parent,
                parent || child, wanted::timestamp AT TIME ZONE 'UTC', (wanted + 1)::timestamp AT TIME ZONE 'UTC');
        END LOOP;
        made := made + 1;
    END LOOP;
    RETURN made;
END
$$;
COMMENT ON FUNCTION make_demo_partitions IS 'Makes the missing daily partitions for generated plays; returns for how many days';

-- The tables of generated plays that have a partition a day; the raw plays first.
CREATE FUNCTION demo_tables() RETURNS TABLE (table_name text) LANGUAGE sql STABLE AS $$
    SELECT relname::text FROM pg_catalog.pg_class
    WHERE relnamespace = 'public'::regnamespace AND relkind = 'p' AND relispartition AND relname LIKE '%\_demo'
    ORDER BY relname <> 'stream_events_demo', relname
$$;

-- Adds what a table of metrics counted to metrics_expired. rows_of: a relation as SQL with the columns of metrics.
CREATE FUNCTION note_expired(metrics_name text, rows_of text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    EXECUTE format('
        INSERT INTO public.metrics_expired AS t
        SELECT %L, ''demo'', coalesce(sum(streams), 0), coalesce(sum(completions), 0), coalesce(sum(skips), 0),
               coalesce(sum(likes), 0), coalesce(sum(listened_ms), 0), coalesce(sum(duration_ms), 0)
        FROM %s
        ON CONFLICT (name, source) DO UPDATE SET
            streams = t.streams + excluded.streams, completions = t.completions + excluded.completions,
            skips = t.skips + excluded.skips, likes = t.likes + excluded.likes,
            listened_ms = t.listened_ms + excluded.listened_ms, duration_ms = t.duration_ms + excluded.duration_ms',
        metrics_name, rows_of);
END
$$;

-- Drops generated plays of days more than keep_days ago with their metrics, and keeps their numbers: those of the raw
-- plays in ingest_totals.expired, those of each table of metrics in metrics_expired.
-- Counting lets readers pass; only the drop itself excludes them, and gives up after two seconds of waiting for a long
-- query (the job tries again later) rather than have every dashboard queue behind it.
CREATE FUNCTION expire_demo_events(keep_days integer) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp SET lock_timeout = '2s' AS $$
DECLARE
    horizon date := (now() AT TIME ZONE 'UTC')::date - keep_days;
    bound   timestamptz := horizon::timestamp AT TIME ZONE 'UTC';
    begins  date;
    parent  text;
    metrics text;
    child   text;
    gone    text[] := '{}';
    n       bigint;
    total   bigint := 0;
BEGIN
    IF keep_days < 1 THEN
        RAISE EXCEPTION 'retention of generated plays: found % days, wanted 1 or more', keep_days;
    END IF;
    -- No batch is at work meanwhile: it would hold one of the tables and wait for another.
    PERFORM pg_advisory_xact_lock(hashtext('metrics_folding'));
    PERFORM pg_advisory_xact_lock(hashtext('demo_partitions'));
    SELECT first_day INTO STRICT begins FROM public.demo_first_day;
    -- Plays that came after their day was dropped.
    IF horizon <= begins THEN
        FOR parent IN SELECT table_name FROM public.demo_tables() LOOP
            child := parent || '_old';
            IF parent = 'stream_events_demo' THEN
                EXECUTE format('DELETE FROM public.%I WHERE event_time < $1', child) USING bound;
                GET DIAGNOSTICS total = ROW_COUNT;
                EXIT WHEN total = 0 AND NOT EXISTS (
                    SELECT FROM public.ingest_periods WHERE source = 'demo' AND ends <= bound);
            ELSE
                metrics := replace(parent, '_demo', '');
                PERFORM public.note_expired(metrics, format('public.%I WHERE window_start < %L', child, bound));
                EXECUTE format('DELETE FROM public.%I WHERE window_start < $1', child) USING bound;
            END IF;
        END LOOP;
    ELSE
        FOR parent IN SELECT table_name FROM public.demo_tables() LOOP
            FOR child IN
                SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
                WHERE i.inhparent = ('public.' || parent)::regclass
                  AND (c.relname = parent || '_old' OR c.relname < parent || to_char(horizon, '"_"YYYYMMDD'))
                ORDER BY c.relname
            LOOP
                IF parent = 'stream_events_demo' THEN
                    EXECUTE format('SELECT count(*) FROM public.%I', child) INTO n;
                    total := total + n;
                ELSE
                    PERFORM public.note_expired(replace(parent, '_demo', ''), format('public.%I', child));
                END IF;
                gone := gone || child;
            END LOOP;
        END LOOP;
        FOR parent IN SELECT table_name FROM public.demo_tables() LOOP
            EXECUTE format('LOCK TABLE ONLY public.%I IN ACCESS EXCLUSIVE MODE', parent);
        END LOOP;
        FOREACH child IN ARRAY gone LOOP
            EXECUTE format('DROP TABLE public.%I', child);
        END LOOP;
        FOR parent IN SELECT table_name FROM public.demo_tables() LOOP
            EXECUTE format('CREATE TABLE public.%I PARTITION OF public.%I FOR VALUES FROM (MINVALUE) TO (%L)',
                           parent || '_old', parent, bound);
        END LOOP;
        UPDATE public.demo_first_day SET first_day = horizon;
    END IF;
    PERFORM public.expire_demo_rollups(bound);
    UPDATE public.ingest_totals SET expired = expired + total, updated_at = now() WHERE source = 'demo' AND total > 0;
    RETURN total;
END
$$;
COMMENT ON FUNCTION expire_demo_events IS 'Drops generated plays older than keep_days whole UTC days; returns how many rows went';

-- The same for the roll-ups, which are small: hours, days and months that ended before bound.
CREATE FUNCTION expire_demo_rollups(bound timestamptz) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    PERFORM public.note_expired('genre_metrics',
        format('public.genre_metrics WHERE source = ''demo'' AND window_start < %L', bound));
    DELETE FROM public.genre_metrics WHERE source = 'demo' AND window_start < bound;
    WITH gone AS (
        DELETE FROM public.country_hour_streams WHERE source = 'demo' AND hour < bound RETURNING streams
    )
    INSERT INTO public.metrics_expired AS t (name, source, streams)
    SELECT 'country_hour_streams', 'demo', coalesce(sum(streams), 0) FROM gone
    ON CONFLICT (name, source) DO UPDATE SET streams = t.streams + excluded.streams;
    WITH gone AS (
        DELETE FROM public.song_days WHERE source = 'demo' AND day < public.day_start(bound)
        RETURNING day, song, streams
    ), added AS (
        INSERT INTO public.metrics_expired AS t (name, source, streams)
        SELECT name, 'demo', coalesce(sum(streams), 0)
        FROM gone RIGHT JOIN (VALUES ('song_days'), ('song_months')) AS n (name) ON true GROUP BY name
        ON CONFLICT (name, source) DO UPDATE SET streams = t.streams + excluded.streams
    )
    UPDATE public.song_months m SET streams = m.streams - g.streams
    FROM (SELECT date_trunc('month', day, zone) AS month, song, sum(streams) AS streams
          FROM gone CROSS JOIN public.metrics_folding GROUP BY 1, 2) g
    WHERE m.source = 'demo' AND m.month = g.month AND m.song = g.song;
    DELETE FROM public.song_months WHERE source = 'demo' AND streams = 0 AND month < bound;
    DELETE FROM public.ingest_periods WHERE source = 'demo' AND ends <= bound;
END
$$;

-- Replaces the windows of one table that begin in [begins, ends) by wider ones.
CREATE FUNCTION fold_table(metrics_name text, keys text, sketches text[], begins timestamptz, ends timestamptz, grain text)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    names text := array_to_string(sketches, ', ');
    unions text := (SELECT string_agg(format('hll_union_agg(%I)', s), ', ') FROM unnest(sketches) s);
BEGIN
    EXECUTE format('
        WITH gone AS (
            DELETE FROM public.%1$I WHERE window_start >= $1 AND window_start < $2 RETURNING *
        )
        INSERT INTO public.%1$I (window_start, source, %2$s, streams, completions, skips, likes, listened_ms,
                                 duration_ms, %3$s, updated_at)
        SELECT %5$s, source, %2$s, sum(streams), sum(completions), sum(skips), sum(likes), sum(listened_ms),
               sum(duration_ms), %4$s, max(updated_at)
        FROM gone CROSS JOIN public.metrics_folding GROUP BY 1, source, %2$s ORDER BY 1',
        metrics_name, keys, names, unions,
        CASE grain WHEN 'day' THEN 'date_trunc(''day'', window_start, zone)'
                   ELSE 'greatest($1, date_bin(''1 hour'', window_start, hour_origin))' END)
    USING begins, ends;
END
$$;

-- Folds the next local day that is old enough: first 5 minutes to hours, then hours to days. One day a transaction,
-- so that the batches wait a moment only: a batch asks in which windows plays fall under the same lock, shared.
CREATE FUNCTION fold_next_day(hours_after integer, days_after integer) RETURNS timestamptz
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp SET lock_timeout = '5s' AS $$
DECLARE
    since timestamptz;
    until timestamptz;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('metrics_folding'));
    SELECT hours_before INTO STRICT since FROM public.metrics_folding;
    until := public.day_ceiling(since + interval '1 hour');
    IF until <= now() - make_interval(days => hours_after) THEN
        PERFORM public.fold_table('user_engagement_metrics', 'subscription_type, age_group', '{listeners,songs}', since, until, 'hour');
        PERFORM public.fold_table('geographic_metrics', 'country, region', '{listeners,songs}', since, until, 'hour');
        PERFORM public.fold_table('device_usage_metrics', 'device_type, os', '{listeners,songs}', since, until, 'hour');
        UPDATE public.metrics_folding SET hours_before = until;
        RETURN since;
    END IF;
    SELECT days_before INTO STRICT since FROM public.metrics_folding;
    until := public.day_ceiling(since + interval '1 hour');
    IF until > now() - make_interval(days => days_after) OR until > (SELECT hours_before FROM public.metrics_folding) THEN
        RETURN NULL;
    END IF;
    -- A local day begins in the UTC day before, or in the same one.
    PERFORM public.make_demo_partitions(ARRAY[(since AT TIME ZONE 'UTC')::date]);
    PERFORM public.fold_table('user_engagement_metrics', 'subscription_type, age_group', '{listeners,songs}', since, until, 'day');
    PERFORM public.fold_table('geographic_metrics', 'country, region', '{listeners,songs}', since, until, 'day');
    PERFORM public.fold_table('device_usage_metrics', 'device_type, os', '{listeners,songs}', since, until, 'day');
    PERFORM public.fold_table('content_performance', 'song', '{listeners}', since, until, 'day');
    PERFORM public.fold_table('genre_metrics', 'genre', '{listeners,songs}', since, until, 'day');
    WITH gone AS (
        DELETE FROM public.ingest_periods AS p WHERE p.starts >= since AND p.starts < until RETURNING p.*
    )
    INSERT INTO public.ingest_periods (starts, source, ends, accepted, open, proved, proved_at)
    SELECT since, gone.source, until, sum(gone.accepted), bool_or(gone.open),
           CASE WHEN bool_and(gone.proved IS NOT NULL) THEN sum(gone.proved) END, min(gone.proved_at)
    FROM gone GROUP BY gone.source;
    UPDATE public.metrics_folding SET days_before = until;
    RETURN since;
END
$$;
COMMENT ON FUNCTION fold_next_day IS 'Folds the windows of the next day that is old enough; returns where it began, or NULL';

-- Parents of partitions have statistics of their own, which autovacuum never renews.
CREATE FUNCTION analyze_partitioned() RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    parent text;
    done   integer := 0;
BEGIN
    FOR parent IN
        SELECT s.relname FROM pg_stat_user_tables s JOIN pg_class c ON c.oid = s.relid
        WHERE c.relkind = 'p' AND NOT c.relispartition AND s.schemaname = 'public'
          AND coalesce(s.last_analyze, '-infinity') < now() - interval '20 hours'
    LOOP
        EXECUTE format('ANALYZE public.%I', parent);
        done := done + 1;
    END LOOP;
    RETURN done;
END
$$;
COMMENT ON FUNCTION analyze_partitioned IS 'Analyzes the partitioned tables, at most once in 20 hours; returns how many';
