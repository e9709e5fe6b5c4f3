-- What the dashboards and musicctl read beside the tables.

-- A window is final once the watermark has passed its end. Later plays still count in it; they are marked late.
CREATE FUNCTION window_is_final(window_end timestamptz) RETURNS boolean
LANGUAGE sql STABLE AS 'SELECT coalesce(window_end <= (SELECT min(watermark) FROM public.ingest_state), false)';
COMMENT ON FUNCTION window_is_final IS 'Whether the watermark has passed the end of a window';

-- Each period counted again, from the raw plays and from each table of metrics.
CREATE VIEW ingest_recounts AS
SELECT p.starts, p.source, p.ends, p.accepted, p.open, p.proved,
       (SELECT count(*) FROM stream_events e
        WHERE e.source = p.source AND e.event_time >= p.starts AND e.event_time < p.ends) AS present,
       (SELECT coalesce(sum(streams), 0)::bigint FROM user_engagement_metrics m
        WHERE m.source = p.source AND m.window_start >= p.starts AND m.window_start < p.ends) AS user_engagement,
       (SELECT coalesce(sum(streams), 0)::bigint FROM geographic_metrics m
        WHERE m.source = p.source AND m.window_start >= p.starts AND m.window_start < p.ends) AS geographic,
       (SELECT coalesce(sum(streams), 0)::bigint FROM device_usage_metrics m
        WHERE m.source = p.source AND m.window_start >= p.starts AND m.window_start < p.ends) AS device_usage,
       (SELECT coalesce(sum(streams), 0)::bigint FROM content_performance m
        WHERE m.source = p.source AND m.window_start >= p.starts AND m.window_start < p.ends) AS content_performance
FROM ingest_periods p;
COMMENT ON VIEW ingest_recounts IS 'Per hour or day: accepted plays beside those that each table has';

-- Both sides of the equality that the appliance promises, for each source, from one snapshot: what is open is counted,
-- for the rest stands what was proved. The tables' numbers include what has expired from them.
CREATE VIEW ingest_exactness AS
SELECT s.*,
       s.accepted = s.present + s.expired
           AND s.accepted = s.user_engagement AND s.accepted = s.geographic
           AND s.accepted = s.device_usage AND s.accepted = s.content_performance AS exact
FROM (
    SELECT t.source,
           t.accepted,
           (c.proved + c.present)::bigint AS present,
           t.expired,
           (c.proved + c.user_engagement + e.user_engagement)::bigint AS user_engagement,
           (c.proved + c.geographic + e.geographic)::bigint AS geographic,
           (c.proved + c.device_usage + e.device_usage)::bigint AS device_usage,
           (c.proved + c.content_performance + e.content_performance)::bigint AS content_performance
    FROM ingest_totals t
    CROSS JOIN LATERAL (
        SELECT coalesce((SELECT sum(p.proved) FROM ingest_periods p WHERE p.source = t.source AND NOT p.open), 0) AS proved,
               coalesce(sum(r.present), 0) AS present, coalesce(sum(r.user_engagement), 0) AS user_engagement,
               coalesce(sum(r.geographic), 0) AS geographic, coalesce(sum(r.device_usage), 0) AS device_usage,
               coalesce(sum(r.content_performance), 0) AS content_performance
        FROM ingest_recounts r WHERE r.source = t.source AND r.open
    ) c
    CROSS JOIN LATERAL (
        SELECT coalesce(sum(streams) FILTER (WHERE name = 'user_engagement_metrics'), 0) AS user_engagement,
               coalesce(sum(streams) FILTER (WHERE name = 'geographic_metrics'), 0) AS geographic,
               coalesce(sum(streams) FILTER (WHERE name = 'device_usage_metrics'), 0) AS device_usage,
               coalesce(sum(streams) FILTER (WHERE name = 'content_performance'), 0) AS content_performance
        FROM metrics_expired x WHERE x.source = t.source
    ) e
) s;
COMMENT ON VIEW ingest_exactness IS 'Per source: accepted = present + expired = streams of each metric table';

