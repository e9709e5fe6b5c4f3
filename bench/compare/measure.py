"""What a process and all its descendants use, from /proc: CPU seconds, memory, bytes written."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_PROC = Path("/proc")


@dataclass(frozen=True)
class Use:
    """cpu: user and system seconds, of ended descendants too. pss: MB of memory, shared pages in part.
    written: MB that went towards the disk (pages made dirty, less those that were given up again)."""

    cpu: float = 0
    pss: float = 0
    written: float = 0

    def __add__(self, other: Use) -> Use:
        """What both use together."""
        return Use(self.cpu + other.cpu, self.pss + other.pss, self.written + other.written)


def descendants(root: int) -> list[int]:
    """The process and whatever descends from it."""
    children: dict[int, list[int]] = {}
    for pid, fields in _stats():
        children.setdefault(int(fields[1]), []).append(pid)
    found = [root]
    for pid in found:
        found += children.get(pid, [])
    return found


def _stats() -> Iterator[tuple[int, list[str]]]:
    for folder in _PROC.glob("[0-9]*"):
        if fields := stat(int(folder.name)):
            yield int(folder.name), fields


def stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from `state` on; empty where it has ended."""
    try:
        text = (_PROC / str(pid) / "stat").read_text()
    except OSError:
        return []
    return text[text.rindex(")") + 2 :].split()


def use(root: int, *, memory: bool = True) -> Use:
    """What the process and its descendants use now, and have used."""
    return sum((alone(pid, memory=memory) for pid in descendants(root)), Use())


def alone(pid: int, *, memory: bool = True) -> Use:
    """What the process uses, and has used with those descendants that it has seen end."""
    fields = stat(pid)
    if not fields:
        return Use()
    written = _number(pid, "io", "write_bytes") - _number(pid, "io", "cancelled_write_bytes")
    pss = _number(pid, "smaps_rollup", "Pss") * 1024 if memory else 0
    return Use(sum(map(int, fields[11:15])) / _TICKS, pss / 1e6, written / 1e6)


def command(pid: int) -> str:
    """The command line of a process; empty where it has ended."""
    try:
        return (_PROC / str(pid) / "cmdline").read_text().replace("\0", " ").strip()
    except OSError:
        return ""


def _number(pid: int, file: str, name: str) -> int:
    try:
        lines = (_PROC / str(pid) / file).read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{name}:")), 0)


def busy() -> float:
    """CPU seconds that all of the machine has used since it started."""
    fields = list(map(int, (_PROC / "stat").read_text().splitlines()[0].split()[1:]))
    return (fields[0] + fields[1] + fields[2] + fields[5] + fields[6]) / _TICKS
