"""The expected metrics against a recount, play by play, of the bytes that were sent."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from music_streaming.country import region_of
from music_streaming.demo.arrivals import BadData
from music_streaming.demo.expected import ExpectedMetrics, compare, read_header, read_rows
from music_streaming.demo.world import World
from music_streaming.event import parse_time
from music_streaming.metrics import BY_NAME, COUNT_NAMES
from music_streaming.testing.events import rejected

DAY_MS = 86_400_000
START = int(datetime(2026, 11, 20, tzinfo=UTC).timestamp() * 1000)
BAD_DATA = BadData(late=0.1, duplicate=0.02, malformed=0.02, ahead=0.01)
Tables = dict[str, dict[tuple[str, ...], dict[str, Any]]]


@pytest.fixture(scope="module")
def world() -> World:
    return World(seed=7, listeners=200, artists=500)


@pytest.fixture(scope="module")
def sent(world: World, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[bytes]]:
    """A file of expected metrics, and the values of the history that it tells of."""
    expected = ExpectedMetrics(world)
    blocks = world.history(START, START + 2 * DAY_MS, BAD_DATA, expected)
    values = [value for block in blocks for value in block.values]
    path = tmp_path_factory.mktemp("expected") / "expected.jsonl.gz"
    expected.write(path)
    return path, values


def recount(values: list[bytes]) -> tuple[Tables, Counter[str]]:
    """The four tables from the bytes: accept, drop copies, floor, add."""
    tables: Tables = {table: {} for table in BY_NAME}
    people: dict[tuple[str, ...], set[str]] = defaultdict(set)
    counts: Counter[str] = Counter()
    seen = set()
    for value in values:
        try:
            event = json.loads(value)
        except ValueError:
            counts["malformed"] += 1
            continue
        if not isinstance(event, dict) or rejected(event, datetime(2027, 1, 1, tzinfo=UTC)) is not None:
            counts["malformed"] += 1
            continue
        if event["event_id"] in seen:
            counts["duplicates"] += 1
            continue
        seen.add(event["event_id"])
        counts["accepted"] += 1
        event["region"] = region_of(event["country"])
        moment = parse_time(event["event_time"])
        assert moment is not None
        for table in BY_NAME.values():
            start = moment - timedelta(seconds=moment.timestamp() % (table.minutes * 60))
            key = (f"{start:%Y-%m-%dT%H:%M:%SZ}", "demo", *(event[name] for name in table.keys))
            row = tables[table.name].setdefault(key, dict.fromkeys(COUNT_NAMES, 0))
            flags = (event["completed"], event["skipped"], event["liked"])
            columns = (1, *flags, event["listened_ms"], event["duration_ms"])
            for column, number in zip(COUNT_NAMES, columns, strict=True):
                row[column] += number
            people[table.name, *key].add(event["user_id"])
    for table, rows in tables.items():
        for key, row in rows.items():
            row["listeners"] = len(people[table, *key])
    return tables, counts


def as_rows(tables: Tables, table: str) -> list[dict[str, Any]]:
    names = ("window_start", "source", *BY_NAME[table].keys)
    return [dict(zip(names, key, strict=True)) | row for key, row in sorted(tables[table].items())]


def test_expected_metrics_are_what_a_recount_finds(world: World, sent: tuple[Path, list[bytes]]) -> None:
    path, values = sent
    tables, counts = recount(values)
    header = read_header(path)
    assert {name: header[name] for name in counts} == counts
    assert min(counts.values()) > 50
    assert (header["seed"], header["listeners"]) == (7, 200)
    assert header["hours"] == ["2026-11-20T00:00:00Z", "2026-11-21T23:00:00Z"]
    told: dict[str, list[dict[str, Any]]] = {table: [] for table in BY_NAME}
    for table, row in read_rows(path):
        told[table].append(row)
    for table in BY_NAME:
        wanted = sorted(as_rows(tables, table), key=str)
        assert sorted(told[table], key=str) == wanted
        assert sum(row["streams"] for row in told[table]) == counts["accepted"]


def test_the_same_plays_give_the_same_file(
    world: World, sent: tuple[Path, list[bytes]], tmp_path: Path
) -> None:
    expected = ExpectedMetrics(world)
    for _ in world.history(START, START + 2 * DAY_MS, BAD_DATA, expected):
        pass
    expected.write(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == sent[0].read_bytes()


def test_comparison_accepts_equal_tables(sent: tuple[Path, list[bytes]]) -> None:
    """Times as datetimes, sketches a little off, rows of other windows and sources do no harm."""
    path, values = sent
    tables, _ = recount(values)

    def rows(table: str) -> Iterable[dict[str, Any]]:
        for number, row in enumerate(as_rows(tables, table)):
            yield row | {
                "window_start": datetime.fromisoformat(row["window_start"]),
                "listeners": row["listeners"] * (1.02 if number % 2 else 0.98),
            }
            yield row | {"source": "scrobble", "streams": 99}
        yield row | {"window_start": "2027-01-01T00:00:00Z"}

    result = compare(path, rows)
    assert result.ok, result.differences
    assert result.rows == {table: len(found) for table, found in tables.items()}
    assert all(0.019 < error < 0.021 for error in result.listener_error.values())


def test_comparison_leaves_out_what_cannot_be_told(sent: tuple[Path, list[bytes]]) -> None:
    """Windows before `since`, and listeners that are None."""
    path, values = sent
    tables, _ = recount(values)
    since = datetime(2026, 11, 21, tzinfo=UTC)

    def rows(table: str) -> list[dict[str, Any]]:
        found = as_rows(tables, table)
        kept = [row for row in found if row["window_start"] >= "2026-11-21"]
        return [row | {"listeners": None} for row in kept]

    assert not compare(path, rows).ok
    result = compare(path, rows, since=since)
    assert result.ok, result.differences
    assert result.rows == {table: len(rows(table)) for table in BY_NAME}
    assert all(result.rows.values())


def test_comparison_finds_each_difference(sent: tuple[Path, list[bytes]]) -> None:
    path, values = sent
    tables, _ = recount(values)

    def rows(table: str) -> list[dict[str, Any]]:
        found = as_rows(tables, table)
        if table == "geographic_metrics":
            found[0] = found[0] | {"skips": found[0]["skips"] + 1}  # a wrong number
            found[1] = found[1] | {"country": "ZZ", "region": "unknown"}  # a row too many, and one too few
        if table == "device_usage_metrics":
            return [row | {"listeners": row["listeners"] * 1.1} for row in found]
        return found

    result = compare(path, rows)
    assert not result.ok
    assert result.differing == {table: 3 if table == "geographic_metrics" else 0 for table in BY_NAME}
    assert [(found.column, found.wanted is None, found.got is None) for found in result.differences] == [
        ("skips", False, False),
        ("streams", True, False),
        ("streams", False, True),
    ]
    assert result.listener_error["device_usage_metrics"] == pytest.approx(0.1)


def test_of_nothing_sent_there_are_no_metrics(world: World, tmp_path: Path) -> None:
    ExpectedMetrics(world).write(tmp_path / "empty")
    assert list(read_rows(tmp_path / "empty")) == []
    assert compare(tmp_path / "empty", lambda table: []).ok