-- The same for a chart that refreshes: a period that was proved and got late plays since is taken as proved, with
-- those added, until it is counted again within minutes. So what is counted are the hours that were never proved.
CREATE VIEW ingest_exactness_recent AS
SELECT s.*,
       s.present = s.accepted AND s.present = s.user_engagement AND s.present = s.geographic
           AND s.present = s.device_usage AND s.present = s.content_performance AS exact
FROM (
    SELECT t.source,
           t.accepted,
           (t.expired + c.known + c.present)::bigint AS present,
           (c.known + c.user_engagement + e.user_engagement)::bigint AS user_engagement,
           (c.known + c.geographic + e.geographic)::bigint AS geographic,
           (c.known + c.device_usage + e.device_usage)::bigint AS device_usage,
           (c.known + c.content_performance + e.content_performance)::bigint AS content_performance
    FROM ingest_totals t
    CROSS JOIN LATERAL (
        SELECT coalesce((SELECT sum(p.accepted) FROM ingest_periods p
                         WHERE p.source = t.source AND p.proved IS NOT NULL), 0) AS known,
               coalesce(sum(r.present), 0) AS present, coalesce(sum(r.user_engagement), 0) AS user_engagement,
               coalesce(sum(r.geographic), 0) AS geographic, coalesce(sum(r.device_usage), 0) AS device_usage,
               coalesce(sum(r.content_performance), 0) AS content_performance
        FROM ingest_recounts r
        WHERE r.source = t.source AND r.open AND r.proved IS NULL
    ) c
    CROSS JOIN LATERAL (
        SELECT coalesce(sum(streams) FILTER (WHERE name = 'user_engagement_metrics'), 0) AS user_engagement,
               coalesce(sum(streams) FILTER (WHERE name = 'geographic_metrics'), 0) AS geographic,
               coalesce(sum(streams) FILTER (WHERE name = 'device_usage_metrics'), 0) AS device_usage,
               coalesce(sum(streams) FILTER (WHERE name = 'content_performance'), 0) AS content_performance
        FROM metrics_expired x WHERE x.source = t.source
    ) e
) s;
COMMENT ON VIEW ingest_exactness_recent IS 'Per source: rows ever written = streams of each metric table, quick at any age';

-- Proves up to at_most periods that the watermark has passed and whose plays have changed since they were last
-- counted: an answer that differs leaves the period open. Reads without a lock; a period that a batch adds to in the
-- meantime has another number of accepted plays by then, and waits for the next time.
CREATE FUNCTION prove_periods(at_most integer) RETURNS TABLE (counted bigint, closed bigint)
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
    WITH recount AS MATERIALIZED (
        SELECT r.* FROM (
            SELECT starts, source FROM public.ingest_periods
            WHERE open AND public.window_is_final(ends) ORDER BY proved_at NULLS FIRST, starts LIMIT at_most
        ) chosen JOIN public.ingest_recounts r USING (starts, source)
    ), free AS (
        SELECT p.starts, p.source,
               r.present = p.accepted AND r.user_engagement = p.accepted AND r.geographic = p.accepted
                   AND r.device_usage = p.accepted AND r.content_performance = p.accepted AS equal
        FROM public.ingest_periods p JOIN recount r USING (starts, source)
        WHERE p.accepted = r.accepted
        FOR UPDATE OF p SKIP LOCKED
    ), done AS (
        UPDATE public.ingest_periods p SET
            open = NOT free.equal, proved = CASE WHEN free.equal THEN p.accepted END, proved_at = now()
        FROM free WHERE p.starts = free.starts AND p.source = free.source
        RETURNING p.open
    )
    SELECT count(*), count(*) FILTER (WHERE NOT open) FROM done
