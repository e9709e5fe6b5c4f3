"""The validation queries hold on good data, and each kind of damage is found by name."""

import contextlib
import subprocess
from datetime import UTC, datetime

import pytest
from psycopg2 import sql

from music_streaming import country, event, metrics
from music_streaming.board.commands.validate import compare_with_expected
from music_streaming.board.validate import questions, validate
from music_streaming.demo.arrivals import CLEAN
from music_streaming.demo.expected import ExpectedMetrics, read_rows
from music_streaming.demo.world import World
from music_streaming.settings import Settings
from music_streaming.snapshot import snapshot

# What the job writes for ten plays of two sources, two duplicates, three rejects and a tombstone.
PLAYS = """
SELECT make_demo_partitions(ARRAY[(now() AT TIME ZONE 'UTC')::date, (now() - interval '10 min')::date]);
CREATE TEMPORARY TABLE plays ON COMMIT DROP AS
SELECT gen_random_uuid() AS event_id, now() - n * interval '1 minute' AS event_time, source,
       'listener-' || n % 3 AS user_id, 'song-' || n % 2 AS song_id, 'title' AS title, 'artist' AS artist,
       'rock' AS genre, 200000::bigint AS duration_ms, 1000::bigint * n AS listened_ms, n % 4 = 0 AS skipped,
       n % 5 = 0 AS liked, n % 2 = 0 AS completed, 'free' AS subscription_type, '18-24' AS age_group,
       'DE' AS country, 'Europe' AS region, 'mobile' AS device_type, 'Android' AS os, 'app' AS player,
       false AS late, 0 AS kafka_partition, n::bigint AS kafka_offset
FROM generate_series(0, 9) AS n, (VALUES ('demo'), ('scrobble')) AS s (source);
INSERT INTO stream_events (event_id, event_time, source, user_id, song_id, title, artist, genre, duration_ms,
    listened_ms, skipped, liked, completed, subscription_type, age_group, country, region, device_type, os,
    player, late, kafka_partition, kafka_offset)
SELECT * FROM plays;
UPDATE ingest_totals SET accepted = 10, newest_event_time = now() WHERE source IN ('demo', 'scrobble');
UPDATE ingest_totals SET duplicates = 2 WHERE source = 'demo';
INSERT INTO ingest_reject_totals (reason, rejected) VALUES ('not_json', 3);
INSERT INTO ingest_state (topic, watermark, records, accepted, duplicates, rejected, tombstones)
VALUES ('stream_events', now() - interval '10 minutes', 26, 20, 2, 3, 1);
INSERT INTO ingest_offsets (topic, partition, topic_id, next_offset)
VALUES ('stream_events', 0, 'id', 20), ('stream_events', 1, 'id', 11);
INSERT INTO ingest_gaps (topic, topic_id, partition, from_offset, to_offset, cause)
VALUES ('stream_events', 'id', 1, 0, 5, 'retention');
"""


@pytest.fixture
def settings(database, secrets) -> Settings:
    """A database that the job could have left behind."""
    with contextlib.closing(database.connect("music_writer")) as connection, connection:
        cursor = connection.cursor()
        cursor.execute(PLAYS)
        for statement in metrics.stored_plays(sql.Identifier("plays")):
            cursor.execute(statement)
    return secrets(database)


@pytest.fixture
def damage(database):
    def done(sql: str) -> None:
        with contextlib.closing(database.connect("music_owner")) as connection, connection:
            connection.cursor().execute(sql)

    return done


def failing(settings: Settings) -> list[str]:
    return [check.name for check in validate(settings).checks if not check.ok]


def test_good_data_is_good(settings):
    sample = validate(settings)
    assert sample.ok, [check for check in sample.checks if not check.ok]
    assert sample.checks[0].found == "10 in each"
    assert [check.found for check in sample.checks if check.note] == ["5"]


def test_an_empty_database_is_good(database, secrets):
    sample = validate(secrets(database))
    assert sample.ok, [check for check in sample.checks if not check.ok]


