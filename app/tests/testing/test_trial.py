"""`make try` from its beginning to its end, and what is left of it: nothing."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from music_streaming.testing import FILES
from music_streaming.testing.trial import services

LIMIT_SECONDS = 400


class Trial:
    """The program, with its temporary files in a folder by which its processes are known."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder.with_suffix(".log")
        self.program: subprocess.Popen[bytes] | None = None

    def start(self, *options: str) -> subprocess.Popen[bytes]:
        environment = os.environ | {"PYTHONPATH": str(FILES.parent / "app"), "TMPDIR": str(self.folder)}
        with self.log.open("wb") as output:
            self.program = subprocess.Popen(
                [sys.executable, "-m", "music_streaming.testing.trial", *options],
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return self.program

    @property
    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def processes(self) -> dict[str, str]:
        """Number and command of all that were started with this folder."""
        found = {}
        for process in Path("/proc").glob("[0-9]*"):
            try:
                command = (process / "cmdline").read_bytes()
                known = command + (process / "environ").read_bytes()
            except OSError:
                continue
            if str(self.folder).encode() in known:
                found[process.name] = command.replace(b"\0", b" ").decode(errors="replace")[:120]
        return found

    def assert_nothing_is_left(self) -> None:
        assert not self.processes()
        assert not list(self.folder.iterdir())


@pytest.fixture
def trial() -> Iterator[Trial]:
    # Not pytest's folder, which is closed to the database's user.
    folder = Path(tempfile.mkdtemp(prefix="try-"))
    folder.chmod(0o755)
    made = Trial(folder)
    yield made
    for number in made.processes():
        os.kill(int(number), signal.SIGKILL)
    if made.program:
        made.program.wait(30)
    shutil.rmtree(folder, ignore_errors=True)
    made.log.unlink(missing_ok=True)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_it_plays_validates_and_leaves_nothing_behind(trial: Trial) -> None:
    program = trial.start("--seconds", "20")
    assert program.wait(LIMIT_SECONDS) == 0, trial.said
    assert "; exact" in trial.said
    assert "1 of 1 samples ok" in trial.said
    assert "Everything is gone again" in trial.said
    trial.assert_nothing_is_left()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ctrl_c_in_the_middle_validates_and_leaves_nothing_behind(trial: Trial) -> None:
    program = trial.start()
    deadline = time.monotonic() + LIMIT_SECONDS
    while not re.search(r"\b[1-9][0-9,]* accepted", trial.said):
        assert program.poll() is None, trial.said
        assert time.monotonic() < deadline, trial.said
        time.sleep(0.5)
    assert len(trial.processes()) > 3
    program.send_signal(signal.SIGINT)
    assert program.wait(LIMIT_SECONDS) == 0, trial.said
    assert "1 of 1 samples ok" in trial.said
    trial.assert_nothing_is_left()


@pytest.mark.parametrize(
    ("java", "postgres", "found"),
    [
        (None, None, "found no Java and no PostgreSQL with the extension hll"),
        ("/usr/bin/java", None, "found no PostgreSQL with the extension hll"),
    ],
)
def test_what_is_missing_is_named_before_anything_is_made(
    monkeypatch: pytest.MonkeyPatch, java: str | None, postgres: Path | None, found: str
) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: java)
    monkeypatch.setattr(services, "newest_postgres", lambda: postgres)
    with pytest.raises(services.TrialError, match=found):
        services.refuse_machine()
