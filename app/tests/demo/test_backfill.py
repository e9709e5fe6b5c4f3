"""A history through a real broker and the real job into a real PostgreSQL, and the metrics expected of it."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import chain, islice
from pathlib import Path

import pytest

from music_streaming.board.commands.validate import compare_with_expected
from music_streaming.board.validate import validate
from music_streaming.broker import close_producer, producer
from music_streaming.demo.arrivals import BadData
from music_streaming.demo.backfill import (
    Plan,
    _horizon_ms,
    _most_behind,
    backfill,
    expected_file,
    plan_file,
)
from music_streaming.demo.expected import read_header
from music_streaming.demo.live import live
from music_streaming.demo.world import World
from music_streaming.lag import Lag, LagError, Progress
from music_streaming.settings import KafkaSettings, Settings
from music_streaming.testing import wait_for
from music_streaming.testing.broker import Broker
from music_streaming.testing.driver import LIMIT_SECONDS, Driver
from music_streaming.testing.postgres import Database
from music_streaming.topic import ensure_topics, wanted_topics

LISTENERS, ARTISTS, DAYS = 60, 200, 2
NOW = datetime(2026, 11, 25, 23, 20, tzinfo=UTC)


@pytest.fixture
def board(settings: Settings, broker: Broker, topic: str) -> Settings:
    """A board whose job (fixture driver) reads a topic of its own."""
    kafka = KafkaSettings(bootstrap=broker.bootstrap, topic=topic)
    made = settings.model_copy(update={"kafka": kafka}).with_changes(
        producer={"listeners": LISTENERS, "artists": ARTISTS, "history_days": DAYS}
    )
    ensure_topics(made)
    return made


@pytest.fixture
def begun(board: Settings, driver: Driver, files: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`musicctl demo backfill` on the board, at work; killed at the end if it still is."""
    changes = {
        "MUSIC_PRODUCER__LISTENERS": str(LISTENERS),
        "MUSIC_PRODUCER__ARTISTS": str(ARTISTS),
        "MUSIC_PRODUCER__HISTORY_DAYS": str(DAYS),
        "MUSIC_PATHS__FILES": str(files),
        "MUSIC_PATHS__DATA": str(board.paths.data),
    }
    command = [sys.executable, "-m", "music_streaming.cli", "demo", "backfill"]
    with subprocess.Popen(command, env=os.environ | driver.environment | changes) as process:
        yield process
        process.kill()


def wait_until(what, seen=lambda: "") -> None:
    assert wait_for(what, bool, LIMIT_SECONDS), f"not within {LIMIT_SECONDS} s {seen()}"


def failing(sample) -> list[str]:
    return [f"{check.name}: {check.found}" for check in sample.checks if not check.ok]


@pytest.mark.slow
def test_a_history_is_whole_and_single_however_often_it_is_begun(
    board: Settings, broker: Broker, database: Database, driver: Driver, begun: subprocess.Popen[bytes]
) -> None:
    # No job yet: it sends, waits, and is killed before it can end.
    wait_until(lambda: broker.count(board.kafka.topic) > 500, lambda: f"exit code {begun.poll()}")
    begun.kill()
    assert begun.wait() == -signal.SIGKILL
    assert plan_file(board).exists()
    assert not expected_file(board).exists()

    driver.start()
    seen: list[Progress] = []
    # A run that was cut off may still be under way when the next one begins.
    with ThreadPoolExecutor() as pool:
        (change,) = chain.from_iterable(pool.map(lambda _: backfill(board, seen.append), range(2)))
    header = read_header(expected_file(board))
    assert f"{header['accepted']:,} plays" in change
    assert header["accepted"] > 1_000
    assert seen[-1].stored == seen[-1].sent == seen[-1].expected
    (total,) = database.rows("SELECT accepted, duplicates, late FROM ingest_totals WHERE source = 'demo'")
    assert total[0] == header["accepted"]
    assert total[1] > header["duplicates"] + 500
    # Phones that were offline, and one batch of the client where partitions drift apart; not all that lies
    # before the newest play.
    assert 0 < total[2] < header["accepted"] / 4
    assert backfill(board) == []
    assert failing(compare_with_expected(board, expected_file(board))) == []

    # Live plays: at the present, and late ones in the history's windows.
    Lag(board, ends=_send_live(board, count=600)).wait_until_stored()
    end = datetime.fromisoformat(header["hours"][1]) + timedelta(hours=1)
    among = "event_time < %s AND substr(event_id::text, 15, 1) = '4'"
    assert database.value(f"SELECT count(*) FROM stream_events WHERE {among}", (end,)) > 20
    assert failing(compare_with_expected(board, expected_file(board))) == []
    assert failing(validate(board)) == []

    with contextlib.closing(database.connect("music_owner")) as connection, connection:
        connection.cursor().execute("UPDATE device_usage_metrics SET skips = skips + 1")
    assert all(
        "device_usage_metrics" in name for name in failing(compare_with_expected(board, expected_file(board)))
    )
    assert failing(compare_with_expected(board, expected_file(board)))


