"""Sessions: when listeners press play.

Arrivals (Zhang et al., "Understanding user behavior in Spotify", INFOCOM 2013): fewest about 02:00, a steep
rise to a morning peak at 09-10, a dip at midday, the daily peak at 18-19; at weekends neither morning peak
nor dip; lengths and downtimes of successive sessions are correlated.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache, lru_cache
from importlib.resources import files
from typing import NamedTuple
from zoneinfo import ZoneInfo

import numpy as np

from music_streaming.demo.listeners import ZONES, Listeners
from music_streaming.demo.rng import (
    Floats,
    Ints,
    find,
    generator,
    normal,
    pick,
    poisson,
)

HOUR_MS, DAY_MS = 3_600_000, 86_400_000
_QUARTER_MS = 900_000

# Sessions begun by local hour, weekday and weekend, all listeners together.
_WEEKDAY = (
    30, 19, 12, 13, 17, 28, 50, 80, 102, 116, 114, 100,
    84, 85, 97, 108, 120, 133, 143, 138, 123, 104, 79, 52,
)  # fmt: skip
_WEEKEND = (
    42, 29, 17, 18, 20, 24, 32, 42, 55, 68, 80, 89,
    96, 102, 108, 114, 120, 127, 133, 129, 115, 101, 84, 63,
)  # fmt: skip
_VOLUME = np.array([0.97, 0.97, 0.99, 1.01, 1.08, 1.05, 0.93])  # Monday first
# Chronotypes of `listeners`: favourite hour, width in hours.
_FAVOURITE = ((7.5, 3.0), (12.5, 3.2), (19.0, 2.6), (23.5, 3.2))

_MEDIAN_MINUTES, _LENGTH_SPREAD, _LONGEST_MINUTES = 25.0, 0.7, 300.0
_PACE = 0.5  # a day of long sessions has fewer of them: that ties a session's length to the downtime after it
_APART_MS = 20 * 60_000


class Sessions(NamedTuple):
    """Sessions as columns; times in Unix ms, `length_ms` the time after which no further song is begun."""

    listener: Ints
    start_ms: Ints
    length_ms: Ints
    local_hour: Ints
    weekend: Ints

    def take(self, chosen: Ints | np.ndarray) -> Sessions:
        return Sessions(*(column[chosen] for column in self))


def _arrivals() -> Floats:
    """Running sums over the 96 quarter hours of a local day; row 2 x chronotype + weekend, row r lies in
    [r, r + 1).

    Each chronotype prefers its hours, yet together they make the curve of all: proportional fitting of
    both.
    """
    quarters = (np.arange(96) + 0.5) / 4
    rows: Floats = np.empty((len(_FAVOURITE), 2, 96))
    for weekend, hourly in enumerate((_WEEKDAY, _WEEKEND)):
        everybody = np.interp(quarters, np.arange(-1, 25) + 0.5, (hourly[-1], *hourly, hourly[0]))
        everybody /= everybody.sum()
        away = [np.abs((quarters - hour + 12) % 24 - 12) / width for hour, width in _FAVOURITE]
        fitted = np.array([everybody * (0.25 + np.exp(-0.5 * distance**2)) for distance in away])
        for _ in range(60):
            fitted *= everybody / fitted.mean(axis=0)
            fitted /= fitted.sum(axis=1, keepdims=True)
        rows[:, weekend] = fitted
    flat = rows.reshape(-1, 96)
    sums = np.round(np.cumsum(flat, axis=1), 9)
    sums[:, -1] = 1.0
    return (sums + np.arange(len(sums))[:, None]).ravel().astype(np.float64)


_ARRIVALS = _arrivals()


@cache
def _zone(name: str) -> ZoneInfo:
    """Time zone by its rules in the pinned package tzdata: the operating system's may be of another year."""
    with files("tzdata").joinpath("zoneinfo", *name.split("/")).open("rb") as rules:
        return ZoneInfo.from_file(rules, key=name)


@lru_cache(maxsize=64)
def _offsets(day: int) -> Ints:
    """Milliseconds by which local time is ahead of UTC: zone x local hour of `day` (days since 1970)."""
    midnight = datetime(1970, 1, 1) + timedelta(days=day)
    local = [midnight + timedelta(hours=hour) for hour in range(24)]
    offsets = [
        [time.replace(tzinfo=_zone(zone)).utcoffset() or timedelta() for time in local] for zone in ZONES
    ]
    return np.array([[int(offset.total_seconds()) * 1000 for offset in row] for row in offsets])


