"""Live records: at their rate, as people would play, for ever."""

from __future__ import annotations

import json
import os
from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta
from itertools import islice, takewhile
from pathlib import Path
from typing import Any

import pytest

from music_streaming.demo.arrivals import CLEAN, USUAL, BadData
from music_streaming.demo.live import live
from music_streaming.demo.records import Record
from music_streaming.demo.world import World
from music_streaming.event import parse_time
from music_streaming.testing.events import rejected

HOUR_MS, DAY_MS = 3_600_000, 86_400_000
START = int(datetime(2026, 11, 20, tzinfo=UTC).timestamp() * 1000)
LATER = datetime(2026, 12, 24, tzinfo=UTC)


@pytest.fixture(scope="module")
def world() -> World:
    return World(seed=42, listeners=300)


def time_ms(event: dict[str, Any]) -> int:
    moment = parse_time(event["event_time"])
    assert moment is not None
    return round(moment.timestamp() * 1000)


def within(value: float, wanted: float, tolerance: float) -> bool:
    return abs(value - wanted) <= tolerance * wanted


def test_steady_rate_is_exact_and_can_change(world: World) -> None:
    stream = live(world, START, rate=20.0, bad_data=USUAL)
    minute = list(islice(stream, 1_200))
    assert minute[0].due_ms == START
    assert minute[-1].due_ms == START + 59_950
    stream.rate = 50.0
    half = list(islice(stream, 1_500))
    assert half[0].due_ms == START + 60_000
    assert half[-1].due_ms == START + 60_000 + 29_980
    stream.skip_to(START + DAY_MS)
    assert next(stream).due_ms == START + DAY_MS
    with pytest.raises(ValueError, match="more than 0"):
        stream.rate = 0


def test_steady_plays_end_when_they_are_reported(world: World) -> None:
    stream = live(world, START, rate=20.0, bad_data=CLEAN)
    records = list(islice(stream, 4_000))
    events = [json.loads(record.value) for record in records]
    now = datetime.fromtimestamp(START / 1000, UTC) + timedelta(minutes=4)
    assert [event for event in events if rejected(event, now) is not None] == []
    assert len({event["event_id"] for event in events}) == 4_000
    for record, event in zip(records, events, strict=True):
        assert time_ms(event) + event["listened_ms"] == record.due_ms
    assert 0.44 < sum(event["skipped"] for event in events) / 4_000 < 0.55
    first = json.loads(next(live(world, START, rate=20.0, bad_data=CLEAN, report="start")).value)
    assert time_ms(first) == START


def test_steady_runs_at_the_speed_of_music() -> None:
    """With listeners enough for the rate, a session's plays follow each other as fast as they are heard."""
    world = World(listeners=World.listeners_for(2.0))
    sessions = defaultdict(list)
    for record in islice(live(world, START, rate=2.0, bad_data=CLEAN), 7_200):
        event = json.loads(record.value)
        sessions[event["session_id"], event["user_id"]].append((record.due_ms, event["listened_ms"]))
    taken = heard = 0
    for plays in sessions.values():
        taken += plays[-1][0] - plays[0][0]
        heard += sum(listened for _, listened in plays[1:])
    assert within(taken / heard, 1.0, 0.15), taken / heard


def test_live_memory_stays_flat(world: World) -> None:
    """80,000 records leave less than a quarter of their size behind; bench/generate.py sends more."""

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    stream = live(world, START, rate=5_000.0)
    for _ in islice(stream, 60_000):
        pass
    before, size = resident(), 0
    for record in islice(stream, 80_000):
        size += len(record.value)
    assert resident() - before < size / 4, f"grew by {resident() - before} of {size} bytes sent"


def test_steady_listeners_follow_the_hours(world: World) -> None:
    """At 03:00 UTC it is evening in America and night in Europe."""

    def share(hour: int, countries: set[str]) -> float:
        records = islice(live(world, START + hour * HOUR_MS, rate=20.0, bad_data=CLEAN), 3_000)
        return sum(json.loads(record.value)["country"] in countries for record in records) / 3_000

    europe = {"GB", "DE", "FR", "ES", "IT", "NL", "SE", "PL"}
    assert share(2, europe) < 0.5 * share(17, europe)


