"""Writes micro-batches to PostgreSQL, one after the other, while Spark reads the next one."""

from __future__ import annotations

import datetime as dt
import logging
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg2
import tenacity

from music_streaming import table
from music_streaming.error import connection_failed, database_error
from music_streaming.watchdog import StopFlag

if TYPE_CHECKING:
    import pyarrow as pa

# Between two looks whether the job is to stop.
LOOK_SECONDS = 0.5

log = logging.getLogger("music-metrics")


@dataclass(frozen=True)
class Written:
    """A batch that was committed, and the seconds that its transaction took."""

    outcome: table.Outcome
    seconds: float


@dataclass
class Report:
    """What was committed since the last report."""

    batches: int = 0
    records: int = 0
    accepted: int = 0
    rejected: int = 0
    duplicates: int = 0
    late: int = 0
    seconds: float = 0
    watermark: dt.datetime | None = None

    def add(self, outcome: table.Outcome, seconds: float) -> None:
        """Count a committed batch that took `seconds`."""
        self.batches += 1
        self.records += outcome.records
        self.accepted += outcome.accepted
        self.rejected += outcome.rejected
        self.duplicates += outcome.duplicates
        self.late += outcome.late
        self.seconds += seconds
        self.watermark = outcome.watermark or self.watermark

    def __str__(self) -> str:
        mean = self.seconds / self.batches * 1000 if self.batches else 0
        return (
            f"{self.records} records in {self.batches} batches of {mean:.0f} ms: {self.accepted} accepted "
            f"({self.late} late), {self.rejected} rejected, {self.duplicates} duplicates; "
            f"watermark {self.watermark:%Y-%m-%d %H:%M:%S}"
            if self.watermark
            else f"{self.records} records in {self.batches} batches; no play yet"
        )


@dataclass
class Position:
    """Where the reader is: the topic, its id, and each partition's offset where the next batch begins.

    compacted: whether the topic is (offsets.reach).
    """

    topic: str
    topic_id: str
    expected: dict[int, int]
    compacted: bool = False


class BatchWriter:
    """One transaction at a time, in a thread of its own, over a connection of its own.

    A batch is kept while the database is away, and written when it is back; whatever else PostgreSQL says
    is the error of the batch. Nothing is begun once `stopping` is set.

    connect: makes a connection that has seen table.prepare_session. retrying: called before each new try.
    """

    def __init__(
        self,
        position: Position,
        connect: Callable[[], Any],
        rules: table.Rules,
        stopping: StopFlag,
        retrying: Callable[[], None] = lambda: None,
    ) -> None:
        self.position = position
        self._connect = connect
        self._connection: Any = None
        self._rules = rules
        self._stopping = stopping
        self._retrying = retrying
        # The newest batch.
        self._written: Future[None] = Future()
        self.forget()

    @property
    def at_work(self) -> bool:
        """Whether a batch is being written."""
        return not self._written.done()

    def result(self) -> None:
        """Wait for the batch at work; raises what made it impossible to write."""
        self._written.result()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait for the batch at work, however it ends; False where it does not in that time."""
        return bool(wait([self._written], seconds).done)

    def forget(self) -> None:
        """Begin anew after a batch that failed, which is to be read again; nothing may be at work."""
        self._written = Future()
        self._written.set_result(None)

    def write(
        self,
        rows: pa.Table,
        read_at: dt.datetime,
        committed: Callable[[Written], None],
        ends: Mapping[int, int] | None = None,
    ) -> None:
        """Begin to write the output of query.plays, once the batch before it is committed.

        committed: called in the writer's thread. ends: table.Batch. Raises what made the batch before it
        impossible to write.
        """
        while not self.wait(LOOK_SECONDS):
            if self._stopping.is_set():
                return
        self.result()
        position = self.position
        batch = table.Batch(
            position.topic,
            position.topic_id,
            rows,
            dict(position.expected),
            read_at,
            ends or {},
            position.compacted,
        )
        written: Future[None] = Future()

        def work() -> None:
            try:
                if not self._stopping.is_set():
                    committed(self._write(batch))
                written.set_result(None)
            except BaseException as error:
                written.set_exception(error)

        self._written = written
        # A daemon, unlike an executor's: what cannot be written must not keep the process from its end.
        threading.Thread(target=work, name="writer", daemon=True).start()

    def close(self, seconds: float) -> None:
        """Close the connection; one that is at work for more than `seconds` is left to the process's end."""
        # psycopg2 closes only after the statement at work.
        if self.wait(seconds):
            self._disconnect()

    def _disconnect(self) -> None:
        if self._connection:
            self._connection.close()
        self._connection = None

    def _write(self, batch: table.Batch) -> Written:
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(_passes),
            wait=tenacity.wait_exponential(multiplier=0.2, max=5),
            stop=self._stopping.stops,
            sleep=self._stopping.sleep,
            before_sleep=self._begin_anew,
            reraise=True,
        )
        return retrying(self._write_once, batch)

    def _write_once(self, batch: table.Batch) -> Written:
        if not self._connection:
            self._connection = self._connect()
        started = time.monotonic()
        outcome = table.write(self._connection, batch, self._rules)
        self.position.expected.update(outcome.next_offsets)
        return Written(outcome, time.monotonic() - started)

    def _begin_anew(self, state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        fault = database_error(error) if isinstance(error, psycopg2.Error) else None
        log.warning("%s; the batch is kept and tried again", fault or error)
        self._retrying()
        self._disconnect()


def _passes(error: BaseException) -> bool:
    """Whether the same batch may be written later: not where it took too long, or is wrong."""
    return isinstance(error, psycopg2.Error) and (
        connection_failed(error)
        or (
            isinstance(error, psycopg2.OperationalError)
            and not isinstance(error, psycopg2.errors.QueryCanceled)
        )
    )
