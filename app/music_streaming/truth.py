"""The truth about generated plays: the rows that the four metric tables must hold, added up apart from Spark
and SQL.

Kept as columns (33 bytes a play) and added up by sorting when it is written. The file is gzipped JSON lines:
a header, then the rows
of each table in the order of their keys.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from music_streaming.country import region_of
from music_streaming.event import AGE_GROUPS, SUBSCRIPTION_TYPES
from music_streaming.generate import VERSION, Arrivals, World
from music_streaming.generate_catalogue import GENRES
from music_streaming.generate_chance import Ints
from music_streaming.generate_listeners import COUNTRIES, DEVICES

COUNTS = ("streams", "completions", "skips", "likes", "listened_ms", "duration_ms")
# table: (window in minutes, what the rest of the key is, besides window_start and source)
TABLES: dict[str, tuple[int, tuple[str, ...]]] = {
    "user_engagement_metrics": (5, ("subscription_type", "age_group")),
    "geographic_metrics": (5, ("country", "region")),
    "device_usage_metrics": (5, ("device_type", "os")),
    "content_performance_metrics": (60, ("song_id", "title", "artist", "genre")),
}
_KEPT = 20  # differences shown


class _Kept(NamedTuple):
    start_ms: Ints
    song: np.ndarray
    listener: np.ndarray
    device: np.ndarray
    subscription: np.ndarray
    flags: np.ndarray
    listened_ms: np.ndarray


class Truth:
    """Keeps account of what a history of `world` sends; give it to `World.history(truth=...)`."""

    def __init__(self, world: World) -> None:
        self.accepted = self.duplicates = self.malformed = 0
        self._world = world
        self._kept: list[_Kept] = []

    def add(self, arrivals: Arrivals) -> None:
        """Take in records as they arrive; a copy counts nowhere, whichever of the two comes first."""
        copy, malformed = arrivals.copy == 1, arrivals.malformed == 1
        self.duplicates += int((copy & ~malformed).sum())
        self.malformed += int(malformed.sum())
        rows = arrivals.plays.take(~copy & ~malformed)
        self.accepted += len(rows.song)
        self._kept.append(
            _Kept(
                rows.start_ms,
                rows.song.astype(np.int32),
                rows.listener.astype(np.int32),
                rows.device.astype(np.int8),
                rows.subscription.astype(np.int8),
                (rows.completed + 2 * rows.skipped + 4 * rows.liked).astype(np.int8),
                rows.listened_ms.astype(np.int32),
            )
        )

    def rows(self, table: str) -> Iterator[dict[str, Any]]:
        """The rows that `table` must hold, by key, with exact distinct `listeners`."""
        minutes, names = TABLES[table]
        window_ms = minutes * 60_000
        kept = _Kept(*(np.concatenate(columns) for columns in zip(*self._kept, strict=True)))
        index, keys = self._keys(table, kept)
        code = kept.start_ms // window_ms * len(keys) + index
        order = np.argsort(code, kind="stable")
        code = code[order]
        firsts = np.flatnonzero(np.diff(code, prepend=-1))
        flags = kept.flags[order]
        sums = [
            np.add.reduceat(column.astype(np.int64), firsts).tolist()
            for column in (
                np.ones(len(code)),
                flags & 1,
                flags >> 1 & 1,
                flags >> 2 & 1,
                kept.listened_ms[order],
                self._world.catalogue.duration_ms[kept.song[order]],
            )
        ]
        group = np.repeat(np.arange(len(firsts)), np.diff(firsts, append=len(code)))
        people = len(self._world.listeners)
        once = np.unique(group * people + kept.listener[order]) // people
        listeners = np.bincount(once, minlength=len(firsts)).tolist()
        for value, *counts, heard_by in zip(code[firsts].tolist(), *sums, listeners, strict=True):
            window, key = divmod(value, len(keys))
            yield {
                "window_start": _time(window * window_ms),
                "source": "demo",
                **dict(zip(names, keys[key], strict=True)),
                **dict(zip(COUNTS, counts, strict=True)),
                "listeners": heard_by,
            }

    def _keys(self, table: str, kept: _Kept) -> tuple[Ints, Sequence[tuple[str, ...]]]:
        """For each play the index of its key, and the keys."""
        people, songs = self._world.listeners, self._world.catalogue
        match table:
            case "user_engagement_metrics":
                index = kept.subscription * len(AGE_GROUPS) + people.age_group[kept.listener]
                return index, [(plan, age) for plan in SUBSCRIPTION_TYPES for age in AGE_GROUPS]
            case "geographic_metrics":
                return people.country[kept.listener], [(code, region_of(code)) for code in COUNTRIES]
            case "device_usage_metrics":
                kinds = list(dict.fromkeys((kind, system) for kind, system, _ in DEVICES))
                which = np.array([kinds.index((kind, system)) for kind, system, _ in DEVICES])
                return which[kept.device], kinds
            case _:
                artists = (songs.artists[artist] for artist in songs.artist.tolist())
                genres = (list(GENRES)[genre] for genre in songs.genre.tolist())
                keys = list(zip(songs.song_ids, songs.titles, artists, genres, strict=True))
                return kept.song.astype(np.int64), keys

    def write(self, path: Path) -> None:
        """Write the truth file; the same truth gives the same bytes."""
        header = {
            "version": VERSION,
            "seed": self._world.seed,
            "listeners": len(self._world.listeners),
            "accepted": self.accepted,
            "duplicates": self.duplicates,
            "malformed": self.malformed,
        }
        with (
            path.open("wb") as raw,
            gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0, compresslevel=6) as file,
        ):
            file.write(_line(header))
            for table in TABLES:
                for row in self.rows(table) if self.accepted else ():
                    file.write(_line({"table": table, **row}))


def _line(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _time(moment_ms: int) -> str:
    return datetime.fromtimestamp(moment_ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def read_header(path: Path) -> dict[str, Any]:
    """What the truth file says of itself: version, seed, listeners, accepted, duplicates, malformed."""
    with gzip.open(path, "rb") as file:
        header: dict[str, Any] = json.loads(file.readline())
    return header


def read_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(table, row) for each row of the truth file. Raises EOFError for a file that was cut off."""
    with gzip.open(path, "rb") as file:
        file.readline()
        for line in file:
            row = json.loads(line)
            yield row.pop("table"), row


