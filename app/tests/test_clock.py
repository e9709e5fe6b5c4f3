"""Broker, database, job and command by a clock that is wrong: libfaketime moves the one clock of all of them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from music_streaming.clock import kernel_synchronised
from music_streaming.event import format_time
from music_streaming.testing import FILES, wait_for
from music_streaming.testing.broker import Broker
from music_streaming.testing.driver import Driver
from music_streaming.testing.postgres import ROLES, Database, migrated_database, throw_away_cluster
from tail import cut_tail
from test_stream import accepted, make_topic, send

# libfaketime 0.9.10 refuses to sleep until a time that it does not fake.
SLEEP = """
import select, time
time.sleep = lambda seconds: select.select([], [], [], seconds) and None
"""
TOPIC = "stream_events"
TRUSTED = "MUSIC_STREAM__CLOCK_TRUSTED"


@dataclass
class FakedBoard:
    """The flow, all of whose processes have one clock: the real one shifted by what the file says."""

    shift: Path
    environment: dict[str, str]
    broker: Broker
    database: Database
    driver: Driver

    def set_clock(self, shift: str) -> None:
        """Have the clock `shift` beside the right one, as libfaketime writes it; processes at work see it jump."""
        self.shift.write_text(shift)
        wanted = self.shifted()
        seen = wait_for(self.off, lambda off: abs(off - wanted) < timedelta(seconds=5), 10)
        assert abs(seen - wanted) < timedelta(seconds=5)

    def shifted(self) -> timedelta:
        text = self.shift.read_text()
        return timedelta(**{{"h": "hours", "d": "days", "s": "seconds"}[text[-1]]: int(text[:-1])})

    def off(self) -> timedelta:
        """By how much the database's clock is off."""
        return self.database.value("SELECT clock_timestamp()") - datetime.now(UTC)

    def musicctl(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "music_streaming.cli", *arguments],
            env=os.environ | self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def failing(self) -> dict[str, str]:
        """The checks of `musicctl validate` that do not hold, with what they found."""
        sample = json.loads(self.musicctl("validate", "--json").stdout)
        return {check["name"]: check["found"] for check in sample["checks"] if not check["ok"]}

    def restart(self, *, trusted: bool) -> None:
        """End the job and begin anew; trusted: as by a clock that a time server keeps right."""
        if self.driver.alive:
            assert self.driver.end(signal.SIGTERM) == 0
        self.environment[TRUSTED] = self.driver.environment[TRUSTED] = str(trusted).lower()
        self.driver.start()

    def send(self, values: list[bytes]) -> None:
        send(self.broker, TOPIC, [*values])


def plays(start: int, count: int, moment: datetime, source: str = "scrobble") -> list[bytes]:
    """Plays dated a second apart, the newest at `moment`."""
    return [
        json.dumps(
            {
                "event_id": str(uuid.UUID(int=start + number)),
                "event_time": format_time(moment - timedelta(seconds=number)),
                "source": source,
                "user_id": "listener",
                "title": f"Song {number}",
                "artist": "Artist",
            }
        ).encode()
        for number in range(count)
    ]


@pytest.fixture
def board(
    tmp_path: Path, shift: Path, faked: dict[str, str], spark_kafka_jars: list[Path]
) -> Iterator[FakedBoard]:
    """A board whose clock is right as yet, and not known to be; its job has not started."""
    broker = Broker(tmp_path, faked)
    (tmp_path / "sitecustomize.py").write_text(SLEEP)
    for role in ROLES:
        (tmp_path / f"postgres_{role}").write_text(role)
    with contextlib.ExitStack() as left:
        left.callback(broker.kill)
        broker.start()
        postgres = left.enter_context(throw_away_cluster(environment=faked))
        database = left.enter_context(migrated_database(postgres))
        settings = {
            "MUSIC_KAFKA__BOOTSTRAP": broker.bootstrap,
            "MUSIC_POSTGRES__PORT": str(postgres.port),
            "MUSIC_POSTGRES__DATABASE": database.name,
            "MUSIC_POSTGRES__SECRETS_DIR": str(tmp_path),
            "MUSIC_SPARK__MASTER": "local[1]",
            "MUSIC_SPARK__TRIGGER_SECONDS": "0.2",
            "MUSIC_SPARK__SCRATCH_DIR": str(tmp_path / "scratch"),
            "MUSIC_PATHS__FILES": str(FILES),
            "PYTHONPATH": f"{tmp_path}:{FILES.parent / 'app'}",
            "PYSPARK_SUBMIT_ARGS": f"--jars {','.join(map(str, spark_kafka_jars))} pyspark-shell",
            TRUSTED: "false",
        }
        environment = faked | settings
        driver = Driver(tmp_path, environment)
        left.callback(driver.close)
        make_topic(broker, TOPIC, 1)
        # A broker that has been at work by the right clock; it gives producers their numbers from a block.
        make_topic(broker, "before", 1)
        send(broker, "before", [b"{}"])
        yield FakedBoard(shift, environment, broker, database, driver)


def counts(database: Database) -> dict[str, int]:
    return dict(database.rows("SELECT reason, rejected FROM ingest_reject_totals"))


