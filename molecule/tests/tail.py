"""What a power cut takes from a broker: the records that it had acknowledged and not yet forced to its disk.

A killed broker loses nothing, for the host's page cache outlives it and a simulated board; so the tail is cut off by hand.
"""

from __future__ import annotations

import os
import re
import struct
from pathlib import Path

# Of a record batch: where its length and the newest of its times stand, how many bytes precede what length counts.
LENGTH, NEWEST, BEFORE = 8, 35, 12


def cut_tail(logs: Path, topic: str, milliseconds: int) -> set[str]:
    """Cut what was appended in the last `milliseconds` off all partitions of `topic`; the event ids in it.

    logs: a log directory of a broker that does not run. The records must be JSON, and not compressed.
    """
    segments = []
    for partition in logs.glob(f"{topic}-[0-9]*"):
        path = max(partition.glob("*.log"))
        content = path.read_bytes()
        at, batches = 0, []
        while (
            at + NEWEST + 8 <= len(content)
            and (length := struct.unpack_from(">i", content, at + LENGTH)[0]) > 0
        ):
            batches.append((at, struct.unpack_from(">q", content, at + NEWEST)[0]))
            at += BEFORE + length
        segments.append((path, content, batches))
    newest = max(appended for _, _, batches in segments for _, appended in batches)
    taken: set[str] = set()
    for path, content, batches in segments:
        cut = min((at for at, appended in batches if appended > newest - milliseconds), default=len(content))
        taken |= {found.decode() for found in re.findall(rb'"event_id": ?"([0-9a-f-]{36})"', content[cut:])}
        os.truncate(path, cut)
    return taken