def test_steady_bad_data_comes_at_its_rates(world: World) -> None:
    bad_data = BadData(late=0.05, duplicate=0.02, malformed=0.02, ahead=0.02)
    records = list(islice(live(world, START, rate=100.0, bad_data=bad_data), 40_000))
    ids: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    for record in records:
        try:
            event = json.loads(record.value)
            assert rejected(event, LATER + timedelta(days=30)) is None
        except (ValueError, AssertionError, AttributeError, TypeError):
            counts["bad"] += 1
            continue
        ids[event["event_id"]] += 1
        behind = record.due_ms - time_ms(event) - event["listened_ms"]
        counts["late"] += behind > 10 * 60_000
        counts["ahead"] += behind < -60_000
    assert within(counts["bad"], 800, 0.2), counts
    assert within(counts["ahead"], 800, 0.25), counts
    assert within(counts["late"], 2_000, 0.4), counts
    # The copies of the last minute or two are still to come.
    assert within(sum(ids.values()) - len(ids), 800, 0.5)


def test_modelled_live_continues_the_history(world: World) -> None:
    """What arrives after a history's end is what its sessions had still to send."""
    end = START + DAY_MS + 18 * HOUR_MS
    longer = world.history(START, end + HOUR_MS, CLEAN)
    wanted = [
        (record.due_ms, plain(record))
        for block in longer
        for record in block.records()
        if record.due_ms >= end
    ]
    stream = live(world, end, bad_data=CLEAN)
    got = [(record.due_ms, plain(record)) for record in islice(stream, len(wanted))]
    assert len(wanted) > 100
    assert got == wanted


def test_modelled_plays_are_the_same_whether_told_at_start_or_end(world: World) -> None:
    """Told at its start a play arrives as it starts, and none is told twice or left out."""
    begin, end = START + 6 * HOUR_MS, START + 12 * HOUR_MS
    ends, starts = (
        list(takewhile(lambda record: record.due_ms < end, live(world, begin, None, CLEAN, report)))
        for report in ("end", "start")
    )
    assert all(0 < record.due_ms - time_ms(json.loads(record.value)) < 1_500 for record in starts)
    told_at_start = {(record.key, time_ms(json.loads(record.value))) for record in starts}
    assert len(told_at_start) == len(starts) > 500
    inside = {
        (record.key, started)
        for record in ends
        if begin <= (started := time_ms(json.loads(record.value))) < end - HOUR_MS
    }
    assert inside <= told_at_start


def test_the_model_follows_day_and_week() -> None:
    """2,000 listeners play about 0.4 plays a second, and each hour has its share of the history's curve."""
    world = World()
    day = list(
        takewhile(
            lambda record: record.due_ms < START + DAY_MS, live(world, START, None, CLEAN, report="start")
        )
    )
    assert 0.3 < len(day) / 86_400 < 0.5
    past = world.history(START - 7 * DAY_MS, START - 6 * DAY_MS, CLEAN)
    before = Counter(record.due_ms // HOUR_MS % 24 for block in past for record in block.records())
    now = Counter(record.due_ms // HOUR_MS % 24 for record in day)
    # The same weekday a week before; its first hours lack the sessions that began the day before.
    assert all(within(now[hour], before[hour], 0.25) for hour in range(6, 23)), (now, before)
    assert max(now.values()) > 1.5 * min(now.values())


def plain(record: Record) -> dict[str, Any]:
    event: dict[str, Any] = json.loads(record.value)
    del event["event_id"]
    return event


def test_live_event_ids_are_random(world: World) -> None:
    for rate in (5.0, None):
        one, other = (
            {json.loads(record.value)["event_id"] for record in islice(live(world, START, rate, CLEAN), 200)}
            for _ in range(2)
        )
        assert not one & other


def test_the_smallest_world_plays() -> None:
    world = World(seed=5, listeners=1, locales=("ko_KR",), artists=100)
    assert len(list(islice(live(world, START, rate=1.0), 500))) == 500
    assert len(list(islice(live(world, START), 20))) == 20
