"""The live producer: sends the plays of the modelled listeners to Kafka, at their time, and never gives up.

It holds a bounded number of events. While the broker is away it waits, then goes on from the present moment:
it slows down rather than drop. Every event that was not delivered is counted and logged.
"""

from __future__ import annotations

import logging
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import astuple, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import click

from music_streaming import broker
from music_streaming.error import MusicError
from music_streaming.service import log_to_journal, notify
from music_streaming.settings import ProducerSettings, Settings
from music_streaming.topic import wanted_topics

if TYPE_CHECKING:
    from music_streaming.demo.arrivals import BadData
    from music_streaming.demo.live import Live
    from music_streaming.demo.records import Record
    from music_streaming.demo.world import World

log = logging.getLogger("music_streaming.demo.producer")

REPORT_SECONDS = 60.0
STATUS_SECONDS = 5.0
# How long any wait may last before it looks whether the service is to stop.
NAP_SECONDS = 0.2
# A backlog up to this is made up for; after a longer one (broker away) the stream goes on from now.
BACKLOG_MS = 5_000
# Exit code of a producer that had to stop before all was sent: EX_TEMPFAIL, which its unit knows.
UNSENT = 75
RETRY_SECONDS = (1.0, 2.0, 5.0, 10.0)


@dataclass(frozen=True)
class Tally:
    """Events since the start, counted: sent = delivered + failed + too_large + waiting."""

    sent: int = 0
    delivered: int = 0
    failed: int = 0
    too_large: int = 0

    @property
    def waiting(self) -> int:
        """Handed to the client and not yet acknowledged."""
        return self.sent - self.delivered - self.failed - self.too_large

    def since(self, earlier: Tally) -> Tally:
        """The difference from `earlier`."""
        return Tally(*(now - then for now, then in zip(astuple(self), astuple(earlier), strict=True)))

    def __str__(self) -> str:
        return (
            f"{self.sent} sent, {self.delivered} delivered, {self.failed} failed, {self.too_large} too large"
        )


class InFlight:
    """Tally every event and bounds what is on its way, since kafka-python itself holds any amount.

    Used by the sending thread and by the client's own thread.
    """

    def __init__(self, max_events: int, max_bytes: int) -> None:
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._bytes = 0
        self._counts = Tally()
        self._change = threading.Condition()

    @property
    def counts(self) -> Tally:
        """The current counts."""
        return self._counts

    def send(self, size: int) -> None:
        """Count one more event of `size` bytes on its way."""
        with self._change:
            self._counts = replace(self._counts, sent=self._counts.sent + 1)
            self._bytes += size

    def settle(self, size: int, outcome: Literal["delivered", "failed", "too_large"]) -> None:
        """Count the outcome of one event of `size` bytes and make room for another."""
        with self._change:
            self._counts = replace(self._counts, **{outcome: getattr(self._counts, outcome) + 1})
            self._bytes -= size
            self._change.notify_all()

    def wait_for_room(self, seconds: float) -> bool:
        """True as soon as there is room for one more event, False after `seconds`."""
        with self._change:
            return self._change.wait_for(
                lambda: self._counts.waiting < self._max_events and self._bytes < self._max_bytes, seconds
            )

    def wait_until_empty(self, seconds: float) -> bool:
        """True as soon as nothing is on its way, False after `seconds`."""
        with self._change:
            return self._change.wait_for(lambda: self._counts.waiting == 0, seconds)


