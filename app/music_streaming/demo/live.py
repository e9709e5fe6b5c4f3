"""An endless stream of records: as many as the population would play, or a fixed number a second."""

from __future__ import annotations

import heapq
import os
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate, count, pairwise
from typing import Literal

import numpy as np

from music_streaming.demo.arrivals import AHEAD_MS, COPY_MS, USUAL, BadData, offline
from music_streaming.demo.plays import plays
from music_streaming.demo.records import Record, event_ids, spoiled, value
from music_streaming.demo.rng import generator, log_uniform, scatter
from music_streaming.demo.sessions import DAY_MS, HOUR_MS, begun_at
from music_streaming.demo.world import World, floor_hour

_SPAN_MS = 132_000  # measured: mean time from the start of a play to the start of the next
_LOOK_BACK_HOURS = 8  # a session that began longer ago has ended
_OPEN_SESSIONS = 3_000  # held by a live stream at a fixed rate, at most: bounds its memory to about 50 MB


def live(
    world: World,
    start_ms: int,
    rate: float | None = None,
    bad_data: BadData = USUAL,
    report: Literal["end", "start"] = "end",
) -> Live:
    """Records for ever from `start_ms`: `rate` a second exactly, or None for as many as people play.

    At a fixed rate, who listens follows the local hours at the time. A play is reported when it ends, as
    by a real player, so its event_time lies listened_ms before its due_ms; report="start" reports it as it
    starts (at a fixed rate event_time = due_ms, to measure latency).
    """
    if rate is None:
        return _Modelled(world, start_ms, bad_data, report)
    return _Steady(world, start_ms, rate, bad_data, report)


class Live(Iterator[Record]):
    """Records for ever; see `live`."""

    rate: float | None = None

    def skip_to(self, now_ms: int) -> None:
        """Go on from `now_ms`, e.g. after an outage, without what would have been due before."""
        raise NotImplementedError


class _Modelled(Live):
    """As many records as people play: a day looks like a day."""

    def __init__(self, world: World, start_ms: int, bad_data: BadData, report: str) -> None:
        self._world, self._bad_data, self._at_start = world, bad_data, report == "start"
        self._salt = int.from_bytes(os.urandom(7), "big")
        self.skip_to(start_ms)

    def skip_to(self, now_ms: int) -> None:
        self._records = self._from(now_ms)

    def __next__(self) -> Record:
        return next(self._records)

    def _from(self, now_ms: int) -> Iterator[Record]:
        begin = floor_hour(now_ms) - _LOOK_BACK_HOURS * HOUR_MS
        made = self._world.arrivals(begin, now_ms, None, self._bad_data, at_start=self._at_start)
        for arrivals in made:
            # Random, yet the same for a play and its copy.
            ids = event_ids(scatter(arrivals.high, self._salt), scatter(arrivals.low, self._salt))
            yield from map(Record, *self._world.written(arrivals, ids))


@dataclass(slots=True)
class _Session:
    """A session going on: by play its JSON tail, listened_ms, and ms since the end of the one before."""

    key: bytes
    tails: list[str]
    listened: list[int]
    spans: list[int]
    delay_ms: int
    place: int = 0


