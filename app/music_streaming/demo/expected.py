"""The metrics expected of generated plays: the rows that the four metric tables must hold, added up without
Spark or SQL.

Kept as columns (33 bytes a play) and added up by sorting when it is written. The file is gzipped JSON lines:
a header, then the rows of each table in the order of their keys.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from itertools import groupby, islice
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pydantic_core

from music_streaming.country import region_of
from music_streaming.demo.arrivals import Arrivals
from music_streaming.demo.catalogue import GENRES
from music_streaming.demo.listeners import COUNTRIES, DEVICES
from music_streaming.demo.rng import Ints
from music_streaming.demo.sessions import HOUR_MS
from music_streaming.demo.world import VERSION, World
from music_streaming.event import AGE_GROUPS, SUBSCRIPTION_TYPES
from music_streaming.metrics import BY_NAME, COUNT_NAMES, COUNTS

_KEPT = 20  # differences shown
_TOGETHER = 10_000  # lines packed at a time


class _Kept(NamedTuple):
    start_ms: Ints
    song: np.ndarray
    listener: np.ndarray
    device: np.ndarray
    subscription: np.ndarray
    flags: np.ndarray
    listened_ms: np.ndarray


class ExpectedMetrics:
    """Keeps account of what a history of `world` sends; give it to `World.history(recorder=...)`.

    hour_starts_ms: where in an hour of UTC the clock of the display time zone shows a full hour.
    """

    def __init__(self, world: World, hour_starts_ms: int = 0) -> None:
        self._hour_starts_ms = hour_starts_ms
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
        window_ms = BY_NAME[table].minutes * 60_000
        kept = _Kept(*(np.concatenate(columns) for columns in zip(*self._kept, strict=True)))
        index, keys = self._keys(table, kept)
        shift_ms = self._hour_starts_ms % window_ms
        code = (kept.start_ms - shift_ms) // window_ms * len(keys) + index
        order = np.argsort(code, kind="stable")
        code = code[order]
        firsts = np.flatnonzero(np.diff(code, prepend=-1))
        flags = kept.flags[order]
        # What a count is made from (Count.of) -> what each play brings.
        plays = {
            None: np.ones(len(code)),
            "completed": flags & 1,
            "skipped": flags >> 1 & 1,
            "liked": flags >> 2 & 1,
            "listened_ms": kept.listened_ms[order],
            "duration_ms": self._world.catalogue.duration_ms[kept.song[order]],
        }
        sums = [np.add.reduceat(plays[count.of].astype(np.int64), firsts).tolist() for count in COUNTS]
        group = np.repeat(np.arange(len(firsts)), np.diff(firsts, append=len(code)))
        people = len(self._world.listeners)
        once = np.unique(group * people + kept.listener[order]) // people
        listeners = np.bincount(once, minlength=len(firsts)).tolist()
        for value, *counts, heard_by in zip(code[firsts].tolist(), *sums, listeners, strict=True):
            window, key = divmod(value, len(keys))
            yield {
                "window_start": _time(window * window_ms + shift_ms),
                "source": "demo",
                **dict(zip(BY_NAME[table].keys, keys[key], strict=True)),
                **dict(zip(COUNT_NAMES, counts, strict=True)),
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

    def _hours(self) -> list[str]:
        """First and last whole hour with a play."""
        starts = [block.start_ms for block in self._kept if len(block.start_ms)]
        if not starts:
            return []
        ends = min(int(block.min()) for block in starts), max(int(block.max()) for block in starts)
        return [_time(moment // HOUR_MS * HOUR_MS) for moment in ends]

    def write(self, path: Path) -> None:
        """Write the file; the same plays give the same bytes."""
        header = {
            "version": VERSION,
            "seed": self._world.seed,
            "listeners": len(self._world.listeners),
            "accepted": self.accepted,
            "duplicates": self.duplicates,
            "malformed": self.malformed,
            "hours": self._hours(),
        }
        with (
            path.open("wb") as raw,
            gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0, compresslevel=1) as file,
        ):
            file.write(_line(header))
            for table in BY_NAME:
                rows = self.rows(table) if self.accepted else iter(())
                while lines := b"".join(_line({"table": table, **row}) for row in islice(rows, _TOGETHER)):
                    file.write(lines)


def _line(content: Mapping[str, Any]) -> bytes:
    # The standard library's encoder takes five times as long, and a back-fill ends with half a million lines.
    return pydantic_core.to_json(content) + b"\n"


@lru_cache(maxsize=8)
def _time(moment_ms: int) -> str:
    return datetime.fromtimestamp(moment_ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def read_header(path: Path) -> dict[str, Any]:
    """What the file says of itself: version, seed, listeners, accepted, duplicates, malformed, and in
    hours the first and the last hour that holds a play."""
    with gzip.open(path, "rb") as file:
        header: dict[str, Any] = json.loads(file.readline())
    return header


def read_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(table, row) for each row of the file. Raises EOFError for a file that was cut off."""
    with gzip.open(path, "rb") as file:
        file.readline()
        for line in file:
            row = json.loads(line)
            yield row.pop("table"), row


