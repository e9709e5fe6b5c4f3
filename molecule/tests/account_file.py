"""The accounts of the plays that were acknowledged: files of entries of 24 bytes, in the order of the answers.

load.py writes `acknowledged`, whom Kafka answers, and scrobbling.py `scrobbled`, whom the scrobble server answers.
"""

from __future__ import annotations

import struct
import uuid
from collections.abc import Iterator
from pathlib import Path

FILES = ("acknowledged", "scrobbled")
# The halves of the event id, Unix time of the answer in ms. Of load.py they are a random number for its life and the play's number.
ENTRY = struct.Struct(">QQq")


def event_id(life: int, number: int) -> str:
    return str(uuid.UUID(int=life << 64 | number))


def acknowledged(folder: Path, positions: dict[str, int]) -> tuple[list[tuple[str, int]], dict[str, int]]:
    """The entries of all accounts in `folder` behind the positions, and the positions behind them."""
    found, reached = [], {}
    for name in FILES:
        path = folder / name
        content = path.read_bytes()[positions.get(name, 0) :] if path.exists() else b""
        found += entries(content)
        reached[name] = positions.get(name, 0) + len(content) // ENTRY.size * ENTRY.size
    return found, reached


def entries(content: bytes) -> Iterator[tuple[str, int]]:
    """Event id and time in ms of each whole entry; one that is half written is left out."""
    whole = len(content) // ENTRY.size * ENTRY.size
    for life, number, ms in ENTRY.iter_unpack(content[:whole]):
        yield event_id(life, number), ms