class _Steady(Live):
    """A fixed number of records a second.

    Holds the sessions going on at the moment and takes the play that ends next. There are as many as make
    `rate` records a second (beyond the limit on open sessions listeners play faster than music does: a load
    test).
    """

    def __init__(self, world: World, start_ms: int, rate: float, bad_data: BadData, report: str) -> None:
        self._world, self._bad_data, self._at_start = world, bad_data, report == "start"
        self._rng = generator(world.seed, 8, start_ms // 1000)
        self._open: list[tuple[int, int, _Session]] = []  # a heap by the end of the play that is on
        self._next: list[_Session] = []
        self._copies: list[tuple[int, Record]] = []  # a heap by when they are sent again
        self._numbers = count()
        self._ids: list[str] = []
        self._rate = _checked_rate(rate)
        self.skip_to(start_ms)

    @property
    def rate(self) -> float:
        return self._rate

    @rate.setter
    def rate(self, rate: float) -> None:
        self.skip_to(self._due())
        self._rate = _checked_rate(rate)

    def skip_to(self, now_ms: int) -> None:
        self._from_ms, self._sent = now_ms, 0

    def _due(self) -> int:
        return self._from_ms + int(self._sent * 1000 / self._rate)

    def __next__(self) -> Record:
        due = self._due()
        self._sent += 1
        if self._copies and self._copies[0][0] <= due:
            return heapq.heappop(self._copies)[1]._replace(due_ms=due)
        wanted = min(max(1, round(self._rate * _SPAN_MS / 1000)), _OPEN_SESSIONS)
        while len(self._open) < wanted:
            self._join(due)
        ends, _, session = self._open[0]
        record = self._record(session, due)
        session.place += 1
        if session.place == len(session.tails) and len(self._open) > wanted:  # the rate was lowered
            heapq.heappop(self._open)
        else:
            if session.place == len(session.tails):
                session = self._begin(due)
            heapq.heapreplace(self._open, (ends + session.spans[session.place], next(self._numbers), session))
        return record

    def _join(self, due: int) -> None:
        """Open a session somewhere in its middle: the stream begins while people are listening."""
        session = self._begin(due)
        until = list(accumulate(session.spans))
        passed = int(self._rng.random() * until[-1])
        session.place = bisect_right(until, passed)
        now = self._open[0][0] if self._open else 0
        ends = now + until[session.place] - passed
        heapq.heappush(self._open, (ends, next(self._numbers), session))

    def _begin(self, due: int) -> _Session:
        while not self._next:
            self._next = self._drawn(due)
        return self._next.pop()

    def _drawn(self, due: int) -> list[_Session]:
        """Sessions that begin in the hour of `due`."""
        world, day = self._world, due // DAY_MS
        many = min(max(16, round(self._rate * 3)), 1024)
        begun = begun_at(self._rng, world.listeners, floor_hour(due), many)
        rows = plays(self._rng, world.listeners, world.charts(day), begun)
        rows, delays = offline(self._rng, rows, world.listeners.devices, self._bad_data.late)
        ends = rows.start_ms + rows.listened_ms
        spans = np.diff(ends, prepend=0)
        firsts = np.flatnonzero(np.diff(rows.session, prepend=-1))
        spans[firsts] = rows.listened_ms[firsts]
        tails, listened, spans_ = world.tails(rows), rows.listened_ms.tolist(), spans.tolist()
        edges = [*firsts.tolist(), len(tails)]
        return [
            _Session(
                world.key(int(rows.listener[one])),
                tails[one:end],
                listened[one:end],
                spans_[one:end],
                int(delays[one]),
            )
            for one, end in pairwise(edges)
        ]

    def _record(self, session: _Session, due: int) -> Record:
        begun = due - session.delay_ms - (0 if self._at_start else session.listened[session.place])
        if not self._ids:
            bits = np.frombuffer(os.urandom(16 * 256), dtype=np.uint64)
            self._ids = event_ids(bits[0::2], bits[1::2])
        bad_data, dice = self._bad_data, self._rng.random()
        if dice < bad_data.ahead:
            begun += int(log_uniform(self._rng, *AHEAD_MS, 1)[0])
        sent = value(self._ids.pop(), str(np.datetime64(begun, "ms")), session.tails[session.place]).encode()
        record = Record(due, session.key, sent)
        if bad_data.ahead <= dice < bad_data.ahead + bad_data.malformed:
            return record._replace(value=spoiled(sent, self._sent))
        if dice > 1 - bad_data.duplicate:
            heapq.heappush(self._copies, (due + int(log_uniform(self._rng, *COPY_MS, 1)[0]), record))
        return record


def _checked_rate(rate: float) -> float:
    if not 0 < rate < float("inf"):
        raise ValueError(
            f"rate {rate} found, wanted more than 0 records a second; to send none, stop the producer."
        )
    return rate