$$;
COMMENT ON FUNCTION prove_periods IS 'Counts final periods again and closes those whose tables agree; returns how many of each';

-- Plays per song whose window begins in [since, until): whole months and days from the roll-ups, the hours at both ends
-- from the metrics themselves. The bounds are sub-selects, so that they are worked out once and not for each of a
-- million rows, and songs get their names after they are added up.
CREATE FUNCTION song_streams(since timestamptz, until timestamptz)
RETURNS TABLE (source text, song_id text, title text, artist text, genre text, streams bigint)
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT added.source, s.song_id, s.title, s.artist, s.genre, added.streams
    FROM (
        SELECT part.source, part.song, sum(part.streams)::bigint AS streams
        FROM (
            SELECT m.source, m.song, m.streams FROM song_months m
            WHERE m.month >= (SELECT month_ceiling(day_ceiling(since))) AND m.month < (SELECT month_start(until))
            UNION ALL
            SELECT d.source, d.song, d.streams FROM song_days d
            WHERE d.day >= (SELECT day_ceiling(since))
              AND d.day < (SELECT LEAST(day_start(until), month_ceiling(day_ceiling(since))))
            UNION ALL
            SELECT d.source, d.song, d.streams FROM song_days d
            WHERE d.day >= (SELECT GREATEST(month_start(until), month_ceiling(day_ceiling(since))))
              AND d.day < (SELECT day_start(until))
            UNION ALL
            SELECT c.source, c.song, c.streams FROM content_performance c
            WHERE c.window_start >= since AND c.window_start < (SELECT LEAST(until, day_ceiling(since)))
            UNION ALL
            SELECT c.source, c.song, c.streams FROM content_performance c
            WHERE c.window_start >= (SELECT GREATEST(day_start(until), day_ceiling(since))) AND c.window_start < until
        ) part
        GROUP BY part.source, part.song
    ) added
    JOIN songs s USING (song)
$$;
COMMENT ON FUNCTION song_streams IS 'Plays per song whose window begins in [since, until), fast for any range';

