"""The Spark driver as a process of its own, for tests."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

LIMIT_SECONDS = 90


class Driver:
    """`python -m music_streaming.stream` with its output in a file."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.log = folder / "driver.log"
        self.environment = environment
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; its output is added to `log`."""
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "music_streaming.stream"],
                env=os.environ | self.environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                # With its JVM: both are killed.
                start_new_session=True,
            )

    def end(self, number: signal.Signals) -> int:
        """Send a signal and return the exit code."""
        assert self._process
        if number == signal.SIGKILL:
            os.killpg(self._process.pid, number)
        else:
            self._process.send_signal(number)
        return self.exit_code()

    def exit_code(self) -> int:
        """Wait for the end and return the exit code."""
        assert self._process
        code = self._process.wait(LIMIT_SECONDS)
        self._process = None
        return code

    def wait_until(self, what: Callable[[], Any], wanted: Any) -> None:
        """Wait until what() gives wanted; fails with what was seen and the log."""
        assert self._process
        deadline = time.monotonic() + LIMIT_SECONDS
        while (seen := what()) != wanted:
            if time.monotonic() > deadline or self._process.poll() is not None:
                said = self.log.read_text(errors="replace")[-6000:]
                raise AssertionError(f"saw {seen}, wanted {wanted}\n{said}")
            time.sleep(0.1)

    def close(self) -> None:
        """Kill it, if it runs."""
        if self._process:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
