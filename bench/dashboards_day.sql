-- One day of plays (parameters: day, plays): 20,000 listeners of 34 countries, 25,000 songs of
-- which few are played much and nearly all on any day, as music_streaming.demo.world makes them.
INSERT INTO stream_events
SELECT gen_random_uuid(), at, source, 'u' || listener, NULL,
       'song-' || song, 'Title ' || song, 'Artist ' || song %% 900, NULL, 'genre-' || song %% 14,
       180000, listened, listened < 180000, listener %% 11 = 0, listened = 180000,
       (array['free', 'free', 'premium', 'family', 'student', 'unknown'])[1 + listener %% 6],
       (array['<18', '18-24', '25-34', '35-44', '45-54', '55-64', '65+', 'unknown'])[1 + listener / 6 %% 8],
       country.code,
       (array['Europe', 'Asia', 'Americas', 'Africa', 'Oceania', 'unknown'])[1 + country.place %% 6],
       (array['mobile', 'desktop', 'web', 'speaker', 'tv', 'tablet', 'car', 'console'])[1 + (listener + song %% 2) %% 8],
       (array['Android', 'iOS', 'Windows', 'macOS', 'Linux', 'other'])[1 + listener %% 3 + song %% 2],
       'player', NULL, NULL, false, 0, 0, date_trunc('second', stored)
FROM (
    SELECT *, at + listened * interval '1 ms' + interval '1 second' AS stored
    FROM (
        SELECT %(day)s::timestamptz + (play + random()) * interval '1 day' / %(plays)s AS at,
               CASE WHEN random() < 0.05 THEN 'scrobble' ELSE 'demo' END AS source,
               (20000 * random() ^ 1.5)::int AS listener,
               (25000 * random() ^ 3)::int AS song,
               CASE WHEN random() < 0.3 THEN (180000 * random())::int ELSE 180000 END AS listened
        FROM generate_series(0, %(plays)s - 1) AS play
    ) begun
) play
JOIN (SELECT code, row_number() OVER (ORDER BY code) AS place FROM countries) country
    ON country.place = 1 + (34 * (listener %% 1000 / 1000.0) ^ 2)::int
WHERE stored < now()
ORDER BY stored;
