"""The plays of an import between reading and sending: on disk, in the order of time, each once.

Sorted, so that a play is decided on together with all others of its time, and the windows of the metrics fill
one after the other; on disk, so that memory stays flat.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

GAP_MS = 240_000
"""Further apart than any span: plays on both sides have nothing to do with each other."""


class Spooled(NamedTuple):
    """A play ready to be sent. span_ms: how far the same play may be away. shown: for the report."""

    event_id: bytes
    started_ms: int
    song_id: str
    span_ms: int
    value: bytes
    shown: str


class Spool:
    """A database of its own, in a file that has no name once it is open."""

    def __init__(self, path: Path) -> None:
        self._database = sqlite3.connect(path, isolation_level=None)
        for setting in ("journal_mode = OFF", "synchronous = OFF", "cache_size = -16000"):
            self._database.execute(f"PRAGMA {setting}")
        self._database.execute(
            "CREATE TABLE plays (event_id BLOB PRIMARY KEY, origin INTEGER, started_ms INTEGER, "
            "song_id TEXT, span_ms INTEGER, value BLOB, shown TEXT, taken INTEGER) WITHOUT ROWID"
        )
        self._database.execute("BEGIN")
        path.unlink()

    def add(self, origin: int, play: Spooled) -> int | None:
        """Keep a play of the export number `origin`; the number of the one that has it already, else None."""
        row = (play.event_id, origin, *play[1:])
        added = self._database.execute("INSERT OR IGNORE INTO plays VALUES (?, ?, ?, ?, ?, ?, ?, 0)", row)
        if added.rowcount:
            return None
        found = self._database.execute("SELECT origin FROM plays WHERE event_id = ?", (play.event_id,))
        return int(found.fetchone()[0])

    def count(self) -> int:
        """How many there are."""
        return int(self._database.execute("SELECT count(*) FROM plays").fetchone()[0])

    def sort(self) -> None:
        """To be called when all are there."""
        self._database.execute("CREATE INDEX by_time ON plays (origin, started_ms)")

    def chunks(self, origin: int, size: int, most: int) -> Iterator[list[Spooled]]:
        """Plays of an export by time, in lists of `size` or more that end at a gap, or of `most`."""
        chunk: list[Spooled] = []
        rows = self._database.execute(
            "SELECT event_id, started_ms, song_id, span_ms, value, shown FROM plays WHERE origin = ? "
            "ORDER BY started_ms, event_id",
            (origin,),
        )
        for row in rows:
            play = Spooled(*row)
            full = len(chunk) >= size and play.started_ms - chunk[-1].started_ms > GAP_MS
            if full or len(chunk) >= most:
                yield chunk
                chunk = []
            chunk.append(play)
        if chunk:
            yield chunk

    def take(self, plays: Iterable[Spooled]) -> None:
        """Note that these are sent."""
        ids = ((play.event_id,) for play in plays)
        self._database.executemany("UPDATE plays SET taken = 1 WHERE event_id = ?", ids)

    def taken(self, before: int, since_ms: int, until_ms: int) -> Iterator[tuple[bytes, str, int]]:
        """Id, song and start of the plays within a time that were sent of the exports with a lower number."""
        for origin in range(before):
            yield from self._database.execute(
                "SELECT event_id, song_id, started_ms FROM plays "
                "WHERE origin = ? AND started_ms BETWEEN ? AND ? AND taken",
                (origin, since_ms, until_ms),
            )

    def close(self) -> None:
        """Let it go."""
        self._database.close()
