"""What ends a service: a flag that signals set, and a watchdog that notices when nothing moves."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path

import tenacity

from music_streaming.error import MusicError

# How soon a wait ends after the flag was set.
SLICE_SECONDS = 0.1


class StalledError(MusicError):
    """Nothing has moved for too long."""


class StopFlag:
    """Set by SIGTERM or SIGINT, and never cleared.

    Unlike threading.Event it takes no lock: a signal handler runs between any two steps of the main thread,
    which may hold that very lock.
    """

    def __init__(self) -> None:
        self._set = False

    def set(self) -> None:
        """Ask for the end."""
        self._set = True

    def is_set(self) -> bool:
        """Whether the end was asked for."""
        return self._set

    def wait(self, timeout: float) -> bool:
        """Sleep at most `timeout` seconds, less where the flag is set; returns whether it is."""
        until = time.monotonic() + timeout
        while not self._set and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, SLICE_SECONDS))
        return self._set

    def sleep(self, seconds: float) -> None:
        """As `wait`; for tenacity's sleep."""
        self.wait(seconds)

    def stops(self, _: tenacity.RetryCallState) -> bool:
        """Whether it is set; for tenacity's stop."""
        return self._set

    def on_signals(self, *numbers: signal.Signals) -> None:
        """Have these signals set the flag, and do nothing else."""
        for number in numbers:
            signal.signal(number, lambda _number, _frame: self.set())


class Watchdog:
    """Knows when work last moved, and tells the container's probe by the age of the file `alive`.

    seconds: how long nothing may move.
    """

    def __init__(self, seconds: float, alive: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self.seconds = seconds
        self._alive = alive
        self._clock = clock
        self._moved = clock()

    def moved(self) -> None:
        """Work has moved, or there is none."""
        self._moved = self._clock()

    def look(self, what: str) -> None:
        """Touch the file; raises StalledError where nothing has moved for too long.

        what: what is waited for.
        """
        if self._clock() - self._moved > self.seconds:
            raise StalledError.of(
                "Spark job",
                found=f"{what} not done after {self.seconds:g} s",
                wanted="batches that move on",
                remedy="none needed: the job starts again by itself; "
                "sudo systemctl status music-spark-worker music-postgres shows whether both work",
            )
        self._alive.touch()


class Every:
    """Whether something that is to happen every `seconds` is due; first: seconds until the first time."""

    def __init__(
        self, seconds: float, first: float | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._seconds = seconds
        self._clock = clock
        self._next = clock() + (seconds if first is None else first)

    def due(self) -> bool:
        """True once a period."""
        if self._clock() < self._next:
            return False
        self._next = self._clock() + self._seconds
        return True