class Difference(NamedTuple):
    """One place where a table is not the truth; None for a row that only the other side has."""

    table: str
    key: tuple[str, ...]
    column: str
    wanted: Any
    got: Any


@dataclass
class Comparison:
    """Result of `compare`, by table; `listener_error` is the mean relative error of a row's listeners."""

    rows: dict[str, int] = field(default_factory=dict)
    differing: dict[str, int] = field(default_factory=dict)
    listener_error: dict[str, float] = field(default_factory=dict)
    differences: list[Difference] = field(default_factory=list)
    listener_tolerance: float = 0.03

    def note(self, *found: Difference) -> None:
        """Keep differences to show, the first few."""
        self.differences.extend(found[: max(0, _KEPT - len(self.differences))])

    @property
    def ok(self) -> bool:
        return not any(self.differing.values()) and all(
            error <= self.listener_tolerance for error in self.listener_error.values()
        )


def compare(
    path: Path, rows: Callable[[str], Iterable[Mapping[str, Any]]], listener_tolerance: float = 0.03
) -> Comparison:
    """Compare the truth file `path` with tables.

    `rows(table)` gives the table's rows: key columns (window_start as aware datetime or RFC 3339 text),
    the six counts, and listeners
    as a number. Only rows of source demo and of a window that the truth has are looked at: later live
    plays do not disturb. Counts
    must be equal; listeners may be off by `listener_tolerance` (a fraction), on average over a table's rows.
    """
    result = Comparison(listener_tolerance=listener_tolerance)
    wanted: dict[str, dict[tuple[str, ...], list[Any]]] = {table: {} for table in TABLES}
    for table, true_row in read_rows(path):
        wanted[table][_key(table, true_row)] = [true_row[column] for column in (*COUNTS, "listeners")]
    for table, truth in wanted.items():
        windows = {key[0] for key in truth}
        errors, differing, seen = 0.0, 0, 0
        result.rows[table] = len(truth)
        for row in rows(table):
            key = _key(table, row)
            if row["source"] != "demo" or key[0] not in windows:
                continue
            true = truth.pop(key, None)
            if true is None:
                differing += 1
                result.note(Difference(table, key, "streams", None, row["streams"]))
                continue
            wrong = [
                Difference(table, key, column, value, row[column])
                for column, value in zip(COUNTS, true, strict=False)
                if row[column] != value
            ]
            differing += bool(wrong)
            result.note(*wrong)
            seen += 1
            errors += abs(float(row["listeners"]) - true[-1]) / true[-1]
        for key, true in truth.items():
            differing += 1
            result.note(Difference(table, key, "streams", true[0], None))
        result.differing[table] = differing
        result.listener_error[table] = errors / seen if seen else 0.0
    return result


def _key(table: str, row: Mapping[str, Any]) -> tuple[str, ...]:
    start = row["window_start"]
    moment = start if isinstance(start, datetime) else datetime.fromisoformat(start)
    return (_time(round(moment.timestamp() * 1000)), *(row[name] for name in TABLES[table][1]))
