-- Is every word in the metrics one of the contract's?
--
-- Proves, for the hours and days that are open (music.validate_full: all): what came from the wire as another word was stored as unknown. The contract is app/music_streaming/event.py;
-- a test compares.
WITH vocabularies (place, name, field, words) AS (
    VALUES (1, 'user_engagement_metrics', 'subscription_type', ARRAY['free', 'premium', 'family', 'student']),
           (2, 'user_engagement_metrics', 'age_group',
               ARRAY['<18', '18-24', '25-34', '35-44', '45-54', '55-64', '65+']),
           (3, 'geographic_metrics', 'region', ARRAY['Africa', 'Americas', 'Asia', 'Europe', 'Oceania']),
           (4, 'device_usage_metrics', 'device_type',
               ARRAY['mobile', 'tablet', 'desktop', 'web', 'speaker', 'tv', 'car', 'console'])
), span AS MATERIALIZED (
    SELECT starts, ends, source FROM ingest_periods
    WHERE open OR current_setting('music.validate_full', true) = 'on'
), used (place, word) AS (
    -- OFFSET 0: range by range through the key; a join of all with all would be planned else.
    SELECT DISTINCT 1, subscription_type FROM span CROSS JOIN LATERAL (
        SELECT subscription_type FROM user_engagement_metrics m
        WHERE m.source = span.source AND window_start >= span.starts AND window_start < span.ends OFFSET 0) m
    UNION ALL SELECT DISTINCT 2, age_group FROM span CROSS JOIN LATERAL (
        SELECT age_group FROM user_engagement_metrics m
        WHERE m.source = span.source AND window_start >= span.starts AND window_start < span.ends OFFSET 0) m
    UNION ALL SELECT DISTINCT 3, region FROM span CROSS JOIN LATERAL (
        SELECT region FROM geographic_metrics m
        WHERE m.source = span.source AND window_start >= span.starts AND window_start < span.ends OFFSET 0) m
    UNION ALL SELECT DISTINCT 4, device_type FROM span CROSS JOIN LATERAL (
        SELECT device_type FROM device_usage_metrics m
        WHERE m.source = span.source AND window_start >= span.starts AND window_start < span.ends OFFSET 0) m
), strange AS (
    SELECT place, string_agg(quote_literal(word), ', ' ORDER BY word) AS words
    FROM used JOIN vocabularies USING (place)
    WHERE word <> ALL (words) AND word <> 'unknown'
    GROUP BY place
)
SELECT name || ': ' || field || ' is of the vocabulary' AS name,
       strange.words IS NULL AS ok,
       coalesce(strange.words, 'no other word') AS found,
       array_to_string(vocabularies.words, ', ') || ' or unknown' AS wanted
FROM vocabularies LEFT JOIN strange USING (place)
ORDER BY place;