class Producer:
    """Sends what `source(start_ms)` yields to the topic of `settings` until `stop`."""

    def __init__(self, settings: Settings, source: Callable[[int], Live]) -> None:
        self._kafka = settings.kafka
        self._settings = settings.producer
        self._source = source
        topic = wanted_topics(settings.kafka, settings.paths.files)[0]
        self._max_size = int(topic.config["max.message.bytes"])
        self._in_flight = InFlight(self._settings.buffer_events, self._settings.buffer_bytes)
        self._live: Live | None = None
        self._reported = Tally()
        self._report_at = time.monotonic() + REPORT_SECONDS
        self._status_at = 0.0
        self._clock_offset = 0.0
        self._last_error = ""
        self._broken = False
        self._connected = False
        self._stopping = False

    def stop(self) -> None:
        """End `run` soon; safe in a signal handler, for it takes no lock."""
        self._stopping = True

    @property
    def counts(self) -> Tally:
        """The current counts."""
        return self._in_flight.counts

    def run(self, count: int | None = None) -> Tally:
        """Send until `stop`, or until `count` events were sent; then flush and say how many were left."""
        client: Any | None = None
        try:
            while not self._finished(count):
                client = client or self._connect()
                if client is None:
                    break
                self._pump(client, count)
                if self._broken:
                    self._in_flight.wait_until_empty(broker.CONNECT_SECONDS)
                    broker.close_producer(client)
                    client = None
                    self._nap(RETRY_SECONDS[0])
        finally:
            notify("STOPPING=1")
            empty = self._in_flight.wait_until_empty(self._settings.flush_seconds if client else 0)
            counts = self.counts  # closing fails what is left, which is not news
            level = logging.INFO if empty else logging.WARNING
            if client:
                broker.close_producer(client)
            # The last line: systemd and people look there.
            log.log(level, "stopped: %s, %d left unsent", counts, counts.waiting)
        return counts

    def _finished(self, count: int | None) -> bool:
        return self._stopping or (count is not None and self.counts.sent >= count)

    def _connect(self) -> Any | None:
        """A client that knows the topic, however long that takes; None when the service is to stop."""
        attempt = 0
        while not self._stopping:
            found = self._obstacle()
            if not found:
                try:
                    client = broker.producer(self._kafka, self._max_size)
                except broker.KafkaError as error:
                    found = f"{type(error).__name__}: {error}"
                else:
                    log.info("connected to %s, topic %s", self._kafka.bootstrap, self._kafka.topic)
                    self._broken, self._connected = False, True
                    return client
            self._connected = False
            if attempt == 0:
                log.warning("waiting for Kafka: found %s", found)
            self._last_error = found
            notify(f"STATUS=waiting for Kafka ({found})")
            self._nap(RETRY_SECONDS[min(attempt, len(RETRY_SECONDS) - 1)])
            attempt += 1
        return None

    def _obstacle(self) -> str:
        # Asked first: a client that cannot connect leaves sockets behind, and one that waits for a topic asks
        # for it thousands of times a second.
        refusal = broker.probe(self._kafka.bootstrap)
        if refusal:
            return refusal
        try:
            with broker.admin(self._kafka.bootstrap, timeout_seconds=broker.CONNECT_SECONDS) as client:
                return (
                    "" if broker.end_offsets(client, self._kafka.topic) else f"no topic {self._kafka.topic}"
                )
        except (MusicError, broker.KafkaError) as error:
            return f"{type(error).__name__}: {error}"

    def _pump(self, client: Any, count: int | None) -> None:
        """Send events at their time until stopped, finished, broken, or the clock was set."""
        if self._live is None or self._clock_was_set():
            self._clock_offset = time.time() - time.monotonic()
            self._live = self._source(_now_ms())
        source = self._live
        for record in source:
            if not self._wait_until(record.due_ms):
                return
            if _now_ms() - record.due_ms > BACKLOG_MS:
                source.skip_to(_now_ms())
                continue
            if not self._put(client, record) or self._finished(count):
                return

    def _wait_until(self, due_ms: int) -> bool:
        while True:
            self._report()
            # A clock that was set would let a due time lie months ahead: start anew from the present.
            if self._stopping or self._broken or self._clock_was_set():
                return False
            ahead = due_ms / 1000 - time.time()
            if ahead <= 0:
                return True
            # Not less than 5 ms, so that a high rate sends small bursts rather than sleep for each event.
            time.sleep(min(max(ahead, 0.01), NAP_SECONDS))

    def _clock_was_set(self) -> bool:
        return abs(time.time() - time.monotonic() - self._clock_offset) > BACKLOG_MS / 1000

    def _put(self, client: Any, record: Record) -> bool:
        """Hand one event to the client, waiting while the buffer is full; False when that was given up."""
        while not self._in_flight.wait_for_room(NAP_SECONDS):
            self._report()
            if self._stopping or self._broken:
                return False
        size = len(record.key) + len(record.value)
        self._in_flight.send(size)
        try:
            future = client.send(self._kafka.topic, key=record.key, value=record.value)
        except broker.KafkaError as error:
            self._fail(size, error)
        else:
            future.add_callback(self._deliver, size)
            future.add_errback(self._fail, size)
        return True

    def _deliver(self, size: int, _metadata: Any) -> None:
        self._in_flight.settle(size, "delivered")

    def _fail(self, size: int, error: Exception) -> None:
        self._last_error = f"{type(error).__name__}: {error}"
        too_large = isinstance(error, broker.TOO_LARGE)
        self._broken = self._broken or not too_large
        self._in_flight.settle(size, "too_large" if too_large else "failed")

    def _nap(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self._stopping and (rest := until - time.monotonic()) > 0:
            self._report()
            time.sleep(min(rest, NAP_SECONDS))

    def _report(self) -> None:
        now = time.monotonic()
        if now >= self._status_at:
            self._status_at = now + STATUS_SECONDS
            notify(f"STATUS={pace_of(self._settings)}: {self.counts}, {self.counts.waiting} waiting")
        if now < self._report_at:
            return
        self._report_at = now + REPORT_SECONDS
        counts = self.counts
        minute, self._reported = counts.since(self._reported), counts
        # A minute in which nobody plays is none: a small audience has such nights.
        unanswered = not minute.delivered and (counts.waiting or not self._connected)
        trouble = minute.failed or minute.too_large or unanswered
        log.log(
            logging.WARNING if trouble else logging.INFO,
            "last minute: %s, %d waiting%s",
            minute,
            counts.waiting,
            f"; {self._last_error}" if trouble and self._last_error else "",
        )


def pace_of(wanted: ProducerSettings) -> str:
    """How fast it plays, for people."""
    return "as people play" if wanted.pace == "model" else f"{wanted.rate:g} plays/s"


def world_of(wanted: ProducerSettings) -> World:
    """The population of the settings."""
    from music_streaming.demo.world import World  # noqa: PLC0415  its numpy start is not for importers

    return World(
        seed=wanted.seed,
        listeners=wanted.listeners or World.listeners_for(wanted.rate),
        locales=wanted.locales,
        artists=wanted.artists,
    )


def bad_data_of(wanted: ProducerSettings) -> BadData:
    """The bad data of the settings, CLEAN where it is off."""
    from music_streaming.demo.arrivals import CLEAN, BadData  # noqa: PLC0415

    return (
        BadData(wanted.late, wanted.duplicate, wanted.malformed, wanted.ahead) if wanted.bad_data else CLEAN
    )


def _now_ms() -> int:
    return int(time.time() * 1000)


@click.command()
@click.option(
    "--rate",
    type=click.FloatRange(0, 5000, min_open=True),
    help="Events per second, whatever the settings' pace.",
)
@click.option("--count", type=click.IntRange(min=1), help="Stop after this many events.")
def main(rate: float | None, count: int | None) -> None:
    """Send the plays of the modelled listeners to Kafka until stopped (the service music-producer).

    Exit code 75 where events are left unsent; the last line tells how many.
    """
    from music_streaming.demo.live import live  # noqa: PLC0415  its numpy start is not for importers

    log_to_journal()
    try:
        settings = Settings.load()
        if rate is not None:
            settings = settings.with_changes(producer={"pace": "rate", "rate": rate})
        wanted = settings.producer
        world, bad_data = world_of(wanted), bad_data_of(wanted)
        pace = wanted.rate if wanted.pace == "rate" else None
        producer = Producer(
            settings,
            lambda start_ms: live(world, start_ms, rate=pace, bad_data=bad_data, report=wanted.report),
        )
    except MusicError as error:
        raise click.ClickException(str(error)) from None
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: producer.stop())
    # Ready means: it runs and will send. A start that waited for a broker hours away would fail.
    notify("READY=1")
    if producer.run(count).waiting:
        sys.exit(UNSENT)


if __name__ == "__main__":
    main()