class Difference(NamedTuple):
    """One place where a table is not as expected; None for a row that only the other side has."""

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
    path: Path,
    rows: Callable[[str], Iterable[Mapping[str, Any]]],
    listener_tolerance: float = 0.03,
    since: datetime | None = None,
) -> Comparison:
    """Compare the expected metrics in `path` with tables, from windows that begin at `since` on.

    `rows(table)` gives the table's rows in the order of their windows: key columns (window_start as aware
    datetime or RFC 3339 text), the six counts, and listeners as a number, or None where it is not to be
    compared. Only rows of source demo and of a window that the file has are looked at. Counts must be equal;
    listeners may be off by `listener_tolerance` (a fraction), on average over a table's rows.
    """
    result = Comparison(
        rows=dict.fromkeys(BY_NAME, 0),
        differing=dict.fromkeys(BY_NAME, 0),
        listener_error=dict.fromkeys(BY_NAME, 0.0),
        listener_tolerance=listener_tolerance,
    )
    for table, expected in groupby(read_rows(path), itemgetter(0)):
        demo = (row for row in rows(table) if row["source"] == "demo")
        windows = groupby(demo, lambda row: _window(row["window_start"]))
        errors: list[float] = []
        found = next(windows, None)
        for window, wanted_rows in groupby((row for _, row in expected), itemgetter("window_start")):
            if since is not None and datetime.fromisoformat(window) < since:
                continue
            while found is not None and found[0] < window:
                found = next(windows, None)
            got = found[1] if found is not None and found[0] == window else ()
            errors += _compare_window(result, table, wanted_rows, got)
        result.listener_error[table] = sum(errors) / len(errors) if errors else 0.0
    return result


def _compare_window(
    result: Comparison,
    table: str,
    wanted_rows: Iterable[Mapping[str, Any]],
    rows: Iterable[Mapping[str, Any]],
) -> Iterator[float]:
    """Compare the rows of one window; yields by how much each row's listeners are off."""
    expected = {_key(table, row): row for row in wanted_rows}
    result.rows[table] += len(expected)
    for row in rows:
        key = _key(table, row)
        wanted = expected.pop(key, None)
        if wanted is None:
            result.differing[table] += 1
            result.note(Difference(table, key, "streams", None, row["streams"]))
            continue
        wrong = [
            Difference(table, key, name, wanted[name], row[name])
            for name in COUNT_NAMES
            if row[name] != wanted[name]
        ]
        result.differing[table] += bool(wrong)
        result.note(*wrong)
        if row["listeners"] is not None:
            yield abs(float(row["listeners"]) - wanted["listeners"]) / wanted["listeners"]
    for key, wanted in expected.items():
        result.differing[table] += 1
        result.note(Difference(table, key, "streams", wanted["streams"], None))


def _key(table: str, row: Mapping[str, Any]) -> tuple[str, ...]:
    return (_window(row["window_start"]), *(row[name] for name in BY_NAME[table].keys))


def _window(start: datetime | str) -> str:
    moment = start if isinstance(start, datetime) else datetime.fromisoformat(start)
    return _time(round(moment.timestamp() * 1000))