@pytest.mark.slow
def test_plays_with_the_right_time_are_held_by_a_clock_that_is_behind_and_count_once(
    board: FakedBoard,
) -> None:
    board.set_clock("-3h")
    board.driver.start()
    now = datetime.now(UTC)
    held, known = plays(0, 30, now), plays(100, 20, now - timedelta(hours=3), "demo")
    board.send([*held, *known, b"{"])
    board.driver.wait_until(lambda: sum(counts(board.database).values()), 31)
    assert counts(board.database) == {"in_future": 30, "not_json": 1}
    assert board.failing() == {}
    # The sender tries again, as it was told that all is well.
    board.send(held[:5])
    board.driver.wait_until(lambda: counts(board.database)["in_future"], 35)
    board.set_clock("+0s")
    board.restart(trusted=True)
    board.driver.wait_until(lambda: accepted(board.database), 50)
    assert counts(board.database) == {"in_future": 0, "not_json": 1}
    board.send(held)
    duplicates = "SELECT duplicates FROM ingest_state"
    board.driver.wait_until(lambda: board.database.value(duplicates), 35)
    assert accepted(board.database) == 50
    assert "30 plays that had been ahead of the clock are accepted, 5 were there already" in board.driver.said
    assert board.failing() == {}


@pytest.mark.slow
def test_what_a_power_cut_took_is_noticed_by_a_clock_that_is_behind(board: FakedBoard) -> None:
    board.driver.start()
    board.send(plays(0, 200, datetime.now(UTC)))
    board.driver.wait_until(lambda: accepted(board.database), 200)
    newest = "SELECT newest_kafka_time FROM ingest_offsets"
    kept = board.database.value(newest)
    board.send(plays(200, 100, datetime.now(UTC)))
    board.driver.wait_until(lambda: accepted(board.database), 300)
    lost = board.database.value(newest) - kept
    board.driver.end(signal.SIGKILL)
    board.broker.kill()
    assert len(cut_tail(board.broker.data, TOPIC, round(lost / timedelta(milliseconds=1)))) == 100
    # The power is back, the time not yet; others get the offsets of what was lost, before the job looks.
    board.set_clock("-3h")
    board.broker.start()
    board.send(plays(1000, 250, datetime.now(UTC) - timedelta(hours=3)))
    board.driver.start()
    board.driver.wait_until(lambda: accepted(board.database), 550)
    gaps = board.database.rows("SELECT partition, from_offset, to_offset, cause FROM ingest_gaps")
    assert gaps == [(0, 300, None, "shortened")]
    # By this clock, what was stored before is ahead.
    assert [*board.failing()] == ["no play is dated further ahead than the tolerance"]
    board.set_clock("+0s")
    assert board.failing() == {}


@pytest.mark.slow
def test_what_a_clock_left_that_was_ahead_once_is_drawn_back_and_removed(board: FakedBoard) -> None:
    board.driver.start()
    now, month = datetime.now(UTC), timedelta(days=30)
    board.send([*plays(0, 20, now), *plays(100, 10, now - timedelta(days=10), "demo")])
    board.driver.wait_until(lambda: accepted(board.database), 30)
    board.set_clock("+30d")
    board.send([*plays(200, 10, now + month, "demo"), *plays(300, 5, now + month)])
    board.driver.wait_until(lambda: accepted(board.database), 45)
    board.send(plays(400, 1, now))
    board.driver.wait_until(lambda: accepted(board.database), 46)
    board.set_clock("+0s")
    assert "no play is dated further ahead than the tolerance" in board.failing()
    # What comes while the job is down is read all the same, though it is older than what was read before.
    assert board.driver.end(signal.SIGTERM) == 0
    board.send(plays(500, 10, datetime.now(UTC)))
    board.restart(trusted=True)
    board.driver.wait_for_log("the clock was ahead; drawn back: the watermark of stream_events")
    board.driver.wait_until(lambda: accepted(board.database), 56)
    late = board.database.value("SELECT sum(late) FROM ingest_totals")
    board.send(plays(600, 10, datetime.now(UTC)))
    board.driver.wait_until(lambda: accepted(board.database), 66)
    assert board.database.value("SELECT sum(late) FROM ingest_totals") == late
    listed = json.loads(board.musicctl("clock", "--json").stdout)
    assert [(one["source"], one["plays"]) for one in listed["plays"]] == [("demo", 10), ("scrobble", 5)]
    assert "removed 15 plays" in board.musicctl("clock", "--remove").stdout
    assert board.failing() == {}
    assert accepted(board.database) == 51
    assert board.database.value("SELECT count(*) FROM ingest_gaps") == 0


LOOK_AFTER = """
from music_streaming.housekeeping import look_after
from music_streaming.settings import Role, Settings
from music_streaming.table import Rules
from music_streaming.watchdog import Every
settings = Settings.load()
with settings.postgres.connection(Role.WRITER) as connection:
    print(look_after(connection, settings.kafka.topic, Rules(), settings.stream, Every(0)))
"""


def look_after(board: FakedBoard, *, trusted: bool) -> str:
    """Housekeeping of the job, in a process of its own."""
    done: Any = subprocess.run(
        [sys.executable, "-c", LOOK_AFTER],
        env=os.environ | board.environment | {TRUSTED: str(trusted).lower()},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return str(done.stdout).strip()


@pytest.mark.slow
@pytest.mark.skipif(kernel_synchronised(), reason="a time server keeps this machine's clock right")
def test_nothing_is_deleted_for_its_age_by_a_clock_that_nobody_keeps_right(board: FakedBoard) -> None:
    board.driver.start()
    board.send(plays(0, 10, datetime.now(UTC) - timedelta(days=1), "demo"))
    board.driver.wait_until(lambda: accepted(board.database), 10)
    present = "SELECT (SELECT count(*) FROM stream_events), (SELECT count(*) FROM ingest_batches)"
    before = board.database.rows(present)
    board.set_clock("+30d")
    assert look_after(board, trusted=False) == "False"
    assert board.database.rows(present) == before
    # That it would have been.
    assert look_after(board, trusted=True) == "True"
    assert board.database.rows(present) == [(0, 0)]
    assert board.failing() == {}
