"""A database of each release, with plays in it, is carried over by the migrations that came after."""

from __future__ import annotations

import contextlib
import gzip
import re
import subprocess
from collections.abc import Iterator

import pytest

from music_streaming.board.validate import validate
from music_streaming.metrics import SHOWN
from music_streaming.retention import Ages, housekeep
from music_streaming.schema import migrate
from music_streaming.table import Rules, prepare_session, write
from music_streaming.testing import FILES
from music_streaming.testing.postgres import Database, new_database
from release_database import RELEASED
from test_table import batch, exact, play, rows

DUMPS = sorted(RELEASED.glob("*.sql.gz"))
NUMBERS = ["SELECT source, count(*), sum(listened_ms) FROM stream_events GROUP BY 1 ORDER BY 1"] + [
    f"SELECT source, sum(streams), sum(skips), sum(listened_ms), round(hll_cardinality(hll_union_agg(listeners))) "
    f"FROM {table.name} GROUP BY 1 ORDER BY 1"
    for table in SHOWN
]


@pytest.fixture(params=DUMPS, ids=lambda dump: dump.name.removesuffix(".sql.gz"))
def released(request, postgres) -> Iterator[Database]:
    """The database as the release left it."""
    with new_database(postgres) as database:
        dump = gzip.decompress(request.param.read_bytes())
        argv = ["psql", "--quiet", "--no-psqlrc", "--set=ON_ERROR_STOP=1", database.dsn("postgres")]
        done = subprocess.run(argv, check=False, capture_output=True, input=dump)
        assert done.returncode == 0, done.stderr.decode()
        yield database


def carry_over(database: Database) -> list[str]:
    with contextlib.closing(database.connect("music_owner")) as connection:
        return migrate(connection, FILES / "schema")


def test_the_numbers_stay_and_the_job_goes_on(released: Database, secrets) -> None:
    before = [released.rows(question) for question in NUMBERS]
    real = "SELECT count(*) FROM stream_events WHERE source <> 'demo'"
    plays = released.value(real)
    assert plays > 800
    carry_over(released)
    assert [released.rows(question) for question in NUMBERS] == before
    assert [check for check in validate(secrets(released), full=True).checks if not check.ok] == []
    exact(released)
    with contextlib.closing(released.connect()) as writer:
        prepare_session(writer)
        start = released.value("SELECT next_offset FROM ingest_offsets")
        new = (play(20_000 + number, source="scrobble") for number in range(50))
        assert write(writer, batch(rows(*new, start=start)), Rules()).accepted == 50
        # The generated plays are older than what is kept of them, and go.
        housekeep(writer, Ages(demo_retention_days=1))
    exact(released)
    assert released.value(real) == plays + 50


def test_the_schema_is_that_of_a_new_board(released: Database, database: Database) -> None:
    carry_over(released)
    assert schema_of(released) == schema_of(database)


def schema_of(database: Database) -> str:
    """Without partitions: there are as many as days with plays."""
    partitions = database.rows(
        "SELECT oid::regclass::text FROM pg_class WHERE relispartition", role="postgres"
    )
    argv = ["pg_dump", "--schema-only", f"--dbname={database.dsn('postgres')}"]
    argv += [f"--exclude-table={name}" for (name,) in partitions]
    dumped = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    return re.sub(r"\\(un)?restrict .*", "", dumped)
