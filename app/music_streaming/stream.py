"""The Spark driver: one Structured Streaming query from Kafka into the one transaction of table.py.

PostgreSQL is the job's only memory. The checkpoint folder that Spark insists on is made anew at each start,
and the query begins at the offsets that the last committed transaction left. Whatever cannot be mended while
running ends the process with exit code 1; systemd starts it again, and it goes on from there.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import functools
import itertools
import json
import logging
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import psycopg2
import tenacity

from music_streaming import disk, housekeeping, offsets, query, retention, spark, table
from music_streaming.broker import KafkaError, admin, first_unread, probe, topic_state
from music_streaming.error import MusicError, database_error
from music_streaming.guard import TopicGuard
from music_streaming.limit import BatchLimit, store_limit, stored_limit
from music_streaming.settings import Role, Settings
from music_streaming.watchdog import Every, StalledError, StopFlag, Watchdog
from music_streaming.writer import BatchWriter, Position, Report, Written

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql.streaming.query import StreamingQuery

log = logging.getLogger("music-metrics")
T = TypeVar("T")

# The container's ready probe looks at its age in /tmp, a tmpfs of the driver's own.
ALIVE = Path(tempfile.gettempdir(), "music-metrics.alive")
APPLICATION = "music-metrics"
TOPIC_CHECK_SECONDS = 10
HOUSEKEEPING_SECONDS = 60
EXPIRY_SECONDS = 600
SAMPLE_SECONDS = 3600
REPORT_SECONDS = 60
# Below the time that systemd gives the unit to stop.
STOP_SECONDS = 5


class StreamError(MusicError):
    """The job cannot go on; the text says why."""


@dataclass
class Parts:
    """The objects that one run of the job works with."""

    session: SparkSession
    scratch: Path
    writer: BatchWriter
    guard: TopicGuard


class Job:
    """One life of the query: from the offsets in PostgreSQL until it is stopped or cannot go on."""

    def __init__(self, settings: Settings, stopping: StopFlag) -> None:
        self.settings = settings
        self.topic = settings.kafka.topic
        self.rules = table.Rules(
            watermark_delay=dt.timedelta(seconds=settings.stream.watermark_delay_seconds),
            future_tolerance=dt.timedelta(seconds=settings.stream.future_tolerance_seconds),
            rejects_kept=settings.stream.rejects_kept,
        )
        self.stopping = stopping
        self.watchdog = Watchdog(settings.spark.stall_seconds, ALIVE)
        most = settings.spark.max_offsets_per_trigger
        self.limit = BatchLimit(most, most, settings.spark.stall_seconds)
        self._report = Report()
        self._failure: Exception | None = None
        # Number of the running query: what an earlier one still reads is dropped.
        self._query = 0
        self._housekeeping = Every(HOUSEKEEPING_SECONDS, first=5)
        self._expiry = Every(EXPIRY_SECONDS, first=60)
        # Not at once: what a first run brings along is no growth.
        self._sampling = Every(SAMPLE_SECONDS)

    def run(self) -> None:
        """Run until the flag is set; raises what makes it impossible to go on."""
        position = self._wait_for(self._begin)
        self._wait_for(self._refuse_without_master)
        if position is None or self.stopping.is_set():
            return
        self.settings.spark.scratch_dir.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as left:
            writer = BatchWriter(position, self._connect, self.rules, self.stopping, self.watchdog.moved)
            left.callback(writer.close, STOP_SECONDS)
            client = left.enter_context(admin(self.settings.kafka.bootstrap))
            scratch = Path(tempfile.mkdtemp(prefix="query-", dir=self.settings.spark.scratch_dir))
            left.callback(shutil.rmtree, scratch, ignore_errors=True)
            session = spark.session(self.settings.spark, APPLICATION, scratch)
            left.callback(spark.stop, session)
            self._run_queries(Parts(session, scratch, writer, TopicGuard(client, position, self.stopping)))
        log.info(
            "stopped; topic %s goes on at %s", position.topic_id, dict(sorted(position.expected.items()))
        )

    def _wait_for(self, ask: Callable[[], T]) -> T | None:
        """Ask until it answers, for any time, as at boot the others may come later; None after a stop."""

        def may_come(error: BaseException) -> bool:
            if isinstance(error, psycopg2.Error):
                return database_error(error) is not None
            return isinstance(error, (KafkaError, MusicError))

        def tell(state: tenacity.RetryCallState) -> None:
            log.warning("waiting: %s", _named(state.outcome.exception() if state.outcome else None))

        waiting = tenacity.Retrying(
            retry=tenacity.retry_if_exception(may_come),
            wait=tenacity.wait_exponential(multiplier=0.5, max=10),
            stop=self.stopping.stops,
            sleep=self.stopping.sleep,
            before_sleep=tell,
        )
        with contextlib.suppress(tenacity.RetryError):
            return waiting(ask)
        return None

    def _connect_plain(self) -> Any:
        return self.settings.postgres.connect(Role.WRITER, application=APPLICATION)

    def _connect(self) -> Any:
        connection = self._connect_plain()
        table.prepare_session(connection, self.settings.spark.statement_seconds)
        return connection

    def _begin(self) -> Position:
        """Compare what PostgreSQL remembers with what Kafka has, and store where reading starts."""
        bootstrap = self.settings.kafka.bootstrap
        # A new connection for each attempt: the earlier one may be lost.
        with contextlib.closing(self._connect()) as connection:
            retention.set_zone(connection, self.settings.display_time_zone)
            stored = offsets.stored_offsets(connection, self.topic)
            kafka = topic_state(bootstrap, self.topic)
            times = stored.newest_kafka_times if stored and stored.topic_id == kafka.topic_id else {}
            known = stored.next_offsets if stored else {}
            later = first_unread(bootstrap, self.topic, times, known) if times else {}
            # A partition without any remembered time has lost nothing that PostgreSQL has seen.
            later = {n: later.get(n) if n in times else kafka.end[n] for n in kafka.end}
            starts = offsets.starting_offsets(stored, kafka, later)
            if stored is None or stored.topic_id != kafka.topic_id or dict(stored.next_offsets) != starts:
                log.info("topic %s, id %s: starting at %s", self.topic, kafka.topic_id, starts)
                shortened = offsets.set_offsets(connection, self.topic, kafka.topic_id, stored, starts)
                for partition, offset in sorted(shortened.items()):
                    log.warning(
                        "Kafka's log of partition %d was shortened: what it held from offset %d on is gone, "
                        "noted in ingest_gaps",
                        partition,
                        offset,
                    )
            self.limit = stored_limit(connection, self.topic, self.limit.most, self.limit.stall_seconds)
        return Position(self.topic, kafka.topic_id, dict(starts), kafka.compacted)

    def _refuse_without_master(self) -> None:
        # Spark itself gives up after a minute, and leaves a context behind that does nothing.
        scheme, _, masters = self.settings.spark.master.partition("://")
        if scheme != "spark":
            return
        if refusal := probe(masters, seconds=5):
            raise StreamError.of(
                "Spark's master does not answer",
                found=refusal,
                wanted="a connection",
                remedy="systemctl status music-spark-master; journalctl -u music-spark-master -n 50",
            )

    def _run_queries(self, parts: Parts) -> None:
        """Run the query; where batches have to be smaller, or may be larger again, run it anew."""
        self.watchdog.moved()
        for self._query in itertools.count():
            self._failure = None
            limit = self.limit.now
            self._store_limit()
            running = self._start(parts, limit)
            try:
                self._watch(running, parts, limit)
            except Exception as error:
                self._make_smaller(error, parts)
                log.warning("batches of at most %d records from now on: %s", self.limit.now, self.limit.why)
            if not parts.writer.wait(STOP_SECONDS if self.stopping.is_set() else None):
                log.warning("the transaction at work did not end in %d s: it is rolled back", STOP_SECONDS)
            running.stop()
            if self.stopping.is_set():
                return
            parts.writer.forget()
            self.watchdog.moved()

    def _start(self, parts: Parts, limit: int) -> StreamingQuery:
        expected = parts.writer.position.expected
        starts = {self.topic: {str(number): offset for number, offset in sorted(expected.items())}}
        records = (
            parts.session.readStream.format("kafka")
            .option("kafka.bootstrap.servers", self.settings.kafka.bootstrap)
            .option("subscribe", self.topic)
            .option("startingOffsets", json.dumps(starts))
            .option("maxOffsetsPerTrigger", limit)
            .option("kafka.isolation.level", "read_committed")
            # Spark is never to decide what is skipped: it ends the query, and the next start compares the
            # stored offsets with what Kafka still has, notes the gap, and goes on behind it.
            .option("failOnDataLoss", "true")
            .load()
        )
        plays = query.plays(records, self.settings.stream.future_tolerance_seconds)
        return (
            plays.writeStream.queryName(APPLICATION)
            .foreachBatch(functools.partial(self._read, parts, self._query))
            .trigger(processingTime=f"{round(self.settings.spark.trigger_seconds * 1000)} milliseconds")
            .option("checkpointLocation", str(parts.scratch / f"checkpoint-{self._query}"))
            .start()
        )

    def _read(self, parts: Parts, of_query: int, rows: DataFrame, number: int) -> None:
        """One micro-batch: read it once through Spark, then have it written while the next one is read."""
        try:
            started, read_at = time.monotonic(), dt.datetime.now(dt.UTC)
            arrow = rows.toArrow()
            seconds = time.monotonic() - started
            if of_query != self._query:
                return
            self.watchdog.moved()
            # After reading: whatever was read is of the topic that the stored offsets belong to.
            parts.guard.check()
            ends = self._ends(parts.scratch / f"checkpoint-{of_query}", number)
            parts.writer.write(arrow, read_at, functools.partial(self._committed, number, seconds), ends)
        except Exception as error:
            # Spark would wrap it in pages of stack traces.
            if of_query == self._query:
                self._failure = error
            raise

    def _ends(self, checkpoint: Path, number: int) -> dict[int, int]:
        """Where a batch ends in each partition, as Spark noted before it began (its log of offsets).

        The rows alone do not tell: markers and aborted records may follow them. Where the note is spoiled,
        the next batch passes those.
        """
        with contextlib.suppress(OSError, ValueError, KeyError, AttributeError):
            *_, ends = (checkpoint / "offsets" / str(number)).read_text(encoding="utf-8").splitlines()
            return {int(partition): offset for partition, offset in json.loads(ends)[self.topic].items()}
        return {}

    def _committed(self, number: int, read_seconds: float, written: Written) -> None:
        """Record a committed batch; runs in the writer's thread."""
        self.watchdog.moved()
        seconds = read_seconds + written.seconds
        self._report.add(written.outcome, seconds)
        for partition, first, end in written.outcome.gaps:
            log.warning(
                "no records %d to %d in partition %d: noted in ingest_gaps", first, end - 1, partition
            )
        log.debug("batch %d: %s in %.0f ms", number, written.outcome, seconds * 1000)
        if self.limit.finished(written.outcome.records, seconds):
            why = self.limit.why or "all is well again"
            log.warning("batches of at most %d records from now on: %s", self.limit.now, why)

    def _watch(self, running: StreamingQuery, parts: Parts, limit: int) -> None:
        """Until the job is to stop or the limit is another one; raises what ended the query."""
        checked, reported = Every(TOPIC_CHECK_SECONDS), Every(REPORT_SECONDS)
        while not self.stopping.wait(1):
            if not running.isActive:
                raise self._failure or running.exception() or StreamError("The query ended by itself.")
            writing = parts.writer.at_work
            if not writing:
                parts.writer.result()
                if self.limit.now != limit:
                    return
                if not running.status["isTriggerActive"]:
                    self.watchdog.moved()
            self.watchdog.look("the write of a batch" if writing else "the reading of a batch")
            if checked.due():
                parts.guard.check()
            if self._housekeeping.due():
                self._look_after()
            if self._sampling.due():
                self._sample_disk()
            if reported.due():
                log.info("%s", self._report)
                self._report = Report()

    def _make_smaller(self, error: Exception, parts: Parts) -> None:
        """Lower the limit after a batch that was too large or too slow; raises whatever else it is."""
        size = f"a batch of at most {self.limit.now} records"
        if isinstance(error, StalledError):
            # Where no executor works, the size is not to blame.
            if (parts.writer.at_work or spark.task_at_work(parts.session)) and self.limit.failed(
                f"{size} took more than {self.settings.spark.stall_seconds:g} s"
            ):
                self._store_limit()
            raise error
        if spark.jvm_lost(error):
            if not spark.ran_out_of_memory(parts.session):
                raise error
            if self.limit.failed(f"{size} did not fit into memory"):
                self._store_limit()
            raise StreamError.of(
                "Spark's driver",
                found=f"its memory exhausted by {size}",
                wanted="batches that fit",
                remedy=f"none needed: the job starts again with {self.limit.now} records at most",
            ) from error
        if spark.too_large(error):
            why = f"{size} did not fit into memory"
        elif isinstance(error, psycopg2.errors.QueryCanceled):
            why = f"PostgreSQL cancelled a statement of {size}"
        else:
            raise error
        if not self.limit.failed(why):
            raise error

    def _store_limit(self) -> None:
        try:
            with contextlib.closing(self._connect_plain()) as connection:
                store_limit(connection, self.topic, self.limit)
        except psycopg2.Error as error:
            log.warning("the limit of a batch is not stored: %s", _named(error))

    def _look_after(self) -> None:
        stream = self.settings.stream
        try:
            with contextlib.closing(self._connect_plain()) as connection:
                housekeeping.look_after(connection, self.topic, self.rules, stream, self._expiry)
        except psycopg2.Error as error:
            log.warning("housekeeping is put off: %s", _named(error))

    def _sample_disk(self) -> None:
        try:
            with contextlib.closing(self._connect_plain()) as connection:
                disk.take_sample(connection, self.settings.kafka.bootstrap, self.topic)
        except (psycopg2.Error, KafkaError, MusicError) as error:
            log.warning("the sizes on the disk are not noted: %s", _named(error))


def _named(error: BaseException | None) -> str:
    """The error in one line, with the part that it comes from."""
    said = (isinstance(error, psycopg2.Error) and database_error(error)) or error
    text = " ".join(str(said).split())
    return text if isinstance(said, MusicError) else f"{type(error).__name__} {text}"


def main() -> None:
    """The entry point of music-metrics.service: exit code 0 after SIGTERM, 1 when it cannot go on."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s", stream=sys.stdout)
    for name in ("kafka", "py4j"):
        logging.getLogger(name).setLevel(logging.ERROR)
    stopping = StopFlag()
    stopping.on_signals(signal.SIGTERM, signal.SIGINT)
    try:
        Job(Settings.load(), stopping).run()
    except Exception as error:
        # systemd shows the last line first.
        log.error("%s: %s", type(error).__name__, _named(error))
        sys.exit(1)


if __name__ == "__main__":
    main()
