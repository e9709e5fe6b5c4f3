"""A board's databases, plays in them, and its folders, for backups of them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
from boards import board_of

from music_streaming.settings import Settings
from music_streaming.testing.postgres import Database, new_database

# Superset's own tables are of any kind; these are those that a restore looks at.
METADATA = """
CREATE TABLE ab_user (id int PRIMARY KEY, username text, password text);
CREATE TABLE dbs (id int PRIMARY KEY, database_name text, password bytea, encrypted_extra bytea);
CREATE TABLE dashboards (id int PRIMARY KEY, dashboard_title text);
CREATE TABLE music_prepared (name varchar(64) PRIMARY KEY, value text NOT NULL);
INSERT INTO ab_user VALUES (1, 'admin', 'scrypt:1');
INSERT INTO dbs VALUES (1, 'music', '\\x0102', NULL);
INSERT INTO dashboards VALUES (7, 'My own page');
INSERT INTO music_prepared VALUES ('secret key', 'mark'), ('program', 'print');
"""
PLAYS = r"""
INSERT INTO listeners (name) VALUES ('owner');
INSERT INTO stream_events (event_id, event_time, source, user_id, song_id, title, artist, genre, subscription_type,
    age_group, country, region, device_type, os, player, late, kafka_partition, kafka_offset)
SELECT gen_random_uuid(), now() - n * interval '1 minute', CASE WHEN n %% 5 = 0 THEN 'import' ELSE 'scrobble' END, 'owner',
    'song' || n, 'Título ' || n, E'Line\nbreak\t' || n, 'pop', 'free', '18-24', 'DE', 'Europe', 'web', 'Linux', 'mpd',
    false, 0, n
FROM generate_series(1, %s) AS n;
INSERT INTO user_engagement_metrics (window_start, source, subscription_type, age_group, streams, completions, skips, likes,
    listened_ms, duration_ms, listeners, songs)
SELECT now() - n * interval '5 minutes', 'import', 'free', '18-24', n, 0, 0, 0, 0, 0, hll_add(hll_empty(), hll_hash_integer(n)),
    hll_empty() FROM generate_series(1, 500) AS n;
INSERT INTO ingest_offsets (topic, partition, topic_id, next_offset) VALUES ('stream_events', 0, 'abcdefg', 5001);
"""


@pytest.fixture
def metadata(postgres) -> Iterator[Database]:
    """Superset's database."""
    with new_database(postgres) as made:
        with contextlib.closing(made.connect("postgres")) as connection, connection:
            connection.cursor().execute(f"ALTER DATABASE {made.name} OWNER TO superset_reader")
        with contextlib.closing(made.connect("postgres")) as connection, connection:
            connection.cursor().execute("SET ROLE superset_reader; GRANT ALL ON SCHEMA public TO PUBLIC")
            connection.cursor().execute(METADATA)
        yield made


@pytest.fixture
def board(database, metadata, secrets, tmp_path) -> Settings:
    """The settings of a board with 5,000 plays, a listener, people's dashboard, secrets, and files of the demo."""
    database.rows(PLAYS, (5000,), role="postgres")
    return board_of(database, metadata, secrets, tmp_path, files=True)
