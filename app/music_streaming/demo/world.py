"""A world of listeners and what they play: history in blocks, or live for ever.

The same seed, sizes and version give the same bytes on any day and machine (only a live play's event_id is
random). How the public
behaves is in `catalogue`, `listeners` and `sessions`; here plays become records as
they would arrive.
"""

from __future__ import annotations

import heapq
import os
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, count, pairwise
from typing import BinaryIO, Literal, NamedTuple, Protocol

import numpy as np

from music_streaming.demo.catalogue import LOCALES
from music_streaming.demo.catalogue import build as build_catalogue
from music_streaming.demo.listeners import DEVICES
from music_streaming.demo.listeners import build as build_listeners
from music_streaming.demo.rng import Ints, generator, log_uniform, scatter
from music_streaming.demo.sessions import (
    DAY_MS,
    END_REASONS,
    HOUR_MS,
    START_REASONS,
    Charts,
    Plays,
    Sessions,
    begun_at,
    begun_on,
    plays,
)
from music_streaming.event import SUBSCRIPTION_TYPES

VERSION = 3  # goes up with every change of what a seed gives
# Measured: plays for each session that a listener is inclined to (some would overlap and are dropped); plays
# a listener and day; mean time from the start of a play to the start of the next.
_PLAYS_A_SESSION, _PLAYS_A_DAY, _SPAN_MS = 11.2, 17.9, 132_000
_LOOK_BACK_HOURS = 8  # a session that began longer ago has ended
_LATE_MS = 15 * 60_000, 3 * DAY_MS  # how long a phone is offline
_COPY_MS = 1_000, 120_000  # how long until a retry sends the same record again
_AHEAD_MS = 6 * 60_000, 2 * DAY_MS  # how far a wrong clock is ahead
_OPEN_SESSIONS = 3_000  # held by a live stream at a fixed rate, at most: bounds its memory to about 50 MB


class Dirt(NamedTuple):
    """What goes wrong on the way, as fractions of plays (0..1).

    `late`: the phone was offline, the whole session arrives 15 minutes to 3 days late. `duplicate`: the
    record arrives twice. `malformed`:
    the value breaks a rule of the contract. `ahead`: the device's clock is 6 minutes to 2 days ahead.
    """

    late: float = 0.02
    duplicate: float = 0.001
    malformed: float = 0.0005
    ahead: float = 0.0002


USUAL, CLEAN = Dirt(), Dirt(0, 0, 0, 0)


class Record(NamedTuple):
    """One Kafka record: Unix time in ms at which it arrives, user_id, JSON; both in UTF-8."""

    due_ms: int
    key: bytes
    value: bytes


@dataclass(frozen=True, slots=True)
class Block:
    """The records that arrived within one hour, in order of arrival; `until_ms` is the end of that hour."""

    until_ms: int
    due_ms: list[int]
    keys: list[bytes]
    values: list[bytes]

    def __len__(self) -> int:
        return len(self.values)

    def records(self) -> Iterator[Record]:
        return map(Record, self.due_ms, self.keys, self.values)


class Arrivals(NamedTuple):
    """Plays on their way: when they arrive, 1 for copies and malformed ones, halves of the event_ids."""

    plays: Plays
    due_ms: Ints
    copy: Ints
    malformed: Ints
    high: np.ndarray
    low: np.ndarray

    def take(self, chosen: Ints | np.ndarray) -> Arrivals:
        return Arrivals(self.plays.take(chosen), *(column[chosen] for column in self[1:]))


class Ledger(Protocol):
    """Who keeps account of what was generated (`expected.Truth`)."""

    def add(self, arrivals: Arrivals) -> None: ...


