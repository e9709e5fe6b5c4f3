-- What a clock that was ahead leaves behind. The job calls it once the clock is right, and again every minute: where
-- nothing lies in the future it finds that out from a few rows.
--
-- Plays dated ahead stay: each is as its sender dated it. They are found by `musicctl clock`, which can remove them.

CREATE FUNCTION draw_back_times(horizon timestamptz, watermark_delay interval) RETURNS SETOF text
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp SET lock_timeout = '5s' AS $$
DECLARE
    changed bigint;
    moment  timestamptz := clock_timestamp();
    totals  record;
    newest  timestamptz;
BEGIN
    IF NOT EXISTS (SELECT FROM public.ingest_totals WHERE newest_event_time > horizon)
       AND NOT EXISTS (SELECT FROM public.ingest_state WHERE watermark > horizon - watermark_delay)
       AND NOT EXISTS (SELECT FROM public.ingest_batches WHERE committed_at > horizon) THEN
        RETURN;
    END IF;
    -- Every batch locks it before it counts.
    PERFORM FROM public.ingest_state FOR UPDATE;
    FOR totals IN SELECT * FROM public.ingest_totals WHERE newest_event_time > horizon LOOP
        SELECT max(event_time) INTO newest FROM public.stream_events
        WHERE source = totals.source AND event_time <= horizon AND event_time > horizon - interval '1 day';
        IF newest IS NULL THEN
            SELECT max(event_time) INTO newest FROM public.stream_events
            WHERE source = totals.source AND event_time <= horizon;
        END IF;
        UPDATE public.ingest_totals SET newest_event_time = newest, updated_at = now() WHERE source = totals.source;
        RETURN NEXT format('the newest play of %s from %s back to %s', totals.source, totals.newest_event_time,
                           coalesce(newest::text, 'none'));
    END LOOP;
    SELECT max(newest_event_time) - watermark_delay INTO newest FROM public.ingest_totals;
    FOR totals IN SELECT * FROM public.ingest_state WHERE watermark > horizon - watermark_delay LOOP
        UPDATE public.ingest_state SET watermark = newest, updated_at = now() WHERE topic = totals.topic;
        RETURN NEXT format('the watermark of %s from %s back to %s', totals.topic, totals.watermark,
                           coalesce(newest::text, 'none'));
    END LOOP;
    IF EXISTS (SELECT FROM public.ingest_batches WHERE committed_at > horizon) THEN
        UPDATE public.ingest_batches SET read_at = least(read_at, moment), ingested_at = least(ingested_at, moment),
            committed_at = least(committed_at, moment), watermark = least(watermark, newest)
        WHERE committed_at > horizon;
        GET DIAGNOSTICS changed = ROW_COUNT;
        RETURN NEXT format('the times of %s batches back to %s', changed, moment);
        UPDATE public.stream_events SET ingested_at = moment WHERE ingested_at > horizon;
        GET DIAGNOSTICS changed = ROW_COUNT;
        RETURN NEXT format('the time at which %s plays were stored back to %s', changed, moment);
    END IF;
END
$$;
COMMENT ON FUNCTION draw_back_times IS 'Draws watermark, newest times and times of batches behind horizon back; tells what it changed';
REVOKE ALL ON FUNCTION draw_back_times(timestamptz, interval) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION draw_back_times(timestamptz, interval) TO music_writer;
