"""load.py's account of the plays that Kafka has acknowledged: a file of entries of 24 bytes, in the order of the answers."""

from __future__ import annotations

import struct
import uuid
from collections.abc import Iterator

# The program's life (a random number), the play's number in it, Unix time of the answer in ms.
ENTRY = struct.Struct(">QQq")


def event_id(life: int, number: int) -> str:
    return str(uuid.UUID(int=life << 64 | number))


def entries(content: bytes) -> Iterator[tuple[str, int]]:
    """Event id and time in ms of each whole entry; one that is half written is left out."""
    whole = len(content) // ENTRY.size * ENTRY.size
    for life, number, ms in ENTRY.iter_unpack(content[:whole]):
        yield event_id(life, number), ms
