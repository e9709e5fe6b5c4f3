"""The producer against a real broker: its rate, outages, what it counts, and how it stops."""

import gc
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import NamedTuple

import pytest
from kafka import KafkaConsumer

from music_streaming.broker import close_producer, partitioner
from music_streaming.broker import producer as producing_client
from music_streaming.demo.producer import (
    UNSENT,
    InFlight,
    Producer,
    Tally,
)
from music_streaming.service import notify
from music_streaming.settings import KafkaSettings, PathSettings, ProducerSettings, Settings
from music_streaming.testing import wait_for
from music_streaming.testing.broker import Broker
from music_streaming.topic import ensure_topics

# kafka-python leaves the sockets of attempts that failed to the garbage collector.
pytestmark = pytest.mark.filterwarnings(
    "ignore:unclosed <socket:ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)


@pytest.fixture(autouse=True)
def collect_sockets():
    yield
    gc.collect()


class Play(NamedTuple):
    due_ms: int
    key: bytes
    value: bytes


class Steady(Iterator[Play]):
    """Numbered records, `rate` a second; those whose number is in `huge` are over every limit."""

    def __init__(self, start_ms: int, rate: float, huge: tuple[int, ...] = ()) -> None:
        self.start_ms, self.rate, self.huge = start_ms, rate, huge
        self.number = 0
        self.skipped = 0

    def __next__(self) -> Play:
        self.number += 1
        value = b"x" * 2_000_000 if self.number in self.huge else b'{"number":%d}' % self.number
        return Play(int(self.start_ms + self.number * 1000 / self.rate), b"%d" % (self.number % 97), value)

    def skip_to(self, now_ms: int) -> None:
        self.skipped += 1
        self.number = max(self.number, int((now_ms - self.start_ms) * self.rate / 1000))


def wait_until(what: str, condition, seen=lambda: "", seconds: float = 40) -> None:
    assert wait_for(condition, bool, seconds), f"no {what} within {seconds} s {seen()}"


class Running:
    """A producer at work in a thread; `source` is what it sends from."""

    def __init__(self, settings: Settings, **steady) -> None:
        self.settings = settings
        self.sources: list[Steady] = []

        def source(start_ms: int) -> Steady:
            self.sources.append(Steady(start_ms, settings.producer.rate, **steady))
            return self.sources[-1]

        self.producer = Producer(settings, source)
        self.result = Tally()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        self.result = self.producer.run()

    def wait_for(self, what: str, condition) -> None:
        wait_until(what, lambda: condition(self.producer.counts), lambda: self.producer.counts)

    def stop(self) -> Tally:
        self.producer.stop()
        self._thread.join(30)
        assert not self._thread.is_alive()
        return self.result


@pytest.fixture
def run(files):
    """Start a producer on `broker`; stopped at the end of the test."""
    started: list[Running] = []

    def running(
        broker: Broker, topic: str, *, rate: float, make=True, huge: tuple[int, ...] = (), **producer
    ):
        settings = Settings(
            kafka=KafkaSettings(bootstrap=broker.bootstrap, topic=topic),
            paths=PathSettings(files=files),
            producer=ProducerSettings(rate=rate, **producer),
        )
        if make:
            ensure_topics(settings)
        started.append(Running(settings, huge=huge))
        return started[-1]

    yield running
    for item in started:
        item.stop()


def numbers(broker: Broker, topic: str) -> list[int]:
    """The numbers in the topic, as they lie there."""
    consumer = KafkaConsumer(
        topic, bootstrap_servers=broker.bootstrap, auto_offset_reset="earliest", consumer_timeout_ms=2000
    )
    try:
        return [int(record.value[10:-1]) for record in consumer]
    finally:
        consumer.close()


@pytest.mark.parametrize("rate", [20, 1000])
def test_the_rate_is_honoured(run, broker, topic, rate):
    running = run(broker, topic, rate=rate)
    running.wait_for("first delivery", lambda counts: counts.delivered)
    begun, first = time.monotonic(), running.producer.counts.sent
    measured = 0.0

    def on_schedule(counts) -> bool:
        nonlocal measured
        seconds = time.monotonic() - begun
        measured = (counts.sent - first) / seconds
        # What a busy machine has delayed is sent a little later.
        return seconds >= 6 and measured >= rate * 0.95

    running.wait_for("6 seconds of events at the rate", on_schedule)
    assert measured <= rate * 1.02
    stopped = running.stop()
    assert stopped.waiting == 0
    assert broker.count(topic) == stopped.sent == stopped.delivered


@pytest.mark.slow
def test_a_missing_or_dying_broker_costs_no_event_and_no_memory(run, own_broker, topic, caplog):
    caplog.set_level("INFO", "music_streaming.demo.producer")
    running = run(own_broker, topic, rate=2000, make=False, buffer_events=1000, flush_seconds=1)
    wait_until("a word about the missing broker", lambda: "waiting for Kafka" in caplog.text)
    own_broker.start()
    wait_until("a word about the missing topic", lambda: f"no topic {topic}" in running.producer._last_error)
    assert running.producer.counts == Tally()
    ensure_topics(running.settings)
    running.wait_for("delivery after the topic was made", lambda counts: counts.delivered > 1000)

    own_broker.kill()
    running.wait_for("full buffer", lambda counts: counts.waiting == 1000)
    # Longer than what is made up for, so that the stream has to go on from now.
    held = running.producer.counts
    time.sleep(6)
    assert running.producer.counts == held
    own_broker.start()
    began = time.monotonic()
    running.wait_for("delivery of what was held", lambda counts: counts.delivered > held.sent)
    assert time.monotonic() - began < 30
    assert running.sources[0].skipped >= 1

    before = running.producer.counts
    own_broker.kill()
    running.wait_for("waiting events", lambda counts: counts.waiting > 500)
    begun = time.monotonic()
    stopped = running.stop()
    assert time.monotonic() - begun < 5
    assert stopped.waiting > 500
    assert f"{stopped.waiting} left unsent" in caplog.text

    own_broker.start()
    found = numbers(own_broker, topic)
    assert stopped.failed == 0
    assert len(found) == len(set(found))
    # An answer that the death of the broker swallowed may belong to records that it had written.
    assert before.delivered <= stopped.delivered <= len(found) <= stopped.sent


def test_a_quiet_minute_is_no_trouble_and_a_missing_broker_is(run, own_broker, topic, caplog, monkeypatch):
    caplog.set_level("INFO", "music_streaming.demo.producer")
    monkeypatch.setattr("music_streaming.demo.producer.REPORT_SECONDS", 0.3)

    def levels() -> set[str]:
        return {record.levelname for record in caplog.records if "last minute: 0 sent" in record.getMessage()}

    running = run(own_broker, topic, rate=0.001, make=False)
    wait_until("a report without a broker", levels)
    assert levels() == {"WARNING"}
    own_broker.start()
    ensure_topics(running.settings)
    wait_until("the connection", lambda: "connected to" in caplog.text)
    caplog.clear()
    wait_until("a report of a quiet minute", levels)
    assert levels() == {"INFO"}


def test_a_broker_that_hangs_is_waited_for(run, broker, topic):
    running = run(broker, topic, rate=500)
    running.wait_for("delivery", lambda counts: counts.delivered > 100)
    broker.pause()
    try:
        running.wait_for("waiting events", lambda counts: counts.waiting > 500)
    finally:
        broker.resume()
    running.wait_for("all of them delivered", lambda counts: counts.waiting < 100)
    stopped = running.stop()
    found = numbers(broker, topic)
    assert len(found) == len(set(found)) == stopped.delivered == stopped.sent


def test_what_is_too_large_is_refused_and_counted(run, broker, topic):
    running = run(broker, topic, rate=200, huge=(3, 30))
    running.wait_for("100 events", lambda counts: counts.sent >= 100)
    stopped = running.stop()
    assert stopped.too_large == 2
    assert stopped.failed == 0
    found = numbers(broker, topic)
    assert sorted(found) == [number for number in range(1, stopped.sent + 1) if number not in (3, 30)]


def test_a_key_goes_where_the_client_would_send_it(broker, topic, files):
    kafka = KafkaSettings(bootstrap=broker.bootstrap, topic=topic)
    ensure_topics(Settings(kafka=kafka, paths=PathSettings(files=files)))
    client = producing_client(kafka, 1_000_000)
    partition_of = partitioner(client, topic)
    keys = [f"u{number}".encode() for number in range(200)]
    sent = {key: client.send(topic, key=key, value=b"{}") for key in keys}
    chosen = {key: future.get(30).partition for key, future in sent.items()}
    close_producer(client)
    assert {key: partition_of(key) for key in keys} == chosen
    assert len(set(chosen.values())) > 1


def test_what_is_in_flight_is_bounded_in_bytes_too():
    in_flight = InFlight(10, 1000)
    in_flight.send(600)
    assert in_flight.wait_for_room(0)
    in_flight.send(600)
    assert not in_flight.wait_for_room(0)
    in_flight.settle(600, "delivered")
    assert in_flight.wait_for_room(0)
    assert (in_flight.counts.sent, in_flight.counts.waiting) == (2, 1)
    assert not in_flight.wait_until_empty(0)


def test_systemd_is_told(tmp_path, monkeypatch):
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(address)
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        notify("READY=1")
        assert listener.recv(100) == b"READY=1"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(f"\0music-test-{os.getpid()}")
        monkeypatch.setenv("NOTIFY_SOCKET", f"@music-test-{os.getpid()}")
        notify("STATUS=x")
        assert listener.recv(100) == b"STATUS=x"


def test_a_service_that_leaves_events_unsent_says_how_many(broker, topic, files, tmp_path):
    kafka = KafkaSettings(bootstrap=broker.bootstrap, topic=topic)
    ensure_topics(Settings(kafka=kafka, paths=PathSettings(files=files)))
    (tmp_path / "music.toml").write_text(
        f'[kafka]\nbootstrap = "{broker.bootstrap}"\ntopic = "{topic}"\n[paths]\nfiles = "{files}"\n'
        "[producer]\nlisteners = 50\nartists = 200\nflush_seconds = 1\n"
    )
    environment = os.environ | {
        "MUSIC_CONFIG": str(tmp_path / "music.toml"),
        "PYTHONPATH": str(files.parent / "app"),
    }
    with subprocess.Popen(
        [sys.executable, "-m", "music_streaming.demo.producer", "--rate", "500"],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    ) as service:
        try:
            wait_until("record in Kafka", lambda: broker.count(topic), seconds=120)
            broker.pause()
            time.sleep(1)  # what is sent meanwhile waits
            service.send_signal(signal.SIGTERM)
            _, log = service.communicate(timeout=60)
        finally:
            broker.resume()
            service.kill()
    assert service.returncode == UNSENT
    left = re.search(r"stopped: .*, (\d+) left unsent$", log.splitlines()[-1])
    assert left, log
    assert int(left[1]) > 0


def test_the_service_is_ready_without_a_broker_and_stops_when_told(tmp_path, files):
    address = str(tmp_path / "notify")
    (tmp_path / "music.toml").write_text(
        f'[kafka]\nbootstrap = "127.0.0.1:1"\n[paths]\nfiles = "{files}"\n'
        "[producer]\nlisteners = 50\nartists = 200\nflush_seconds = 1\n"
    )
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(address)
        listener.settimeout(30)
        environment = os.environ | {
            "NOTIFY_SOCKET": address,
            "MUSIC_CONFIG": str(tmp_path / "music.toml"),
            "PYTHONPATH": str(files.parent / "app"),
        }
        with subprocess.Popen(
            [sys.executable, "-m", "music_streaming.demo.producer"],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        ) as service:
            said = ""
            while "waiting for Kafka" not in said:
                said += listener.recv(1000).decode() + "\n"
            assert said.startswith("READY=1")
            service.send_signal(signal.SIGTERM)
            _, log = service.communicate(timeout=20)
    assert service.returncode == 0
    assert "stopped: 0 sent, 0 delivered, 0 failed, 0 too large, 0 left unsent" in log
