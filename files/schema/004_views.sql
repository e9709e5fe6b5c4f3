-- Both sides of the equality that the appliance promises, for each source, from one snapshot. Reads every row:
-- for musicctl validate, not for a chart that refreshes.
CREATE VIEW ingest_exactness AS
SELECT s.source,
       s.accepted,
       s.present,
       s.expired,
       s.user_engagement,
       s.geographic,
       s.device_usage,
       s.content_performance,
       s.accepted = s.present + s.expired
           AND s.accepted = s.user_engagement AND s.accepted = s.geographic
           AND s.accepted = s.device_usage AND s.accepted = s.content_performance AS exact
FROM (
    SELECT t.source,
           t.accepted,
           t.expired,
           coalesce(r.n, 0)::bigint AS present,
           coalesce(u.n, 0)::bigint AS user_engagement,
           coalesce(g.n, 0)::bigint AS geographic,
           coalesce(d.n, 0)::bigint AS device_usage,
           coalesce(c.n, 0)::bigint AS content_performance
    FROM ingest_totals t
    LEFT JOIN (SELECT source, count(*) AS n FROM stream_events GROUP BY source) r USING (source)
    LEFT JOIN (SELECT source, sum(streams) AS n FROM user_engagement_metrics GROUP BY source) u USING (source)
    LEFT JOIN (SELECT source, sum(streams) AS n FROM geographic_metrics GROUP BY source) g USING (source)
    LEFT JOIN (SELECT source, sum(streams) AS n FROM device_usage_metrics GROUP BY source) d USING (source)
    LEFT JOIN (SELECT source, sum(streams) AS n FROM content_performance_metrics GROUP BY source) c USING (source)
) s;
COMMENT ON VIEW ingest_exactness IS 'Per source: accepted = present + expired = streams of each metric table. Slow on years of data';

-- The same for the plays of the last 24 hours and the running one: whole hours, so that all windows fit. For charts.
CREATE VIEW ingest_exactness_recent AS
SELECT s.*,
       s.present = s.user_engagement AND s.present = s.geographic
           AND s.present = s.device_usage AND s.present = s.content_performance AS exact
FROM (
    SELECT t.source,
           coalesce(r.n, 0)::bigint AS present,
           coalesce(u.n, 0)::bigint AS user_engagement,
           coalesce(g.n, 0)::bigint AS geographic,
           coalesce(d.n, 0)::bigint AS device_usage,
           coalesce(c.n, 0)::bigint AS content_performance
    FROM ingest_totals t
    LEFT JOIN (SELECT source, count(*) AS n FROM stream_events
               WHERE event_time >= date_trunc('hour', now(), 'UTC') - interval '24 hours' GROUP BY source) r USING (source)
    LEFT JOIN (SELECT source, sum(streams) AS n FROM user_engagement_metrics
               WHERE window_start >= date_trunc('hour', now(), 'UTC') - interval '24 hours' GROUP BY source) u USING (source)
    LEFT JOIN (SELECT source, sum(streams) AS n FROM geographic_metrics
               WHERE window_start >= date_trunc('hour', now(), 'UTC') - interval '24 hours' GROUP BY source) g USING (source)
    LEFT JOIN (SELECT source, sum(streams) AS n FROM device_usage_metrics
               WHERE window_start >= date_trunc('hour', now(), 'UTC') - interval '24 hours' GROUP BY source) d USING (source)
    LEFT JOIN (SELECT source, sum(streams) AS n FROM content_performance_metrics
               WHERE window_start >= date_trunc('hour', now(), 'UTC') - interval '24 hours' GROUP BY source) c USING (source)
) s;
COMMENT ON VIEW ingest_exactness_recent IS 'Per source, last 24 hours: rows present = streams of each metric table';

-- A window is final once the watermark has passed its end. Later plays still count in it; they are marked late.
CREATE FUNCTION window_is_final(window_end timestamptz) RETURNS boolean
LANGUAGE sql STABLE AS 'SELECT coalesce(window_end <= (SELECT min(watermark) FROM public.ingest_state), false)';
COMMENT ON FUNCTION window_is_final IS 'Whether the watermark has passed the end of a window';

-- Plays per song whose hour begins in [since, until): whole UTC days from the roll-up, the hours at both ends from
-- the metrics themselves. A plain SELECT in the body, so that the planner sees through it; the bounds of the days are
-- sub-selects, so that they are worked out once and not for each of a million rows (halves the time).
CREATE FUNCTION song_streams(since timestamptz, until timestamptz)
RETURNS TABLE (source text, song_id text, title text, artist text, genre text, streams bigint)
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT source, song_id, title, artist, genre, streams
    FROM song_day_streams
    WHERE day >= (SELECT date_trunc('day', since + interval '1 day' - interval '1 microsecond', 'UTC'))
      AND day < (SELECT date_trunc('day', until, 'UTC'))
    UNION ALL
    SELECT source, song_id, title, artist, genre, streams
    FROM content_performance_metrics
    WHERE window_start >= since
      AND window_start < LEAST(until, date_trunc('day', since + interval '1 day' - interval '1 microsecond', 'UTC'))
    UNION ALL
    SELECT source, song_id, title, artist, genre, streams
    FROM content_performance_metrics
    WHERE window_start >= GREATEST(date_trunc('day', until, 'UTC'),
                                   date_trunc('day', since + interval '1 day' - interval '1 microsecond', 'UTC'))
      AND window_start < until
$$;
COMMENT ON FUNCTION song_streams IS 'Plays per song whose hour begins in [since, until), fast for any range';

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
