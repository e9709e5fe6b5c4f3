"""A flag that a signal sets, and a watchdog that notices when nothing moves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from music_streaming.watchdog import Every, StalledError, StopFlag, Watchdog


class Clock:
    """A clock to advance."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_watchdog_touches_its_file_until_nothing_moves(tmp_path: Path) -> None:
    clock, alive = Clock(), tmp_path / "alive"
    dog = Watchdog(180, alive, clock)
    clock.now += 179
    dog.look("a batch")
    assert alive.exists()
    dog.moved()
    clock.now += 179
    dog.look("a batch")
    clock.now += 2
    alive.unlink()
    with pytest.raises(StalledError, match="found a batch not done after 180 s"):
        dog.look("a batch")
    assert not alive.exists()


def test_every_is_due_once_a_period() -> None:
    clock = Clock()
    every = Every(10, first=3, clock=clock)
    seen = []
    for _ in range(30):
        clock.now += 1
        if every.due():
            seen.append(clock.now)
    assert seen == [103, 113, 123]


def test_a_wait_ends_soon_after_the_flag_is_set() -> None:
    flag = StopFlag()
    assert not flag.wait(0.01)
    flag.set()
    started = time.monotonic()
    assert flag.wait(60)
    assert time.monotonic() - started < 5


def test_a_storm_of_signals_ends_a_process_that_waits() -> None:
    # With a lock in the handler some of these runs would hang for ever.
    waiting = (
        "import signal\n"
        "from music_streaming.watchdog import StopFlag\n"
        "flag = StopFlag(); flag.on_signals(signal.SIGTERM, signal.SIGINT)\n"
        "print('ready', flush=True)\n"
        "while not flag.wait(0.001): pass\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", waiting],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
    )
    with process:
        assert process.stdout
        assert process.stdout.readline() == b"ready\n"
        for number in (signal.SIGINT, signal.SIGTERM):
            process.send_signal(number)
        assert process.wait(20) == 0