def _send_live(board: Settings, count: int) -> dict[int, int]:
    """Send live plays, every third late; partition -> offset behind the last."""
    world = World(seed=42, listeners=LISTENERS, artists=ARTISTS)
    stream = live(world, int(time.time() * 1000), rate=100, bad_data=BadData(0.3, 0, 0, 0), report="start")
    client = producer(board.kafka, 1_000_000)
    sent = [
        client.send(board.kafka.topic, key=record.key, value=record.value) for record in islice(stream, count)
    ]
    ends: dict[int, int] = {}
    for future in sent:
        placed = future.get(LIMIT_SECONDS)
        ends[placed.partition] = placed.offset + 1
    close_producer(client)
    return ends


def test_the_plan_ends_with_the_last_whole_hour_and_brings_nothing_that_expires(settings: Settings) -> None:
    hour_ms = 3_600_000
    plan = Plan.of(settings, NOW)
    assert plan.end_ms == int(NOW.replace(minute=0).timestamp() * 1000)
    assert plan.end_ms - plan.start_ms == 14 * 24 * hour_ms
    assert plan.start_ms >= _horizon_ms(settings, NOW - timedelta(hours=1))
    shorter = settings.with_changes(stream={"demo_retention_days": 3})
    plan = Plan.of(shorter, NOW)
    assert plan.end_ms - plan.start_ms == 3 * 24 * hour_ms


def test_what_may_have_expired_is_not_sent_again(settings: Settings) -> None:
    """Midnight comes within the hour: the first day of the plan is left out."""
    assert _horizon_ms(settings, NOW) == int(datetime(2026, 11, 12, tzinfo=UTC).timestamp() * 1000)
    world = World(listeners=30, artists=200)
    plan = Plan.of(settings, NOW)
    since_ms = plan.end_ms - 24 * 3_600_000
    values = [
        json.loads(value)["event_time"]
        for block in world.history(plan.start_ms, plan.end_ms, since_ms=since_ms)
        for value in block.values
        if value.startswith(b'{"event_id"') and value.endswith(b"}") and b"yesterday" not in value
    ]
    assert len(values) > 100
    assert min(values) >= "2026-11-24T23"


def test_a_plan_is_kept_whole_and_only_this_version_can_use_it(settings: Settings, tmp_path: Path) -> None:
    plan = Plan.of(settings, NOW)
    plan.write(tmp_path / "plan.json")
    assert Plan.read(tmp_path / "plan.json") == plan
    replace(plan, version=plan.version + 1).write(tmp_path / "plan.json")
    assert Plan.read(tmp_path / "plan.json") is None
    (tmp_path / "plan.json").write_text('{"version": 2')
    assert Plan.read(tmp_path / "plan.json") is None
    assert Plan.read(tmp_path / "none.json") is None


def test_a_job_that_stands_still_is_named(settings: Settings, database: Database) -> None:
    """The sender waits while the job is too far behind, and not for ever."""
    seen = []
    hurried = settings.with_changes(spark={"stall_seconds": 0.6})
    lag = Lag(hurried, seen.append, ends={0: 70, 1: 50}, sent=120)
    lag.wait_for_room(200)
    with contextlib.closing(database.connect()) as connection, connection:
        connection.cursor().execute(
            "INSERT INTO ingest_offsets (topic, partition, topic_id, next_offset) "
            "VALUES ('stream_events', 0, 'id', 70), ('other', 1, 'id', 50)"
        )
    lag = Lag(hurried, seen.append, ends={0: 70, 1: 50}, sent=120)
    with pytest.raises(LagError, match="found 50 records that the job has not stored"):
        lag.wait_for_room(49)
    assert [item.stored for item in seen[:2]] == [0, 70]


def test_no_further_ahead_of_the_job_than_kafka_keeps(settings: Settings, files: Path) -> None:
    end_ms = Plan.of(settings, NOW).end_ms
    (block,) = World(listeners=2_000).history(end_ms - 3_600_000, end_ms)
    size = sum(map(len, block.values)) / len(block)
    few = settings.spark.max_offsets_per_trigger * 9 // 10
    topic = wanted_topics(settings.kafka, files)[0]
    assert _most_behind(settings, topic, block) == few
    small = wanted_topics(settings.kafka.model_copy(update={"retention_bytes": 10_000_000}), files)[0]
    assert _most_behind(settings, small, block) == pytest.approx(10_000_000 / size, rel=0.01)
    endless = wanted_topics(settings.kafka.model_copy(update={"retention_bytes": -1}), files)[0]
    assert _most_behind(settings, endless, block) == few