def local_hours(moment_ms: int) -> tuple[Ints, Ints]:
    """Local hour and whether it is a weekend, for each of ZONES at `moment_ms`."""
    moment = datetime.fromtimestamp(moment_ms / 1000, UTC)
    local = [moment.astimezone(_zone(zone)) for zone in ZONES]
    return np.array([time.hour for time in local]), np.array([int(time.weekday() >= 5) for time in local])


def begun_on(listeners: Listeners, day: int) -> Sessions:
    """The sessions that begin on local day `day` (days since 1970), by start; a listener's never overlap.

    A function of seed and day alone, so that any day can be made without those before it.
    """
    both = [_drawn(listeners, day - 1), _drawn(listeners, day)]
    of_day = np.repeat([False, True], [len(sessions.listener) for sessions in both])
    sessions = Sessions(*(np.concatenate(columns) for columns in zip(*both, strict=True)))
    order = np.lexsort((sessions.start_ms, sessions.listener))
    sessions, of_day = sessions.take(order), of_day[order]
    # A session is dropped when an earlier one of its listener still runs. The latest end so far, by listener:
    floor = int(sessions.start_ms.min(initial=0))
    step = 10 * DAY_MS
    ends = sessions.listener * step + (sessions.start_ms + sessions.length_ms + _APART_MS - floor)
    latest = np.concatenate(([-1], np.maximum.accumulate(ends)[:-1]))
    free = sessions.listener * step + (sessions.start_ms - floor) >= latest
    kept = sessions.take(free & of_day)
    return kept.take(np.lexsort((kept.listener, kept.start_ms)))


def _drawn(listeners: Listeners, day: int) -> Sessions:
    rng = generator(listeners.seed, 5, day)
    weekday = (day + 3) % 7
    pace = normal(rng, len(listeners))
    slower: Floats = np.round(np.exp(-_PACE * pace - _PACE**2 / 2), 6).astype(np.float64)
    counts = poisson(rng, listeners.sessions * _VOLUME[weekday] * slower, 16)
    listener = np.repeat(np.arange(len(listeners)), counts)
    weekend = int(weekday >= 5)
    row = 2 * listeners.chronotype[listener] + weekend
    quarter = np.minimum(find(_ARRIVALS, row + rng.random(len(row))) - 96 * row, 95)
    local_ms = quarter * _QUARTER_MS + rng.integers(0, _QUARTER_MS, len(row))
    hour = local_ms // HOUR_MS
    start = day * DAY_MS + local_ms - _offsets(day)[listeners.zone[listener], hour]
    return Sessions(listener, start, _lengths(rng, pace[listener]), hour, np.full(len(row), weekend))


def _lengths(rng: np.random.Generator, pace: Floats) -> Ints:
    minutes = _MEDIAN_MINUTES * np.round(np.exp(_LENGTH_SPREAD * normal(rng, len(pace)) + _PACE * pace), 6)
    lengths_ms: Ints = (np.clip(minutes, 1.0, _LONGEST_MINUTES) * 60_000).astype(np.int64)
    return lengths_ms


def begun_at(rng: np.random.Generator, listeners: Listeners, moment_ms: int, count: int) -> Sessions:
    """`count` sessions that begin at `moment_ms`, by whoever likes to listen at that hour where they live."""
    hours, weekends = local_hours(moment_ms)
    hour, weekend = hours[listeners.zone], weekends[listeners.zone]
    row = 2 * listeners.chronotype + weekend
    upper = _ARRIVALS[row * 96 + hour * 4 + 3]
    lower = np.where(hour == 0, row, _ARRIVALS[np.maximum(row * 96 + hour * 4 - 1, 0)])
    present = listeners.subscriptions(moment_ms // DAY_MS) >= 0
    weights = np.round(listeners.sessions * (upper - lower) * present, 9)
    listener = pick(rng, np.cumsum(weights), count)
    lengths = _lengths(rng, normal(rng, count))
    return Sessions(listener, np.full(count, moment_ms), lengths, hour[listener], weekend[listener])
