-- Plays of one stretch of time (parameters: since, days, plays), of real players: 2,000 listeners of 34 countries,
-- 25,000 songs of which few are played much, in the order in which they were played, as years of scrobbles are.
INSERT INTO stream_events
SELECT gen_random_uuid(), at, 'scrobble', 'u' || listener, NULL,
       'song-' || song, 'Title ' || song, 'Artist ' || song %% 900, NULL, 'genre-' || song %% 14,
       180000, listened, listened < 180000, listener %% 11 = 0, listened = 180000,
       (array['free', 'premium', 'family', 'student'])[1 + listener %% 4],
       (array['<18', '18-24', '25-34', '35-44', '45-54', '55-64', '65+'])[1 + listener / 6 %% 7],
       country.code,
       (array['Europe', 'Asia', 'Americas', 'Africa', 'Oceania', 'unknown'])[1 + country.place %% 6],
       (array['mobile', 'desktop', 'web', 'speaker', 'tv', 'tablet', 'car', 'console'])[1 + (listener + song %% 2) %% 8],
       (array['Android', 'iOS', 'Windows', 'macOS', 'Linux', 'other'])[1 + listener %% 3 + song %% 2],
       'player', NULL, NULL, false, 0, play, at
FROM (
    SELECT play, %(since)s::timestamptz + (play + random()) * (%(days)s::float8 * 86400 / %(plays)s) * interval '1 s' AS at,
           (2000 * random() ^ 1.5)::int AS listener, (25000 * random() ^ 3)::int AS song,
           CASE WHEN random() < 0.3 THEN (180000 * random())::int ELSE 180000 END AS listened
    FROM generate_series(0, %(plays)s - 1) AS play
) play
JOIN (SELECT code, (row_number() OVER (ORDER BY code))::int AS place FROM countries) country
    ON country.place = 1 + (34 * (listener %% 1000 / 1000.0) ^ 2)::int
ORDER BY play;
