"""The Spark driver as a process of its own, for tests."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from music_streaming.testing import wait_for

LIMIT_SECONDS = 180


class Driver:
    """`python -m music_streaming.stream`, or another module, with its output in a file of `folder`."""

    def __init__(
        self,
        folder: Path,
        environment: dict[str, str],
        module: str = "music_streaming.stream",
        name: str = "driver",
    ) -> None:
        self.log = folder / f"{name}.log"
        self.environment = environment
        self._module = module
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; its output is added to `log`."""
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", self._module],
                env=os.environ | self.environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                # With its JVM: both are killed.
                start_new_session=True,
            )

    def send(self, number: signal.Signals) -> None:
        """Send a signal to it and its JVM; ProcessLookupError where both have ended."""
        assert self._process
        os.killpg(self._process.pid, number)

    def end(self, number: signal.Signals) -> int:
        """Send a signal and return the exit code."""
        assert self._process
        if number == signal.SIGKILL:
            os.killpg(self._process.pid, number)
        else:
            self._process.send_signal(number)
        return self.exit_code()

    def exit_code(self) -> int:
        """Wait for the end, its JVM's too, and return the exit code."""
        assert self._process
        code = self._process.wait(LIMIT_SECONDS)
        group, self._process = self._process.pid, None
        if not wait_for(lambda: _gone(group), bool, LIMIT_SECONDS):
            os.killpg(group, signal.SIGKILL)
            raise RuntimeError(f"{self._module} ended with {code}, its JVM did not in {LIMIT_SECONDS} s")
        return code

    def wait_until(self, what: Callable[[], Any], wanted: Any) -> None:
        """Wait until what() gives wanted; fails with what was seen and the log."""
        assert self._process
        seen = wait_for(
            what, lambda found: bool(found == wanted), LIMIT_SECONDS, ended=lambda: not self.alive
        )
        if seen != wanted:
            raise AssertionError(f"saw {seen}, wanted {wanted}\n{self.said[-6000:]}")

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process
        return self._process.pid

    @property
    def said(self) -> str:
        """What it has said so far."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def wait_for_log(self, text: str) -> None:
        """Wait until it has said `text`."""
        self.wait_until(lambda: text in self.said, True)

    def close(self) -> None:
        """Kill it, if it runs."""
        if self._process:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            group, self._process = self._process.pid, None
            wait_for(lambda: _gone(group), bool, LIMIT_SECONDS)


def _gone(group: int) -> bool:
    """Whether no process of the group is left; one that is killed takes a moment to go."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False
