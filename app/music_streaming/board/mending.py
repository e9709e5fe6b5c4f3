"""What `musicctl doctor --fix` does: each loses nothing, and may be done twice."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

from music_streaming.board.machine import Board
from music_streaming.board.status import size
from music_streaming.board.systemd import NotAllowedError
from music_streaming.error import MusicError
from music_streaming.topic import ensure_topics

SECONDS = 60
# What the journal may keep where the disk is full.
JOURNAL_KEPT = "100M"
# Old by now, and fetched again when wanted.
PACKAGES = ("var/cache/apt/archives/*.deb", "var/cache/apt/archives/partial/*", "var/cache/apt/*.bin")


def mend(of: Board, kind: str, unit: str) -> list[str]:
    """Do what is safe about a breakage; what was done, a sentence each. NotAllowedError unless root."""
    if kind not in MENDINGS:
        return []
    if os.geteuid() != 0:
        raise NotAllowedError("found another user, wanted root")
    return MENDINGS[kind](of, unit)


def _start(of: Board, unit: str) -> list[str]:
    of.systemd.start(unit)
    return [f"started {unit}"]


def _start_again(of: Board, unit: str) -> list[str]:
    of.systemd.start(unit, again=True)
    return [f"restarted {unit}"]


def _wait(of: Board, unit: str) -> list[str]:
    return [f"waited for {unit}"]


def _enable(of: Board, unit: str) -> list[str]:
    of.systemd.enable(unit)
    return [f"enabled {unit}"]


def _topic(of: Board, unit: str) -> list[str]:
    return ensure_topics(of.settings)


def _free(of: Board, unit: str) -> list[str]:
    """Bytes that nothing needs; none at all is an empty list."""
    freed = sum(map(_remove, (path for pattern in PACKAGES for path in of.root.glob(pattern))))
    before = _free_bytes(of)
    _run("journalctl", "--rotate", f"--vacuum-size={JOURNAL_KEPT}")
    freed += max(0, _free_bytes(of) - before)
    return [f"freed {size(freed)}"] if freed else []


def _remove(path: Path) -> int:
    if not path.is_file():
        return 0
    taken = path.stat().st_blocks * 512
    path.unlink()
    return taken


def _free_bytes(of: Board) -> int:
    state = os.statvfs(of.root)
    return state.f_bavail * state.f_frsize


def _reload_firewall(of: Board, unit: str) -> list[str]:
    _run("ufw", "reload")
    return ["loaded the firewall's rules"]


def _run(*command: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MusicError(f"{command[0]}: {error}") from error
    if done.returncode:
        raise MusicError(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")


MENDINGS: dict[str, Callable[[Board, str], list[str]]] = {
    "disk-full": _free,
    "unit-stopped": _start,
    "unit-failed": _start_again,
    "unit-restarts": _wait,
    "unit-disabled": _enable,
    "topic-missing": _topic,
    "rejects-held": _start_again,
    "firewall-not-loaded": _reload_firewall,
}
