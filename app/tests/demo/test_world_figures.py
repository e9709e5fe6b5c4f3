"""The generated population over 14 days, figure by figure, read from the bytes that Kafka would get."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from rich.console import Console
from rich.table import Table

from music_streaming.demo.arrivals import CLEAN, USUAL, Arrivals
from music_streaming.demo.listeners import CHRONOTYPES, COUNTRIES, ZONES
from music_streaming.demo.world import World

HOUR_MS, DAY_MS = 3_600_000, 86_400_000
START = int(datetime(2026, 11, 9, tzinfo=UTC).timestamp() * 1000)  # a Monday
END = START + 14 * DAY_MS
FRIDAYS = (START + 4 * DAY_MS, START + 11 * DAY_MS)

Columns = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def world() -> World:
    return World(seed=42, listeners=1_500)


@pytest.fixture(scope="module")
def plays(world: World) -> Columns:
    """The plays of 14 days as columns, by listener and time, with what the model knows of the listener."""
    chosen = (
        "listened_ms",
        "skipped",
        "liked",
        "session_id",
        "subscription_type",
        "age_group",
        "genre",
        "artist",
    )
    columns: dict[str, Any] = {
        name: [] for name in (*chosen, "country", "device_type", "listener", "song", "time")
    }
    for block in world.history(START, END, CLEAN):
        for value in block.values:
            row = json.loads(value)
            row["listener"] = int(row["user_id"].removeprefix("listener-"))
            row["song"] = int(row["song_id"].removeprefix("song-"))
            row["time"] = row["event_time"].removesuffix("Z")
            for name, column in columns.items():
                column.append(row[name])
    columns = {name: np.array(column) for name, column in columns.items()}
    columns["start_ms"] = columns.pop("time").astype("datetime64[ms]").astype(np.int64)
    ahead = [
        ZoneInfo(zone).utcoffset(datetime(2026, 11, 15)) for zone in ZONES
    ]  # no clock changes in this fortnight
    ahead_ms = np.array([int(offset.total_seconds()) * 1000 for offset in ahead if offset is not None])
    local_ms = columns["start_ms"] + ahead_ms[world.listeners.zone[columns["listener"]]]
    columns["hour"] = local_ms // HOUR_MS % 24
    columns["weekend"] = (local_ms // DAY_MS + 3) % 7 >= 5
    columns["age"] = world.listeners.age[columns["listener"]]
    order = np.lexsort((columns["start_ms"], columns["listener"]))
    return {name: column[order] for name, column in columns.items()}


@pytest.fixture(scope="module")
def sessions(plays: Columns) -> Columns:
    """Sessions as columns: where they begin and end among the plays."""
    first = np.flatnonzero(np.append(True, plays["session_id"][1:] != plays["session_id"][:-1]))
    last = np.append(first[1:], len(plays["session_id"])) - 1
    return {
        "first": first,
        "plays": last - first + 1,
        "listener": plays["listener"][first],
        "start_ms": plays["start_ms"][first],
        "end_ms": (plays["start_ms"] + plays["listened_ms"])[last],
        "hour": plays["hour"][first],
        "weekend": plays["weekend"][first],
    }


Check = Callable[[str, float, float, float], None]


@pytest.fixture(scope="module")
def figure() -> Iterator[Check]:
    """Check that a figure lies in [low, high]; at the end print all as a table."""
    table = Table("figure", "wanted", "got", title="The generated population, 14 days")

    def check(name: str, low: float, high: float, got: float) -> None:
        ok = low <= got <= high
        table.add_row(name, f"{low:g} .. {high:g}", f"{got:.4g}", style=None if ok else "red")
        assert ok, f"{name}: found {got:.4g}, wanted {low:g} to {high:g}"

    yield check
    Console(width=110).print(table)


def mean(values: np.ndarray) -> float:
    return float(np.mean(values))


def test_attention(world: World, plays: Columns, figure: Check) -> None:
    skipped, listened = plays["skipped"], plays["listened_ms"]
    figure("skipped within 5 s, %", 23, 25, 100 * mean(skipped & (listened <= 5_000)))
    figure("skipped within 30 s, %", 34, 36.1, 100 * mean(skipped & (listened <= 30_000)))
    figure("skipped before the end, %", 47.6, 49.6, 100 * mean(skipped))
    weekend, weekday = mean(skipped[plays["weekend"]]), mean(skipped[~plays["weekend"]])
    figure("skips at weekends / on weekdays", 1.03, 1.15, weekend / weekday)
    pair = plays["listener"] * 1_000_000 + plays["song"]
    _, which, times = np.unique(pair, return_inverse=True, return_counts=True)
    often, listener = times[which] >= 4, plays["listener"]
    # By listener, since those who skip much play much.
    count = [np.bincount(listener[chosen], minlength=len(world.listeners)) for chosen in (often, ~often)]
    skips = [
        np.bincount(listener[chosen & skipped], minlength=len(world.listeners)) for chosen in (often, ~often)
    ]
    both = (count[0] > 0) & (count[1] > 0)
    rates = [
        float((skip[both] / total[both] * count[0][both]).sum())
        for skip, total in zip(skips, count, strict=True)
    ]
    figure("skips of one's own favourites / of other songs", 0.6, 0.92, rates[0] / rates[1])


def test_attention_by_age(plays: Columns, figure: Check) -> None:
    def rate(low: int, high: int) -> float:
        return mean(plays["skipped"][(plays["age"] >= low) & (plays["age"] <= high)])

    figure("skipped by listeners under 20, %", 52, 66, 100 * rate(13, 19))
    figure("skipped in the mid-thirties, %", 33, 44, 100 * rate(33, 38))
    figure("bump near 48 / mid-thirties", 1.1, 1.5, rate(45, 51) / rate(33, 38))
    figure("bump near 48 / over 58", 1.05, 1.6, rate(45, 51) / rate(59, 80))


def test_limited_skips(plays: Columns, figure: Check) -> None:
    """No free listener gets a seventh skip within an hour of the first."""
    free = (plays["subscription_type"] == "free") & plays["skipped"]
    session, moment = plays["session_id"][free], (plays["start_ms"] + plays["listened_ms"])[free]
    seventh = (session[6:] == session[:-6]) & (moment[6:] - moment[:-6] < HOUR_MS)
    figure("free listeners' seventh skips within an hour", 0, 0, int(seventh.sum()))
    rate = [mean(plays["skipped"][plays["subscription_type"] == plan]) for plan in ("free", "premium")]
    figure("skips of free / premium listeners", 0.6, 0.95, rate[0] / rate[1])


def test_arrivals(sessions: Columns, figure: Check) -> None:
    week = np.bincount(sessions["hour"][~sessions["weekend"]], minlength=24)
    end = np.bincount(sessions["hour"][sessions["weekend"]], minlength=24)
    figure("hour with fewest sessions, weekday", 1, 3, int(week.argmin()))
    figure("hour of the morning peak", 9, 10, int(week[6:13].argmax()) + 6)
    dip = week[12:14].mean()
    figure("morning peak / midday dip, weekday", 1.15, 1.6, week[9:11].mean() / dip)
    figure("hour of the daily peak, weekday", 17, 19, int(week.argmax()))
    figure("daily peak / fewest, weekday", 7, 20, week.max() / week.min())
    figure("hour of the daily peak, weekend", 16, 19, int(end.argmax()))
    figure("morning / midday, weekend", 0.5, 0.9, end[9:11].mean() / end[12:14].mean())
    figure("afternoon / midday, weekend", 1.0, 1.4, end[14:16].mean() / end[12:14].mean())


def test_sessions(sessions: Columns, figure: Check) -> None:
    figure("plays a session, mean", 10, 20, mean(sessions["plays"]))
    same = sessions["listener"][1:] == sessions["listener"][:-1]
    gap = (sessions["start_ms"][1:] - sessions["end_ms"][:-1])[same]
    length = (sessions["end_ms"] - sessions["start_ms"])[:-1][same]
    figure("downtimes below 10 minutes between sessions", 0, 0, int((gap < 600_000).sum()))
    ranks = [np.argsort(np.argsort(values)) for values in (length, gap)]
    figure("rank correlation of length and next downtime", 0.03, 0.5, float(np.corrcoef(ranks)[0, 1]))
    days = np.bincount(sessions["listener"])
    figure("spread of activity (sd of log sessions)", 0.7, 1.2, float(np.std(np.log(days[days > 0]))))


def test_chronotypes(world: World, plays: Columns, sessions: Columns, figure: Check) -> None:
    kind = world.listeners.chronotype
    for place, name in enumerate(CHRONOTYPES):
        figure(f"listeners of chronotype {name}, %", 21, 29, 100 * mean(kind == place))
    spans = {"early bird": (5, 10), "working hours": (10, 16), "evening": (16, 21), "night owl": (21, 27)}
    for place, (name, (low, high)) in enumerate(spans.items()):
        within = (sessions["hour"] - low) % 24 < high - low
        theirs = kind[sessions["listener"]] == place
        label = f"{name}: share of sessions at {low}-{high % 24} h / others'"
        figure(label, 1.3, 6, mean(within[theirs]) / mean(within[~theirs]))


def test_choice(world: World, plays: Columns, figure: Check) -> None:
    artists = np.sort(np.unique(plays["artist"], return_counts=True)[1])[::-1]

    def slope(low: int, high: int) -> float:
        ranks = np.unique(np.geomspace(low, high, 40).astype(int))
        return float(np.polyfit(np.log(ranks), np.log(artists[ranks - 1]), 1)[0])

    figure("slope of artists' plays by rank, 2..100", -0.64, -0.44, slope(2, 100))
    figure("slope of artists' plays by rank, 100..2,500", -1.08, -0.83, slope(100, 2_500))
    figure("songs never played, %", 20, 34, 100 * (1 - len(np.unique(plays["song"])) / len(world.catalogue)))
    pair = plays["listener"] * 1_000_000 + plays["song"]
    figure(
        "plays that repeat a song of the fortnight, %", 50, 75, 100 * (1 - len(np.unique(pair)) / len(pair))
    )
    figure("genres played", 14, 14, len(np.unique(plays["genre"])))


def test_release_days(world: World, plays: Columns, figure: Check) -> None:
    """An album that comes out on the second Friday is not played before, and then all at once."""
    songs = world.catalogue
    second = FRIDAYS[1]
    day = second // DAY_MS
    moments = plays["start_ms"][np.isin(plays["song"], np.flatnonzero(songs.age_days(day) == 0))]
    figure("plays of the second Friday's albums before it", 0, 0, int((moments < second).sum()))
    share = np.bincount((moments - second) // DAY_MS, minlength=3)
    of_friday = ((plays["start_ms"] - second) // DAY_MS == 0).sum()
    figure("share of them in all plays on the day, %", 2, 10, 100 * share[0] / of_friday)
    figure("plays on release day / two days later", 1.05, 4, share[0] / share[2])


def test_life(world: World, plays: Columns, figure: Check) -> None:
    first, last = (world.listeners.subscriptions(moment // DAY_MS) for moment in (START, END))
    figure("changes of subscription in a fortnight, % of listeners", 1, 6, 100 * mean(first != last))
    year = world.listeners.subscriptions(START // DAY_MS + 364)
    figure("free listeners who pay a year later, %", 8, 35, 100 * mean(year[first == 0] > 0))
    figure("paying listeners who left within a year, %", 3, 25, 100 * mean(year[first > 0] == -1))
    figure("paying listeners, %", 25, 50, 100 * mean(first > 0))
    paying, free = (mean(world.listeners.activity[chosen]) for chosen in (first > 0, first == 0))
    figure("activity of paying / of free listeners", 1.1, 2.2, paying / free)
    figure("liked, % of plays", 0.4, 4, 100 * mean(plays["liked"]))


def test_places_and_devices(world: World, plays: Columns, figure: Check) -> None:
    total = sum(share for share, *_ in COUNTRIES.values())
    for code in ("US", "DE", "JP"):
        share = 100 * COUNTRIES[code][0] / total
        theirs = world.listeners.country == list(COUNTRIES).index(code)
        figure(f"listeners in {code}, %", round(0.7 * share, 1), round(1.3 * share, 1), 100 * mean(theirs))
    figure("countries that play", 30, 60, len(np.unique(plays["country"])))
    morning, evening = ((plays["hour"] >= low) & (plays["hour"] < low + 4) for low in (6, 18))
    for devices, low, high in ((["mobile"], 1.3, 3), (["car"], 1.2, 5), (["speaker", "tv"], 0.1, 0.6)):
        used = np.isin(plays["device_type"], devices)
        figure(
            f"{' and '.join(devices)}: morning / evening",
            low,
            high,
            mean(used[morning]) / mean(used[evening]),
        )
    figure("plays on phones, %", 35, 65, 100 * mean(plays["device_type"] == "mobile"))


class Kept(list[Arrivals]):
    """Keeps what a history sends."""

    add = list.append


def test_bad_data(world: World, figure: Check) -> None:
    kept = Kept()
    for _ in world.history(START, END, USUAL, kept):
        pass
    due, start, listened, copy, malformed = (
        np.concatenate(columns)
        for columns in zip(
            *((a.due_ms, a.plays.start_ms, a.plays.listened_ms, a.copy, a.malformed) for a in kept),
            strict=True,
        )
    )
    single = copy == 0
    behind = (due - start - listened)[single]
    # Those longest offline are not back when the history ends.
    figure("plays that come late, %", 1.6, 2.2, 100 * mean(behind > 14 * 60_000))
    figure("records that come twice, %", 0.08, 0.12, 100 * mean(~single) / mean(single))
    figure("malformed records, %", 0.04, 0.06, 100 * mean(malformed[single] == 1))
    figure("clocks ahead, %", 0.014, 0.026, 100 * mean(behind < 0))