-- Names for the codes, as in app/music_streaming/countries.csv (a test compares them).
CREATE TABLE countries (
    code text PRIMARY KEY,
    name text NOT NULL
);
COMMENT ON TABLE countries IS 'ISO 3166-1 alpha-2 codes and short English names; ZZ is unknown';
INSERT INTO countries (code, name) VALUES
    ('AD', 'Andorra'), ('AE', 'United Arab Emirates'), ('AF', 'Afghanistan'), ('AG', 'Antigua and Barbuda'),
    ('AI', 'Anguilla'), ('AL', 'Albania'), ('AM', 'Armenia'), ('AO', 'Angola'), ('AQ', 'Antarctica'),
    ('AR', 'Argentina'), ('AS', 'American Samoa'), ('AT', 'Austria'), ('AU', 'Australia'), ('AW', 'Aruba'),
    ('AX', 'Åland Islands'), ('AZ', 'Azerbaijan'), ('BA', 'Bosnia and Herzegovina'), ('BB', 'Barbados'),
    ('BD', 'Bangladesh'), ('BE', 'Belgium'), ('BF', 'Burkina Faso'), ('BG', 'Bulgaria'), ('BH', 'Bahrain'),
    ('BI', 'Burundi'), ('BJ', 'Benin'), ('BL', 'St. Barths'), ('BM', 'Bermuda'), ('BN', 'Brunei Darussalam'),
    ('BO', 'Bolivia'), ('BQ', 'Bonaire, Saint Eustatius and Saba'), ('BR', 'Brazil'), ('BS', 'Bahamas'),
    ('BT', 'Bhutan'), ('BV', 'Bouvet Island'), ('BW', 'Botswana'), ('BY', 'Belarus'), ('BZ', 'Belize'),
    ('CA', 'Canada'), ('CC', 'Cocos (Keeling) Islands'), ('CD', 'DR Congo'), ('CF', 'Central African Republic'),
    ('CG', 'Congo Republic'), ('CH', 'Switzerland'), ('CI', 'Côte d''Ivoire'), ('CK', 'Cook Islands'),
    ('CL', 'Chile'), ('CM', 'Cameroon'), ('CN', 'China'), ('CO', 'Colombia'), ('CR', 'Costa Rica'), ('CU', 'Cuba'),
    ('CV', 'Cabo Verde'), ('CW', 'Curaçao'), ('CX', 'Christmas Island'), ('CY', 'Cyprus'), ('CZ', 'Czechia'),
    ('DE', 'Germany'), ('DJ', 'Djibouti'), ('DK', 'Denmark'), ('DM', 'Dominica'), ('DO', 'Dominican Republic'),
    ('DZ', 'Algeria'), ('EC', 'Ecuador'), ('EE', 'Estonia'), ('EG', 'Egypt'), ('EH', 'Western Sahara'),
    ('ER', 'Eritrea'), ('ES', 'Spain'), ('ET', 'Ethiopia'), ('FI', 'Finland'), ('FJ', 'Fiji'),
    ('FK', 'Falkland Islands'), ('FM', 'Micronesia, Fed. Sts.'), ('FO', 'Faroe Islands'), ('FR', 'France'),
    ('GA', 'Gabon'), ('GB', 'United Kingdom'), ('GD', 'Grenada'), ('GE', 'Georgia'), ('GF', 'French Guiana'),
    ('GG', 'Guernsey'), ('GH', 'Ghana'), ('GI', 'Gibraltar'), ('GL', 'Greenland'), ('GM', 'Gambia'), ('GN', 'Guinea'),
    ('GP', 'Guadeloupe'), ('GQ', 'Equatorial Guinea'), ('GR', 'Greece'),
    ('GS', 'South Georgia and South Sandwich Is.'), ('GT', 'Guatemala'), ('GU', 'Guam'), ('GW', 'Guinea-Bissau'),
    ('GY', 'Guyana'), ('HK', 'Hong Kong'), ('HM', 'Heard and McDonald Islands'), ('HN', 'Honduras'),
    ('HR', 'Croatia'), ('HT', 'Haiti'), ('HU', 'Hungary'), ('ID', 'Indonesia'), ('IE', 'Ireland'), ('IL', 'Israel'),
    ('IM', 'Isle of Man'), ('IN', 'India'), ('IO', 'British Indian Ocean Territory'), ('IQ', 'Iraq'), ('IR', 'Iran'),
    ('IS', 'Iceland'), ('IT', 'Italy'), ('JE', 'Jersey'), ('JM', 'Jamaica'), ('JO', 'Jordan'), ('JP', 'Japan'),
    ('KE', 'Kenya'), ('KG', 'Kyrgyzstan'), ('KH', 'Cambodia'), ('KI', 'Kiribati'), ('KM', 'Comoros'),
    ('KN', 'St. Kitts and Nevis'), ('KP', 'North Korea'), ('KR', 'South Korea'), ('KW', 'Kuwait'),
    ('KY', 'Cayman Islands'), ('KZ', 'Kazakhstan'), ('LA', 'Laos'), ('LB', 'Lebanon'), ('LC', 'St. Lucia'),
    ('LI', 'Liechtenstein'), ('LK', 'Sri Lanka'), ('LR', 'Liberia'), ('LS', 'Lesotho'), ('LT', 'Lithuania'),
    ('LU', 'Luxembourg'), ('LV', 'Latvia'), ('LY', 'Libya'), ('MA', 'Morocco'), ('MC', 'Monaco'), ('MD', 'Moldova'),
    ('ME', 'Montenegro'), ('MF', 'Saint-Martin'), ('MG', 'Madagascar'), ('MH', 'Marshall Islands'),
    ('MK', 'North Macedonia'), ('ML', 'Mali'), ('MM', 'Myanmar'), ('MN', 'Mongolia'), ('MO', 'Macau'),
    ('MP', 'Northern Mariana Islands'), ('MQ', 'Martinique'), ('MR', 'Mauritania'), ('MS', 'Montserrat'),
    ('MT', 'Malta'), ('MU', 'Mauritius'), ('MV', 'Maldives'), ('MW', 'Malawi'), ('MX', 'Mexico'), ('MY', 'Malaysia'),
    ('MZ', 'Mozambique'), ('NA', 'Namibia'), ('NC', 'New Caledonia'), ('NE', 'Niger'), ('NF', 'Norfolk Island'),
    ('NG', 'Nigeria'), ('NI', 'Nicaragua'), ('NL', 'Netherlands'), ('NO', 'Norway'), ('NP', 'Nepal'), ('NR', 'Nauru'),
    ('NU', 'Niue'), ('NZ', 'New Zealand'), ('OM', 'Oman'), ('PA', 'Panama'), ('PE', 'Peru'),
    ('PF', 'French Polynesia'), ('PG', 'Papua New Guinea'), ('PH', 'Philippines'), ('PK', 'Pakistan'),
    ('PL', 'Poland'), ('PM', 'St. Pierre and Miquelon'), ('PN', 'Pitcairn'), ('PR', 'Puerto Rico'),
    ('PS', 'Palestine'), ('PT', 'Portugal'), ('PW', 'Palau'), ('PY', 'Paraguay'), ('QA', 'Qatar'), ('RE', 'Réunion'),
    ('RO', 'Romania'), ('RS', 'Serbia'), ('RU', 'Russia'), ('RW', 'Rwanda'), ('SA', 'Saudi Arabia'),
    ('SB', 'Solomon Islands'), ('SC', 'Seychelles'), ('SD', 'Sudan'), ('SE', 'Sweden'), ('SG', 'Singapore'),
    ('SH', 'St. Helena'), ('SI', 'Slovenia'), ('SJ', 'Svalbard and Jan Mayen Islands'), ('SK', 'Slovakia'),
    ('SL', 'Sierra Leone'), ('SM', 'San Marino'), ('SN', 'Senegal'), ('SO', 'Somalia'), ('SR', 'Suriname'),
    ('SS', 'South Sudan'), ('ST', 'Sao Tome and Principe'), ('SV', 'El Salvador'), ('SX', 'Sint Maarten'),
    ('SY', 'Syria'), ('SZ', 'Eswatini'), ('TC', 'Turks and Caicos Islands'), ('TD', 'Chad'),
    ('TF', 'French Southern Territories'), ('TG', 'Togo'), ('TH', 'Thailand'), ('TJ', 'Tajikistan'),
    ('TK', 'Tokelau'), ('TL', 'Timor-Leste'), ('TM', 'Turkmenistan'), ('TN', 'Tunisia'), ('TO', 'Tonga'),
    ('TR', 'Türkiye'), ('TT', 'Trinidad and Tobago'), ('TV', 'Tuvalu'), ('TW', 'Taiwan'), ('TZ', 'Tanzania'),
    ('UA', 'Ukraine'), ('UG', 'Uganda'), ('UM', 'United States Minor Outlying Islands'), ('US', 'United States'),
    ('UY', 'Uruguay'), ('UZ', 'Uzbekistan'), ('VA', 'Vatican'), ('VC', 'St. Vincent and the Grenadines'),
    ('VE', 'Venezuela'), ('VG', 'British Virgin Islands'), ('VI', 'United States Virgin Islands'), ('VN', 'Vietnam'),
    ('VU', 'Vanuatu'), ('WF', 'Wallis and Futuna Islands'), ('WS', 'Samoa'), ('YE', 'Yemen'), ('YT', 'Mayotte'),
    ('ZA', 'South Africa'), ('ZM', 'Zambia'), ('ZW', 'Zimbabwe'), ('ZZ', 'unknown');