@pytest.mark.parametrize(
    ("sql", "named"),
    [
        ("DELETE FROM stream_events WHERE source = 'scrobble' AND kafka_offset = 3", "scrobble: accepted ="),
        ("UPDATE ingest_totals SET accepted = accepted + 1 WHERE source = 'demo'", "demo: accepted ="),
        ("UPDATE geographic_metrics SET streams = streams + 1 WHERE source = 'demo'", "demo: accepted ="),
        ("DELETE FROM device_usage_metrics WHERE source = 'demo'", "demo: accepted ="),
        ("UPDATE device_usage_metrics SET listened_ms = listened_ms + 1", "listened_ms: the same sum"),
        ("UPDATE geographic_metrics SET likes = -1", "geographic_metrics: counts"),
        ("UPDATE geographic_metrics SET skips = streams + 1", "geographic_metrics: counts"),
        (
            "UPDATE device_usage_metrics SET window_start = window_start + interval '1 minute'",
            "device_usage_metrics: counts",
        ),
        ("UPDATE user_engagement_metrics SET listeners = hll_empty(11)", "user_engagement_metrics: counts"),
        (
            "UPDATE content_performance SET listeners = (SELECT hll_add_agg(hll_hash_integer(n), 11)"
            " FROM generate_series(1, 1000) AS n)",
            "content_performance: counts",
        ),
        ("UPDATE user_engagement_metrics SET age_group = 'old'", "user_engagement_metrics: age_group"),
        ("UPDATE geographic_metrics SET region = 'Atlantis'", "geographic_metrics: region"),
        # The sums agree, but the rows are those of others.
        ("UPDATE geographic_metrics SET country = 'FR'", "geographic_metrics: the newest plays"),
        ("UPDATE ingest_state SET records = records + 1", "every record is accepted"),
        ("UPDATE ingest_state SET duplicates = 3, tombstones = 0", "duplicates: by source"),
        ("UPDATE ingest_reject_totals SET rejected = 2", "rejects: by reason"),
        ("UPDATE ingest_offsets SET next_offset = 12 WHERE partition = 1", "offsets are continuous"),
        ("UPDATE ingest_totals SET newest_event_time = now() + interval '6 minutes'", "no play is dated"),
        ("UPDATE ingest_state SET watermark = now() + interval '2 minutes'", "the watermark is behind"),
    ],
)  # fmt: skip
def test_damage_is_named(settings, damage, sql, named):
    damage(sql)
    names = failing(settings)
    assert any(name.startswith(named) for name in names), names


EVERY_TABLE = (*metrics.TABLES, *metrics.ROLL_UPS)
COUNTED = {table.name: table.count_names for table in EVERY_TABLE}


@pytest.mark.parametrize(("table", "counts"), COUNTED.items())
def test_each_count_of_each_table_is_looked_at(settings, damage, table, counts):
    """A count or table that files/validation forgets is one whose damage goes unseen."""
    for count in counts:
        changed = {"table": sql.Identifier(table), "count": sql.Identifier(count)}
        damage(sql.SQL("UPDATE {table} SET {count} = {count} + 1").format(**changed))
        found = {check.name: check.found for check in validate(settings).checks if not check.ok}
        wanted = "demo: accepted =" if count == "streams" else f"{count}: the same sum"
        assert any(name.startswith(wanted) and table in told for name, told in found.items()), found
        damage(sql.SQL("UPDATE {table} SET {count} = {count} - 1").format(**changed))


SKETCHED = [(table.name, sketch) for table in EVERY_TABLE for sketch in table.sketch_names]


@pytest.mark.parametrize(("table", "sketch"), SKETCHED)
def test_each_sketch_is_looked_at(settings, damage, table, sketch):
    damage(sql.SQL("UPDATE {} SET {} = hll_empty(11)").format(sql.Identifier(table), sql.Identifier(sketch)))
    assert f"{table}: counts, listeners and windows make sense" in failing(settings)


VOCABULARIES = {
    ("user_engagement_metrics", "subscription_type"): event.SUBSCRIPTION_TYPES,
    ("user_engagement_metrics", "age_group"): event.AGE_GROUPS,
    ("geographic_metrics", "region"): country.REGIONS,
    ("device_usage_metrics", "device_type"): event.DEVICE_TYPES,
}


@pytest.mark.parametrize(("table", "field"), VOCABULARIES)
def test_words_are_those_of_the_contract(settings, table, field):
    wanted = {check.name: check.wanted for check in validate(settings).checks}
    words = VOCABULARIES[table, field]
    assert wanted[f"{table}: {field} is of the vocabulary"] == f"{', '.join(words)} or {event.UNKNOWN}"


