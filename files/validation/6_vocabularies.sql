-- Is every word in the metrics one of the contract's?
--
-- Proves: what came from the wire as another word was stored as unknown. The contract is app/music_streaming/event.py;
-- a test compares.
WITH vocabularies (place, name, field, words) AS (
    VALUES (1, 'user_engagement_metrics', 'subscription_type', ARRAY['free', 'premium', 'family', 'student']),
           (2, 'user_engagement_metrics', 'age_group',
               ARRAY['<18', '18-24', '25-34', '35-44', '45-54', '55-64', '65+']),
           (3, 'geographic_metrics', 'region', ARRAY['Africa', 'Americas', 'Asia', 'Europe', 'Oceania']),
           (4, 'device_usage_metrics', 'device_type',
               ARRAY['mobile', 'tablet', 'desktop', 'web', 'speaker', 'tv', 'car', 'console'])
), used (place, word) AS (
    SELECT DISTINCT 1, subscription_type FROM user_engagement_metrics
    UNION ALL SELECT DISTINCT 2, age_group FROM user_engagement_metrics
    UNION ALL SELECT DISTINCT 3, region FROM geographic_metrics
    UNION ALL SELECT DISTINCT 4, device_type FROM device_usage_metrics
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
