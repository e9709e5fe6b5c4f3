"""Taking the demo away on a real PostgreSQL, beside the job's real transaction."""

import contextlib
import threading
from typing import Any

import psycopg2
import pytest

from music_streaming.board.validate import validate
from music_streaming.demo.removal import delete_rows
from music_streaming.event import format_time
from music_streaming.metrics import TABLE_NAMES
from music_streaming.settings import Settings
from music_streaming.table import Rules, prepare_session, write
from music_streaming.testing.postgres import Database
from test_table import NOW, batch, play, rows

DELAY = 600


def both(start: int, count: int) -> list[dict[str, Any]]:
    """Demo and real plays by turns, alike in all but their ids and sources; some of them double."""
    sources = ("demo", "scrobble", "demo", "import")
    made = [play(number, source=sources[number % 4], genre="pop") for number in range(start, start + count)]
    return made + made[:8]


@pytest.fixture
def filled(database: Database) -> Database:
    with contextlib.closing(database.connect()) as connection:
        prepare_session(connection)
        write(connection, batch(rows(*both(0, 400), b"{", None)), Rules())
    return database


def contents(database: Database, where: str) -> dict[str, list[tuple[Any, ...]]]:
    """All rows of each table that holds plays or counts of plays, without those who wrote when."""
    return {
        table: database.rows(
            f"SELECT to_jsonb(t) - 'updated_at' - 'late' FROM {table} AS t WHERE {where} ORDER BY 1::text"
        )
        for table in ("stream_events", *TABLE_NAMES)
    }


def removed(database: Database) -> int:
    with contextlib.closing(database.connect("music_owner")) as connection:
        return delete_rows(connection, DELAY)


def assert_good(settings: Settings) -> None:
    assert [check for check in validate(settings).checks if not check.ok] == []


def test_exactly_the_demo_goes(filled: Database, settings: Settings) -> None:
    real = contents(filled, "source <> 'demo'")
    assert all(real.values())
    assert all(contents(filled, "source = 'demo'").values())
    totals = filled.rows("SELECT * FROM ingest_totals WHERE source <> 'demo' ORDER BY source")
    assert removed(filled) == 200
    assert contents(filled, "true") == real
    assert filled.rows("SELECT * FROM ingest_totals WHERE source <> 'demo' ORDER BY source") == totals
    assert_good(settings)
    # Once more finds nothing, and says so.
    assert removed(filled) == 0
    assert contents(filled, "true") == real
    assert filled.value("SELECT removed FROM ingest_totals WHERE source = 'demo'") == 200
    # The demo may begin anew, with the same plays.
    with contextlib.closing(filled.connect()) as connection:
        prepare_session(connection)
        assert write(connection, batch(rows(*both(0, 400), start=500)), Rules()).accepted == 200
    assert_good(settings)


def test_the_watermark_is_that_of_the_real_plays(database: Database, settings: Settings) -> None:
    newest = NOW.replace(hour=0, minute=0, second=0)
    with contextlib.closing(database.connect()) as connection:
        prepare_session(connection)
        write(connection, batch(rows(play(1))), Rules())
        assert removed(database) == 1
        assert database.value("SELECT watermark FROM ingest_state") is None
        assert_good(settings)
        mine = play(2, source="scrobble", event_time=format_time(newest))
        write(connection, batch(rows(play(3), mine, start=1)), Rules())
        assert removed(database) == 1
        assert database.value("SELECT watermark FROM ingest_state") == newest - Rules().watermark_delay
        assert_good(settings)


def test_beside_the_job_at_work(filled: Database, settings: Settings) -> None:
    """Batches go on being written; whenever it is done, all adds up."""
    stop, start = threading.Event(), [408 + 2]

    def job() -> None:
        with contextlib.closing(filled.connect()) as connection:
            prepare_session(connection)
            while not stop.is_set():
                sent = both(start[0], 40)
                write(connection, batch(rows(*sent, start=start[0])), Rules())
                start[0] += len(sent)

    thread = threading.Thread(target=job)
    thread.start()
    try:
        gone = 0
        while gone < 1_000 and thread.is_alive():
            gone += removed(filled)
            assert_good(settings)
    finally:
        stop.set()
        thread.join(60)
    removed(filled)
    assert filled.value("SELECT count(*) FROM stream_events WHERE source = 'demo'") == 0
    real = filled.value("SELECT sum(accepted) FROM ingest_totals WHERE source <> 'demo'")
    assert filled.value("SELECT count(*) FROM stream_events") == real > 500
    assert_good(settings)


def test_killed_it_has_done_nothing(filled: Database, settings: Settings) -> None:
    before = contents(filled, "true")
    failed: list[Exception] = []

    def run() -> None:
        try:
            removed(filled)
        except psycopg2.Error as error:
            failed.append(error)

    with contextlib.closing(filled.connect("superset_reader")) as reader:
        # A reader of the raw plays holds the last step up.
        reader.cursor().execute("SELECT count(*) FROM stream_events")
        thread = threading.Thread(target=run)
        thread.start()
        kill = (
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s "
            "AND query LIKE 'TRUNCATE%%' AND wait_event_type = 'Lock'"
        )
        while thread.is_alive() and not filled.rows(kill, (filled.name,), role="postgres"):
            thread.join(0.05)
        thread.join(30)
    assert len(failed) == 1
    assert contents(filled, "true") == before
    assert_good(settings)
    assert removed(filled) == 200
    assert_good(settings)
