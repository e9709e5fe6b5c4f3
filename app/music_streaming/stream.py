"""The Spark driver: one Structured Streaming query from Kafka into the one transaction of table.py.

PostgreSQL is the job's only memory. The checkpoint folder that Spark insists on is made anew at each start,
and the query begins at the offsets that the last committed transaction left. Whatever cannot be mended while
running ends the process with exit code 1; systemd starts it again, and it goes on from there.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import logging
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg2
import tenacity

from music_streaming import offsets, query, table
from music_streaming.broker import KafkaError, admin, offsets_by_time, probe, topic_identity, topic_state
from music_streaming.error import MusicError
from music_streaming.settings import Role, Settings

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql.streaming.query import StreamingQuery

log = logging.getLogger("music-metrics")

# The container's ready probe looks at its age.
ALIVE = Path("/tmp/music-metrics.alive")  # noqa: S108  a tmpfs of the driver's own
APPLICATION = "music-metrics"
TOPIC_CHECK_SECONDS = 10
BROKER_SECONDS = 60
HOUSEKEEPING_SECONDS = 600
REPORT_SECONDS = 60
# Below the time that systemd gives the unit to stop.
STOP_SECONDS = 5

# Three copies of a result meet in the driver's heap: as it arrives, put together, and on its way to Python.
MAX_RESULT = "32m"
# How Spark words it that a batch was too large for the driver or for its executors.
TOO_LARGE = ("spark.driver.maxResultSize", "OutOfMemory", "OutOfDirectMemory", "ExecutorLostFailure")

# Heap apart, a JVM of this job needs little; the defaults reserve for a server. The heap begins small: Java
# would begin with a 64th of the board's memory.
JVM_OPTIONS = (
    "-XX:+UseSerialGC -XX:ReservedCodeCacheSize=96m -XX:MaxMetaspaceSize=192m -Xss512k "
    "-Xms48m -XX:MinHeapFreeRatio=20 -XX:MaxHeapFreeRatio=40 -XX:+ExitOnOutOfMemoryError"
)


class StreamError(MusicError):
    """The job cannot go on; the text says why."""


@dataclass
class Progress:
    """Counts since the last report, and when a batch was last known to go on (monotonic seconds)."""

    batches: int = 0
    records: int = 0
    accepted: int = 0
    rejected: int = 0
    duplicates: int = 0
    late: int = 0
    seconds: float = 0
    watermark: dt.datetime | None = None
    moved: float = field(default_factory=time.monotonic)

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
        self.moved = time.monotonic()

    def __str__(self) -> str:
        mean = self.seconds / self.batches * 1000 if self.batches else 0
        return (
            f"{self.records} records in {self.batches} batches of {mean:.0f} ms: {self.accepted} accepted "
            f"({self.late} late), {self.rejected} rejected, {self.duplicates} duplicates; "
            f"watermark {self.watermark:%Y-%m-%d %H:%M:%S}"
            if self.watermark
            else f"{self.records} records in {self.batches} batches; no play yet"
        )


def session(settings: Settings, scratch: Path) -> SparkSession:
    """The Spark session on the standalone cluster; its executors need no Python."""
    from pyspark.sql import SparkSession  # noqa: PLC0415  never at import

    spark = settings.spark
    conf = query.SESSION | {
        "spark.master": spark.master,
        "spark.app.name": APPLICATION,
        "spark.driver.host": spark.driver_host,
        "spark.driver.bindAddress": spark.driver_host,
        "spark.driver.memory": spark.driver_memory,
        # Planning a batch a second is not worth the second compiler, which took 20 s of processor and 70 MB.
        "spark.driver.extraJavaOptions": f"{JVM_OPTIONS} -XX:TieredStopAtLevel=1",
        "spark.executor.memory": spark.executor_memory,
        "spark.executor.cores": str(spark.executor_cores),
        "spark.executor.extraJavaOptions": JVM_OPTIONS,
        # Bytes of each heap that are set aside. The default, 300 MB, forbids a heap below 450 MB.
        "spark.testing.reservedMemory": str(64 * 1024**2),
        "spark.local.dir": str(scratch),
        # An executor that dies again and again is started again and again: no hand is near.
        "spark.deploy.maxExecutorRetries": "-1",
        # There is one worker on most boards: waiting for a better place only delays a batch.
        "spark.locality.wait": "0",
        "spark.sql.shuffle.partitions": "2",
        "spark.sql.streaming.minBatchesToRetain": "2",
        "spark.sql.streaming.noDataMicroBatches.enabled": "false",
        "spark.sql.streaming.numRecentProgressUpdates": "2",
        # A batch too large for the driver's heap is refused before it gets there; see _run_query.
        "spark.driver.maxResultSize": MAX_RESULT,
        # What would be shown by the web page that is switched off, kept in the heap all the same.
        "spark.ui.retainedJobs": "10",
        "spark.ui.retainedStages": "10",
        "spark.ui.retainedTasks": "100",
        "spark.sql.ui.retainedExecutions": "5",
    }
    builder = SparkSession.builder
    for key, value in conf.items():
        builder = builder.config(key, value)
    made = builder.getOrCreate()
    made.sparkContext.setLogLevel("WARN")
    return made


class Job:
    """One life of the query: from the offsets in PostgreSQL until it is stopped or cannot go on."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.topic = settings.kafka.topic
        self.rules = table.Rules(
            watermark_delay=dt.timedelta(seconds=settings.stream.watermark_delay_seconds),
            future_tolerance=dt.timedelta(seconds=settings.stream.future_tolerance_seconds),
            rejects_kept=settings.stream.rejects_kept,
        )
        self.stopping = threading.Event()
        self.progress = Progress()
        self._report = Progress()
        # Held while a transaction runs: a stop waits for it.
        self._writing = threading.Lock()
        # The write of the newest batch, at work while Spark reads the next one.
        self._written: Future[None] = Future()
        self._written.set_result(None)
        self._connection: Any = None
        self._expected: dict[int, int] = {}
        self._topic_id = ""
        self._failure: Exception | None = None
        self._kafka: Any = None
        # The query's thread and the main one ask Kafka.
        self._asking = threading.Lock()

    def stop(self) -> None:
        """Ask `run` to return after the batch that is being written."""
        self.stopping.set()

    def run(self) -> None:
        """Run until `stop`; raises what makes it impossible to go on."""
        needed = {"PostgreSQL": self._connect, "Kafka": self._begin, "Spark's master": self._knock_at_master}
        for what, ask in needed.items():
            self._wait_for(what, ask)
            if self.stopping.is_set():
                return
        self.settings.spark.scratch_dir.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as left:
            left.callback(self._disconnect)
            self._kafka = left.enter_context(admin(self.settings.kafka.bootstrap))
            scratch = Path(tempfile.mkdtemp(prefix="query-", dir=self.settings.spark.scratch_dir))
            left.callback(shutil.rmtree, scratch, ignore_errors=True)
            spark = session(self.settings, scratch)
            left.callback(spark.stop)
            self._run_query(spark, scratch)
        log.info("stopped; topic %s goes on at %s", self._topic_id, dict(sorted(self._expected.items())))

    def _knock_at_master(self) -> None:
        # Spark itself gives up after a minute, and leaves a context behind that does nothing.
        scheme, _, masters = self.settings.spark.master.partition("://")
        if scheme != "spark":
            return
        if refusal := probe(masters, seconds=5):
            raise OSError(refusal)

    def _wait_for(self, what: str, ask: Callable[[], None]) -> None:
        """Ask until it answers, for any time, as at boot the others may come later; or until `stop`."""

        def tell(state: tenacity.RetryCallState) -> None:
            error = state.outcome.exception() if state.outcome else None
            log.warning("waiting for %s: %s", what, " ".join(str(error).split()) or type(error).__name__)

        waiting = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type((psycopg2.Error, KafkaError, MusicError, OSError)),
            wait=tenacity.wait_exponential(multiplier=0.5, max=10),
            stop=tenacity.stop_when_event_set(self.stopping),
            sleep=tenacity.sleep_using_event(self.stopping),
            before_sleep=tell,
        )
        with contextlib.suppress(tenacity.RetryError):
            waiting(ask)

    def _disconnect(self) -> None:
        # psycopg2 closes only after the statement at work; the end of the process does not wait for it.
        if wait([self._written], STOP_SECONDS).done:
            self._connection.close()

    def _connect(self) -> None:
        self._connection = self.settings.postgres.connect(Role.WRITER, application=APPLICATION)
        table.prepare_session(self._connection)

    def _begin(self) -> None:
        """Compare what PostgreSQL remembers with what Kafka has, and store where reading starts."""
        bootstrap = self.settings.kafka.bootstrap
        stored = offsets.stored_offsets(self._connection, self.topic)
        kafka = topic_state(bootstrap, self.topic)
        times = stored.newest_kafka_times if stored and stored.topic_id == kafka.topic_id else {}
        later = offsets_by_time(bootstrap, self.topic, times) if times else {}
        # A partition without any remembered time has lost nothing that PostgreSQL has seen.
        later = {number: later.get(number) if number in times else kafka.end[number] for number in kafka.end}
        starts = offsets.starting_offsets(stored, kafka, later)
        if stored is None or stored.topic_id != kafka.topic_id or dict(stored.next_offsets) != starts:
            log.info("topic %s, id %s: starting at %s", self.topic, kafka.topic_id, starts)
            offsets.set_offsets(self._connection, self.topic, kafka.topic_id, stored, starts)
        self._expected = dict(starts)
        self._topic_id = kafka.topic_id

    def _run_query(self, spark: SparkSession, scratch: Path) -> None:
        """Run the query; where a batch is too large for the memory, run it again with smaller ones."""
        limit = self.settings.spark.max_offsets_per_trigger
        while True:
            running = self._start(spark, scratch / f"checkpoint-{limit}", limit)
            try:
                self._watch(running)
                return
            except Exception as error:
                if limit == 1 or not any(sign in str(error) for sign in TOO_LARGE):
                    raise
                running.stop()
                self._written.result()
                limit = max(limit // 10, 1)
                self._failure = None
                log.warning("a batch did not fit into memory: at most %d records each from now on", limit)

    def _start(self, spark: SparkSession, checkpoint: Path, limit: int) -> StreamingQuery:
        starts = {self.topic: {str(number): offset for number, offset in sorted(self._expected.items())}}
        records = (
            spark.readStream.format("kafka")
            .option("kafka.bootstrap.servers", self.settings.kafka.bootstrap)
            .option("subscribe", self.topic)
            .option("startingOffsets", json.dumps(starts))
            .option("maxOffsetsPerTrigger", limit)
            # Spark is never to decide what is skipped: it ends the query, and the next start compares the
            # stored offsets with what Kafka still has, notes the gap, and goes on behind it.
            .option("failOnDataLoss", "true")
            .load()
        )
        judged = query.plays(
            records,
            self.settings.stream.future_tolerance_seconds,
            self.settings.stream.watermark_delay_seconds,
        )
        return (
            judged.writeStream.queryName(APPLICATION)
            .foreachBatch(self._read)
            .trigger(processingTime=f"{round(self.settings.spark.trigger_seconds * 1000)} milliseconds")
            .option("checkpointLocation", str(checkpoint))
            .start()
        )

    def _read(self, rows: DataFrame, number: int) -> None:
        """One micro-batch: read it once through Spark, then have it written while the next one is read."""
        try:
            started, read_at = time.monotonic(), dt.datetime.now(dt.UTC)
            arrow = rows.toArrow()
            self.progress.moved = time.monotonic()
            # After reading: whatever was read is of the topic that the stored offsets belong to.
            self._check_topic()
            # One at a time, in order; its error ends the query.
            self._written.result()
        except Exception as error:
            # Spark would wrap it in pages of stack traces.
            self._failure = error
            raise
        written: Future[None] = Future()

        def write() -> None:
            try:
                self._write(arrow, number, read_at, started)
                written.set_result(None)
            except Exception as error:
                written.set_exception(error)

        self._written = written
        # A daemon, unlike an executor's: what cannot be written must not keep the process from its end.
        threading.Thread(target=write, daemon=True).start()

    def _write(self, arrow: pa.Table, number: int, read_at: dt.datetime, started: float) -> None:
        """Write one micro-batch in one transaction."""
        with self._writing:
            if self.stopping.is_set():
                return
            batch = table.Batch(self.topic, self._topic_id, arrow, dict(self._expected), read_at)
            outcome = self._write_or_wait(batch)
        self._expected.update(outcome.next_offsets)
        self.progress.add(outcome, time.monotonic() - started)
        self._report.add(outcome, time.monotonic() - started)
        for partition, first, end in outcome.gaps:
            log.warning(
                "no records %d to %d in partition %d: noted in ingest_gaps", first, end - 1, partition
            )
        log.debug("batch %d: %s in %.0f ms", number, outcome, (time.monotonic() - started) * 1000)

    def _write_or_wait(self, batch: table.Batch) -> table.Outcome:
        """Write; over a database that is away keep the batch and try again, until it is back or `stop`."""

        def mend(state: tenacity.RetryCallState) -> None:
            error = state.outcome.exception() if state.outcome else None
            log.warning("PostgreSQL: %s; the batch is kept and tried again", " ".join(str(error).split()))
            # A new start would only lose what Java has compiled.
            self.progress.moved = time.monotonic()
            try:
                self._connection.close()
                self._connect()
            except psycopg2.Error:
                log.debug("still away")

        return tenacity.Retrying(
            retry=tenacity.retry_if_exception_type((psycopg2.OperationalError, psycopg2.InterfaceError)),
            wait=tenacity.wait_exponential(multiplier=0.2, max=5),
            stop=tenacity.stop_when_event_set(self.stopping),
            sleep=tenacity.sleep_using_event(self.stopping),
            before_sleep=mend,
            reraise=True,
        )(lambda: table.write(self._connection, batch, self.rules))

    def _watch(self, running: StreamingQuery) -> None:
        checked = kept = reported = time.monotonic()
        kept -= HOUSEKEEPING_SECONDS - 60
        while not self.stopping.wait(1):
            if not running.isActive:
                raise self._failure or running.exception() or StreamError("The query ended by itself.")
            written = self._written
            if written.done():
                written.result()
            now = time.monotonic()
            if written.done() and not running.status["isTriggerActive"]:
                self.progress.moved = now
            if now - self.progress.moved > self.settings.spark.stall_seconds:
                raise StreamError.of(
                    "Spark",
                    found=f"no batch finished for {self.settings.spark.stall_seconds:g} s",
                    wanted="an executor that works",
                    remedy="sudo systemctl status music-spark-worker; the job starts again by itself",
                )
            ALIVE.touch()
            if now - checked > TOPIC_CHECK_SECONDS:
                checked = now
                self._check_topic()
            if now - kept > HOUSEKEEPING_SECONDS:
                kept = now
                self._housekeep()
            if now - reported > REPORT_SECONDS:
                reported = now
                log.info("%s", self._report)
                self._report = Progress()
        if self._writing.acquire(timeout=STOP_SECONDS):
            # A batch that comes next sees that the job is stopping, and must not wait for the lock.
            self._writing.release()
        else:
            log.warning("the transaction at work did not end in %d s: it is rolled back", STOP_SECONDS)
        running.stop()

    def _check_topic(self) -> None:
        """TopicRecreatedError where the topic is not the one that the query began with.

        A broker that is away is waited for; KafkaError if it stays away.
        """
        ask = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(KafkaError),
            wait=tenacity.wait_fixed(0.5),
            stop=tenacity.stop_any(
                tenacity.stop_after_delay(BROKER_SECONDS), tenacity.stop_when_event_set(self.stopping)
            ),
            reraise=True,
        )
        with self._asking:
            found = ask(topic_identity, self._kafka, self.topic)
        if found != self._topic_id:
            raise offsets.TopicRecreatedError.of(
                f"Topic {self.topic}",
                found=f"id {found}",
                wanted=f"id {self._topic_id}, which this query reads",
                remedy="none needed: the job starts again and reads the new topic from its beginning",
            )

    def _housekeep(self) -> None:
        stream = self.settings.stream
        try:
            connection = self.settings.postgres.connect(Role.WRITER, application=APPLICATION)
            try:
                expired = table.housekeep(connection, stream.demo_retention_days, stream.batches_kept_days)
            finally:
                connection.close()
        except psycopg2.Error as error:
            log.warning("housekeeping is put off: %s", " ".join(str(error).split()))
            return
        if expired:
            log.info("%d demo plays are older than %d days and gone", expired, stream.demo_retention_days)


def main() -> None:
    """The entry point of music-metrics.service: exit code 0 after SIGTERM, 1 when it cannot go on."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s", stream=sys.stdout)
    for name in ("kafka", "py4j"):
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        job = Job(Settings.load())
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: job.stop())
        job.run()
    except Exception as error:
        # systemd shows the last line first.
        log.error("%s: %s", type(error).__name__, error)
        sys.exit(1)


if __name__ == "__main__":
    main()