def test_an_analyst_runs_each_question_with_psql(settings, database, files):
    for question in questions(files / "validation"):
        assert question.read_text(encoding="utf-8").startswith("-- "), (
            f"{question} does not say what it proves"
        )
        done = subprocess.run(
            ["psql", "--no-psqlrc", "--no-align", "--tuples-only", "--set=ON_ERROR_STOP=1", "--file", question,
             database.dsn("superset_reader")],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert not done.returncode, done.stderr
        assert {line.split("|")[1] for line in done.stdout.splitlines()} == {"t"}, done.stdout


def test_expired_plays_still_count(settings, damage):
    damage(
        "DELETE FROM stream_events WHERE source = 'demo';"
        "UPDATE ingest_totals SET expired = 10 WHERE source = 'demo';"
        "DELETE FROM ingest_periods WHERE source = 'demo';"
        + "".join(
            f"INSERT INTO metrics_expired SELECT '{table}', 'demo', {', '.join(f'sum({name})' for name in names)}"
            f" FROM {table} WHERE source = 'demo'; DELETE FROM {table} WHERE source = 'demo';"
            for table, names in COUNTED.items()
        )
    )
    assert failing(settings) == []


def test_a_recreated_topic_still_adds_up(settings, damage):
    damage(
        "INSERT INTO ingest_gaps (topic, topic_id, partition, from_offset, to_offset, cause)"
        " VALUES ('stream_events', 'id', 0, 20, NULL, 'topic_recreated');"
        "UPDATE ingest_offsets SET topic_id = 'new', next_offset = 0 WHERE partition = 0"
    )
    assert failing(settings) == []


def test_all_checks_see_one_moment(settings, database):
    with snapshot(settings, "test") as seen:
        before = seen.row("SELECT count(*) FROM stream_events")
        with contextlib.closing(database.connect("music_owner")) as connection, connection:
            connection.cursor().execute("DELETE FROM stream_events")
        assert seen.row("SELECT count(*) FROM stream_events") == before


def test_the_tables_are_compared_with_the_expected_metrics(database, secrets, damage, tmp_path):
    world = World(seed=7, listeners=50, artists=200)
    expected = ExpectedMetrics(world)
    start_ms = int(datetime(2026, 11, 20, tzinfo=UTC).timestamp() * 1000)
    for _ in world.history(start_ms, start_ms + 6 * 3_600_000, CLEAN, expected):
        pass
    path = tmp_path / "expected.jsonl.gz"
    expected.write(path)
    # Whatever the date of today, nothing is folded.
    damage("UPDATE metrics_folding SET hours_before = '2002-10-01Z', days_before = '2002-10-01Z'")
    with contextlib.closing(database.connect("music_writer")) as connection, connection:
        cursor = connection.cursor()
        cursor.execute("SELECT make_demo_partitions(ARRAY['2026-11-20'::date])")
        for name, row in read_rows(path):
            # Any people will do, as long as there are as many.
            people = (
                "(SELECT hll_add_agg(hll_hash_integer(n), 11) FROM generate_series(1, %(listeners)s) AS n)"
            )
            columns = [column for column in row if column != "listeners"]
            into, more = name, ", songs"
            if name == "content_performance_metrics":
                into, more = "content_performance", ""
                cursor.execute(
                    "INSERT INTO songs (song_id, title, artist, genre) VALUES "
                    "(%(song_id)s, %(title)s, %(artist)s, %(genre)s) ON CONFLICT DO NOTHING",
                    row,
                )
                columns = ["song", *(column for column in columns if column not in metrics.SONG_KEYS)]
            values = ", ".join(
                "(SELECT song FROM songs WHERE (song_id, title, artist, genre) = "
                "(%(song_id)s, %(title)s, %(artist)s, %(genre)s))"
                if column == "song"
                else f"%({column})s"
                for column in columns
            )
            cursor.execute(
                f"INSERT INTO {into} ({', '.join(columns)}, listeners{more}) "
                f"VALUES ({values}, {people}{', hll_empty(11)' if more else ''})",
                row,
            )
    sample = compare_with_expected(secrets(database), path)
    assert sample.ok, sample
    assert len(sample.checks) == len(metrics.TABLES)

    damage("UPDATE device_usage_metrics SET skips = skips + 1")
    sample = compare_with_expected(secrets(database), path)
    assert {check.name.split()[0].rstrip(":") for check in sample.checks if not check.ok} == {
        "device_usage_metrics"
    }