class World:
    """A catalogue and a public, built in about two seconds.

    Raises MusicError for an unknown locale, no listener, or fewer than a hundred artists.
    """

    def __init__(
        self,
        seed: int = 42,
        listeners: int = 2_000,
        locales: Sequence[str] = LOCALES,
        artists: int = 4_000,
    ) -> None:
        self.seed = seed
        self.catalogue = build_catalogue(seed, locales, artists)
        self.listeners = build_listeners(seed, listeners)
        self._charts: dict[int, Charts] = {}
        self._sessions: dict[int, Sessions] = {}
        self._keys = [user_id.encode() for user_id in self.listeners.user_ids]

    @staticmethod
    def listeners_for(rate: float) -> int:
        """How many listeners make `rate` plays a second, on average over a day."""
        return max(1, round(rate * 86_400 / _PLAYS_A_DAY))

    def expected_plays(self, start_ms: int, end_ms: int) -> int:
        """About how many plays a history of this span holds."""
        there = float((self.listeners.subscriptions(start_ms // DAY_MS) >= 0).mean())
        daily = float(self.listeners.sessions.sum()) * there * _PLAYS_A_SESSION
        return round(daily * (end_ms - start_ms) / DAY_MS)

    def history(
        self,
        start_ms: int,
        end_ms: int,
        dirt: Dirt = USUAL,
        truth: Ledger | None = None,
        since_ms: int | None = None,
    ) -> Iterator[Block]:
        """Plays of the sessions begun in [start, end) that arrive before `end`: an hour a block, by arrival.

        event_ids are seeded, and UUIDs of version 8 (RFC 9562: made by a rule of one's own), which tells them
        from those of live plays: to send the same history again adds nothing. `since_ms` leaves out what was
        played before. Raises ValueError unless start and end are whole hours.
        """
        for moment in (start_ms, end_ms):
            if moment != floor_hour(moment):
                raise ValueError(f"{moment} ms found, wanted a whole hour; use floor_hour().")
        for until, arrivals in self._arrivals(start_ms, start_ms, end_ms, dirt):
            if since_ms is not None:
                arrivals = arrivals.take(arrivals.plays.start_ms >= since_ms)  # noqa: PLW2901
            if truth is not None:
                truth.add(arrivals)
            ids = _event_ids(arrivals.high, arrivals.low, version=8)
            yield Block(until, *self._written(arrivals, ids))

    def live(
        self,
        start_ms: int,
        rate: float | None = None,
        dirt: Dirt = USUAL,
        report: Literal["end", "start"] = "end",
    ) -> Live:
        """Records for ever from `start_ms`: `rate` a second exactly, or None for as many as the public plays.

        At a fixed rate, who listens follows the local hours at the time. A play is reported when it ends, as
        by a real player, so its event_time lies listened_ms before its due_ms; report="start" (fixed rate
        only) sets event_time = due_ms, to measure latency.
        """
        if rate is None:
            return _Modelled(self, start_ms, dirt)
        return _Steady(self, start_ms, rate, dirt, report)

    def _arrivals(
        self, begin_ms: int, start_ms: int, end_ms: int | None, dirt: Dirt
    ) -> Iterator[tuple[int, Arrivals]]:
        """Arrivals by hour, of sessions begun from `begin_ms` on; only those due in [start, end)."""
        waiting: Arrivals | None = None
        hour = begin_ms
        while end_ms is None or hour < end_ms:
            begun = self._sent(hour, dirt, end_ms)
            waiting = begun if waiting is None else _joined(waiting, begun)
            until = hour + HOUR_MS
            due = waiting.due_ms < until
            ready = waiting.take(due)
            waiting = waiting.take(~due)
            ready = ready.take(np.argsort(ready.due_ms, kind="stable"))
            if hour < start_ms:
                ready = ready.take(ready.due_ms >= start_ms)
            if until > start_ms:
                yield until, ready
            hour = until

    def _sent(self, hour_ms: int, dirt: Dirt, end_ms: int | None) -> Arrivals:
        """The plays of the sessions begun within the hour, with all that happens to them on the way."""
        day, hour = hour_ms // DAY_MS, hour_ms // HOUR_MS
        sessions = self._begun_within(hour_ms)
        rng = generator(self.seed, 6, hour)
        played = plays(rng, self.listeners, self.charts(day), sessions)
        size = len(played.song)
        high, low = (rng.integers(0, 1 << 64, size, dtype=np.uint64) for _ in range(2))
        due = played.start_ms + played.listened_ms + rng.integers(120, 1_500, size)
        # Dirt has a chance of its own: without it, the plays are the same.
        rng = generator(self.seed, 7, hour)
        played, delay = _offline(rng, played, self.listeners.devices, dirt.late)
        due = due + delay
        ahead = np.where(rng.random(size) < dirt.ahead, log_uniform(rng, *_AHEAD_MS, size), 0)
        # Beyond a history's end a date would be a reject or not, depending on when it is read.
        if end_ms is not None:
            ahead[played.start_ms + ahead >= end_ms] = 0
        played = played._replace(start_ms=played.start_ms + ahead)
        malformed = rng.random(size) < dirt.malformed
        sent = Arrivals(played, due, np.zeros(size, dtype=np.int64), malformed.astype(np.int64), high, low)
        again = np.flatnonzero((rng.random(size) < dirt.duplicate) & ~malformed)
        if not len(again):
            return sent
        copies = sent.take(again)
        later = copies.due_ms + log_uniform(rng, *_COPY_MS, len(again))
        return _joined(sent, copies._replace(due_ms=later, copy=np.ones(len(again), dtype=np.int64)))

    def _begun_within(self, hour_ms: int) -> Sessions:
        """Sessions of all time zones that begin in [hour, hour + 1 h)."""
        found = []
        today = hour_ms // DAY_MS
        for day in (today - 1, today, today + 1):
            if day not in self._sessions:
                self._sessions[day] = begun_on(self.listeners, day)
            of_day = self._sessions[day]
            first, last = np.searchsorted(of_day.start_ms, (hour_ms, hour_ms + HOUR_MS))
            found.append(of_day.take(np.arange(first, last)))
        for day in [day for day in self._sessions if abs(day - today) > 1]:
            del self._sessions[day]
        sessions = Sessions(*(np.concatenate(columns) for columns in zip(*found, strict=True)))
        return sessions.take(np.lexsort((sessions.listener, sessions.start_ms)))

    def charts(self, day: int) -> Charts:
        """What can be played on `day` (days since 1970), kept for the last days asked for."""
        if day not in self._charts:
            if len(self._charts) > 3:
                self._charts.clear()
            self._charts[day] = Charts(self.catalogue, day)
        return self._charts[day]

    def _written(self, arrivals: Arrivals, ids: list[str]) -> tuple[list[int], list[bytes], list[bytes]]:
        """Due times, keys and values of `arrivals`."""
        rows = arrivals.plays
        times = _times(rows.start_ms)
        texts = map(_value, ids, times, self.tails(rows))
        values = "\n".join(texts).encode().split(b"\n") if ids else []
        for number in np.flatnonzero(arrivals.malformed).tolist():
            values[number] = spoiled(values[number], number)
        return arrivals.due_ms.tolist(), [self.key(listener) for listener in rows.listener.tolist()], values

    def key(self, listener: int) -> bytes:
        """The Kafka key of a listener's plays."""
        return self._keys[listener]

    def tails(self, rows: Plays) -> list[str]:
        """The JSON of plays from behind event_time on."""
        songs, people = self.catalogue.fragments, self.listeners.fragments
        flags = rows.skipped * 4 + rows.liked * 2 + rows.completed
        reasons = rows.start_reason * len(END_REASONS) + rows.end_reason
        columns = (
            rows.listener,
            rows.session_start_ms // 1000,
            rows.song,
            rows.listened_ms,
            flags,
            rows.subscription,
        )
        lists = (column.tolist() for column in (*columns, rows.device, reasons))
        return [
            f'"source":"demo","user_id":"listener-{listener:06d}","session_id":"{listener:06d}-{begun:x}",{songs[song]},'
            f'"listened_ms":{listened},{_FLAGS[flag]}{_PLANS[plan]}{people[listener]},{_DEVICES[device]}{_REASONS[reason]}'
            for listener, begun, song, listened, flag, plan, device, reason in zip(*lists, strict=True)
        ]


def _value(event_id: str, time: str, tail: str) -> str:
    return f'{{"event_id":"{event_id}","event_time":"{time}Z",{tail}'


def _truth_word(bit: int) -> str:
    return "true" if bit else "false"


_FLAGS = [
    f'"skipped":{_truth_word(flag & 4)},"liked":{_truth_word(flag & 2)},"completed":{_truth_word(flag & 1)},'
    for flag in range(8)
]
_PLANS = [f'"subscription_type":"{plan}",' for plan in SUBSCRIPTION_TYPES]
_DEVICES = [
    f'"device_type":"{kind}","os":"{system}","player":"{player}",' for kind, system, player in DEVICES
]
_REASONS = [
    f'"reason_start":"{begun}","reason_end":"{ended}"}}' for begun in START_REASONS for ended in END_REASONS
]


def floor_hour(moment_ms: int) -> int:
    """The last whole hour before or at `moment_ms`."""
    return moment_ms // HOUR_MS * HOUR_MS


def _joined(one: Arrivals, other: Arrivals) -> Arrivals:
    both = Plays(*(np.concatenate(columns) for columns in zip(one.plays, other.plays, strict=True)))
    return Arrivals(both, *(np.concatenate(columns) for columns in zip(one[1:], other[1:], strict=True)))


def _offline(rng: np.random.Generator, rows: Plays, devices: Ints, late: float) -> tuple[Plays, Ints]:
    """Plays and delays in ms, after some sessions went to phones without a network that report later."""
    sessions = int(rows.session.max(initial=-1)) + 1
    chosen, delays = rng.random(sessions) < late, log_uniform(rng, *_LATE_MS, sessions)
    offline = chosen[rows.session]
    return (
        rows._replace(device=np.where(offline, devices[rows.listener, 0], rows.device)),
        np.where(offline, delays[rows.session], 0),
    )


def _times(moments_ms: Ints) -> list[str]:
    return np.datetime_as_string(moments_ms.astype("datetime64[ms]")).tolist()


def _event_ids(high: np.ndarray, low: np.ndarray, version: int = 4) -> list[str]:
    """UUIDs from two 64-bit numbers each: version 4 is random, 8 is not."""
    high = (high & np.uint64(0xFFFFFFFFFFFF0FFF)) | np.uint64(version << 12)
    low = (low & np.uint64(0x3FFFFFFFFFFFFFFF)) | np.uint64(0x8000000000000000)
    text = np.stack([high, low], axis=1).astype(">u8").tobytes().hex()
    return [
        f"{word[:8]}-{word[8:12]}-{word[12:16]}-{word[16:20]}-{word[20:]}"
        for word in (text[at : at + 32] for at in range(0, len(text), 32))
    ]


_SPOILERS: tuple[Callable[[bytes], bytes], ...] = (
    lambda value: value[: len(value) // 2],
    lambda value: value.replace(b'"event_id"', b'"id"', 1),
    lambda value: value.replace(b'"event_time":"', b'"event_time":"yesterday ', 1),
    lambda value: value.replace(b'"user_id"', b'"userId"', 1),
    lambda value: value.replace(b'"title":"', b'"title":"\\u0000', 1),
    lambda value: value.replace(b'"artist":"', b'"artist":"\xff\xfe', 1),
    lambda value: value.replace(b'"listened_ms":', b'"listened_ms":-1', 1),
    lambda value: b"[" + value + b"]",
    lambda value: b"play " + value,
    lambda value: b"",
)


def spoiled(value: bytes, way: int) -> bytes:
    """`value` with one of ten faults, each of which the contract calls a reject."""
    return _SPOILERS[way % len(_SPOILERS)](value)


class Live(Iterator[Record]):
    """Records for ever; see `World.live`."""

    rate: float | None = None

    def skip_to(self, now_ms: int) -> None:
        """Go on from `now_ms`, e.g. after an outage, without what would have been due before."""
        raise NotImplementedError


class _Modelled(Live):
    """As many records as the public plays: a day looks like a day."""

    def __init__(self, world: World, start_ms: int, dirt: Dirt) -> None:
        self._world, self._dirt = world, dirt
        self._salt = int.from_bytes(os.urandom(7), "big")
        self.skip_to(start_ms)

    def skip_to(self, now_ms: int) -> None:
        self._records = self._from(now_ms)

    def __next__(self) -> Record:
        return next(self._records)

    def _from(self, now_ms: int) -> Iterator[Record]:
        begin = floor_hour(now_ms) - _LOOK_BACK_HOURS * HOUR_MS
        for _, arrivals in self._world._arrivals(begin, now_ms, None, self._dirt):
            # Random, yet the same for a play and its copy.
            ids = _event_ids(scatter(arrivals.high, self._salt), scatter(arrivals.low, self._salt))
            yield from map(Record, *self._world._written(arrivals, ids))


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
    `rate` records a second
    (beyond the limit on open sessions the listeners play faster than music does: a load test).
    """

    def __init__(self, world: World, start_ms: int, rate: float, dirt: Dirt, report: str) -> None:
        self._world, self._dirt, self._at_start = world, dirt, report == "start"
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
        """Open a session somewhere in its middle, as one finds it who comes at any time."""
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
        rows, delays = _offline(self._rng, rows, world.listeners.devices, self._dirt.late)
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
            self._ids = _event_ids(bits[0::2], bits[1::2])
        dirt, dice = self._dirt, self._rng.random()
        if dice < dirt.ahead:
            begun += int(log_uniform(self._rng, *_AHEAD_MS, 1)[0])
        value = _value(
            self._ids.pop(), str(np.datetime64(begun, "ms")), session.tails[session.place]
        ).encode()
        record = Record(due, session.key, value)
        if dirt.ahead <= dice < dirt.ahead + dirt.malformed:
            return record._replace(value=spoiled(value, self._sent))
        if dice > 1 - dirt.duplicate:
            heapq.heappush(self._copies, (due + int(log_uniform(self._rng, *_COPY_MS, 1)[0]), record))
        return record


def _checked_rate(rate: float) -> float:
    if not 0 < rate < float("inf"):
        raise ValueError(
            f"rate {rate} found, wanted more than 0 records a second; to send none, stop the producer."
        )
    return rate


def write_jsonl(
    stream: BinaryIO, blocks: Iterable[Block], progress: Callable[[Block], None] | None = None
) -> int:
    """Write each value of `blocks` as a line; returns how many. `progress` is called after each block."""
    written = 0
    for block in blocks:
        if block.values:
            stream.write(b"\n".join(block.values) + b"\n")
        written += len(block)
        if progress is not None:
            progress(block)
    return written
