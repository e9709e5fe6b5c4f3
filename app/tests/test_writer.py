"""The writer without Spark: against a real PostgreSQL that is away, slow, or refuses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import psycopg2
import pytest

from music_streaming.table import Rules, prepare_session
from music_streaming.testing import wait_for
from music_streaming.testing.postgres import Database
from music_streaming.watchdog import StopFlag
from music_streaming.writer import BatchWriter, Position, Written
from test_table import NOW, TOPIC, TOPIC_ID, play, rows

LIMIT_SECONDS = 30


class Bench:
    """A writer and what it has committed."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.stopping = StopFlag()
        self.retries = 0
        self.statement_seconds = 5.0
        self.committed: list[Written] = []
        self.position = Position(TOPIC, TOPIC_ID, {})
        self.writer = BatchWriter(self.position, self._connect, Rules(), self.stopping, self._retrying)

    def _connect(self) -> Any:
        connection = self.database.connect()
        prepare_session(connection, self.statement_seconds)
        return connection

    def _retrying(self) -> None:
        self.retries += 1

    def write(self, start: int, count: int = 10) -> None:
        values = [play(number) for number in range(start, start + count)]
        self.writer.write(rows(*values, start=start), NOW, self.committed.append)

    def wait_until(self, what: Callable[[], bool]) -> None:
        assert wait_for(what, bool, LIMIT_SECONDS), (self.retries, self.committed)

    def slow_down(self, seconds: float) -> None:
        self.database.rows(
            "CREATE FUNCTION slow_down() RETURNS trigger LANGUAGE plpgsql AS "
            f"$$ BEGIN PERFORM pg_sleep({seconds}); RETURN NULL; END $$;"
            "CREATE TRIGGER slow AFTER INSERT ON stream_events EXECUTE FUNCTION slow_down()",
            role="music_owner",
        )

    def sleeps(self) -> bool:
        asked = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'"
        return bool(self.database.value(asked, role="postgres"))

    @property
    def accepted(self) -> int:
        return int(self.database.value("SELECT sum(accepted) FROM ingest_totals"))


@pytest.fixture
def bench(database: Database) -> Iterator[Bench]:
    made = Bench(database)
    yield made
    made.stopping.set()
    made.writer.close(LIMIT_SECONDS)


def test_batches_follow_one_another_and_each_is_committed(bench: Bench) -> None:
    for start in (0, 10, 20):
        bench.write(start)
    bench.writer.result()
    assert bench.accepted == 30
    assert bench.position.expected == {0: 30}
    assert [item.outcome.accepted for item in bench.committed] == [10, 10, 10]
    assert not bench.writer.at_work


def test_a_batch_is_kept_while_the_database_is_away(bench: Bench) -> None:
    bench.write(0)
    bench.writer.result()
    bench.database.rows(
        "ALTER ROLE music_writer NOLOGIN; "
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND usename = 'music_writer'",
        role="postgres",
    )
    try:
        bench.write(10)
        bench.wait_until(lambda: bench.retries >= 2)
        assert bench.writer.at_work
    finally:
        bench.database.rows("ALTER ROLE music_writer LOGIN", role="postgres")
    bench.writer.result()
    assert bench.accepted == 20


def test_a_statement_that_takes_too_long_is_the_error_of_its_batch(bench: Bench) -> None:
    bench.slow_down(9)
    bench.statement_seconds = 0.5
    bench.write(0)
    with pytest.raises(psycopg2.errors.QueryCanceled):
        bench.writer.result()
    assert bench.retries == 0
    assert bench.accepted == 0
    assert bench.position.expected == {}
    # Whoever reads it again, with less in it, begins anew.
    bench.database.rows("DROP TRIGGER slow ON stream_events", role="music_owner")
    bench.writer.forget()
    bench.statement_seconds = 30
    bench.write(0, count=5)
    bench.writer.result()
    assert bench.accepted == 5


def test_a_missing_grant_is_the_error_of_its_batch(bench: Bench) -> None:
    bench.database.rows("REVOKE INSERT ON stream_events FROM music_writer", role="music_owner")
    bench.write(0)
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        bench.write(10)
    assert bench.retries == 0


def test_nothing_is_begun_after_a_stop_and_what_is_at_work_is_committed(bench: Bench) -> None:
    bench.slow_down(1)
    bench.write(0)
    bench.wait_until(bench.sleeps)
    bench.stopping.set()
    bench.write(10)
    bench.writer.close(LIMIT_SECONDS)
    assert bench.accepted == 10
