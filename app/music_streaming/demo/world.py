"""A world of listeners and what they play: its history, in blocks of an hour.

The same seed, sizes and version give the same bytes on any day and machine (only a live play's event_id is
random). What there is to play is in `catalogue`, who plays in `listeners`, when in `sessions`, what in
`plays`, what goes wrong on the way in `arrivals`; here plays become records as they would arrive.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np

from music_streaming.demo.arrivals import AHEAD_MS, COPY_MS, USUAL, Arrivals, BadData, joined, offline
from music_streaming.demo.catalogue import LOCALES
from music_streaming.demo.catalogue import build as build_catalogue
from music_streaming.demo.listeners import build as build_listeners
from music_streaming.demo.plays import Charts, Plays, plays
from music_streaming.demo.records import Block, event_ids, spoiled, tails, times, value
from music_streaming.demo.rng import generator, log_uniform
from music_streaming.demo.sessions import DAY_MS, HOUR_MS, Sessions, begun_on

VERSION = 4  # goes up with every change of what a seed gives
# Measured: plays for each session that a listener is inclined to (some would overlap and are dropped), and
# plays a listener and day.
_PLAYS_A_SESSION, _PLAYS_A_DAY = 11.2, 17.9


class Recorder(Protocol):
    """Who keeps account of what was generated (`expected.ExpectedMetrics`)."""

    def add(self, arrivals: Arrivals) -> None: ...


class World:
    """A catalogue and a population, built in about two seconds.

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
        bad_data: BadData = USUAL,
        recorder: Recorder | None = None,
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
        for arrivals in self.arrivals(start_ms, start_ms, end_ms, bad_data):
            if since_ms is not None:
                arrivals = arrivals.take(arrivals.plays.start_ms >= since_ms)  # noqa: PLW2901
            if recorder is not None:
                recorder.add(arrivals)
            ids = event_ids(arrivals.high, arrivals.low, version=8)
            yield Block(*self.written(arrivals, ids))

    def arrivals(
        self, begin_ms: int, start_ms: int, end_ms: int | None, bad_data: BadData, *, at_start: bool = False
    ) -> Iterator[Arrivals]:
        """Arrivals by hour, of sessions begun from `begin_ms` on; only those due in [start, end).

        `at_start`: a play is reported as it starts, not when it ends.
        """
        waiting: Arrivals | None = None
        hour = begin_ms
        while end_ms is None or hour < end_ms:
            begun = self._sent(hour, bad_data, end_ms, at_start)
            waiting = begun if waiting is None else joined(waiting, begun)
            until = hour + HOUR_MS
            due = waiting.due_ms < until
            ready = waiting.take(due)
            waiting = waiting.take(~due)
            ready = ready.take(np.argsort(ready.due_ms, kind="stable"))
            if hour < start_ms:
                ready = ready.take(ready.due_ms >= start_ms)
            if until > start_ms:
                yield ready
            hour = until

    def _sent(self, hour_ms: int, bad_data: BadData, end_ms: int | None, at_start: bool) -> Arrivals:
        """The plays of the sessions begun within the hour, with all that happens to them on the way."""
        day, hour = hour_ms // DAY_MS, hour_ms // HOUR_MS
        sessions = self._begun_within(hour_ms)
        rng = generator(self.seed, 6, hour)
        played = plays(rng, self.listeners, self.charts(day), sessions)
        size = len(played.song)
        high, low = (rng.integers(0, 1 << 64, size, dtype=np.uint64) for _ in range(2))
        due = played.start_ms + rng.integers(120, 1_500, size)
        if not at_start:
            due = due + played.listened_ms
        # Bad data is drawn apart from the plays: without it they are the same.
        rng = generator(self.seed, 7, hour)
        played, delay = offline(rng, played, self.listeners.devices, bad_data.late)
        due = due + delay
        ahead = np.where(rng.random(size) < bad_data.ahead, log_uniform(rng, *AHEAD_MS, size), 0)
        # Beyond a history's end a date would be a reject or not, depending on when it is read.
        if end_ms is not None:
            ahead[played.start_ms + ahead >= end_ms] = 0
        played = played._replace(start_ms=played.start_ms + ahead)
        malformed = rng.random(size) < bad_data.malformed
        sent = Arrivals(played, due, np.zeros(size, dtype=np.int64), malformed.astype(np.int64), high, low)
        again = np.flatnonzero((rng.random(size) < bad_data.duplicate) & ~malformed)
        if not len(again):
            return sent
        copies = sent.take(again)
        later = copies.due_ms + log_uniform(rng, *COPY_MS, len(again))
        return joined(sent, copies._replace(due_ms=later, copy=np.ones(len(again), dtype=np.int64)))

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

    def written(self, arrivals: Arrivals, ids: list[str]) -> tuple[list[int], list[bytes], list[bytes]]:
        """Due times, keys and values of `arrivals`."""
        rows = arrivals.plays
        texts = map(value, ids, times(rows.start_ms), self.tails(rows))
        values = "\n".join(texts).encode().split(b"\n") if ids else []
        for number in np.flatnonzero(arrivals.malformed).tolist():
            values[number] = spoiled(values[number], number)
        return arrivals.due_ms.tolist(), [self.key(listener) for listener in rows.listener.tolist()], values

    def key(self, listener: int) -> bytes:
        """The Kafka key of a listener's plays."""
        return self._keys[listener]

    def tails(self, rows: Plays) -> list[str]:
        """The JSON of plays from behind event_time on."""
        return tails(rows, self.catalogue.fragments, self.listeners.fragments)


def floor_hour(moment_ms: int) -> int:
    """The last whole hour before or at `moment_ms`."""
    return moment_ms // HOUR_MS * HOUR_MS
