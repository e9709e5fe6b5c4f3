"""What happens to plays on their way: phones without a network, retries, wrong clocks, broken values."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from music_streaming.demo.plays import Plays
from music_streaming.demo.rng import Ints, log_uniform
from music_streaming.demo.sessions import DAY_MS

LATE_MS = 15 * 60_000, 3 * DAY_MS  # how long a phone is offline
COPY_MS = 1_000, 120_000  # how long until a retry sends the same record again
AHEAD_MS = 6 * 60_000, 2 * DAY_MS  # how far a wrong clock is ahead


class BadData(NamedTuple):
    """What goes wrong on the way, as fractions of plays (0..1).

    `late`: the phone was offline, the whole session arrives 15 minutes to 3 days late. `duplicate`: the
    record arrives twice. `malformed`: the value breaks a rule of the contract. `ahead`: the device's clock is
    6 minutes to 2 days ahead.
    """

    late: float = 0.02
    duplicate: float = 0.001
    malformed: float = 0.0005
    ahead: float = 0.0002


USUAL, CLEAN = BadData(), BadData(0, 0, 0, 0)


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


def joined(one: Arrivals, other: Arrivals) -> Arrivals:
    """The rows of both, those of `one` first."""
    both = Plays(*(np.concatenate(columns) for columns in zip(one.plays, other.plays, strict=True)))
    return Arrivals(both, *(np.concatenate(columns) for columns in zip(one[1:], other[1:], strict=True)))


def offline(rng: np.random.Generator, rows: Plays, devices: Ints, late: float) -> tuple[Plays, Ints]:
    """Plays and delays in ms, after some sessions went to phones without a network that report later."""
    sessions = int(rows.session.max(initial=-1)) + 1
    chosen, delays = rng.random(sessions) < late, log_uniform(rng, *LATE_MS, sessions)
    offline = chosen[rows.session]
    return (
        rows._replace(device=np.where(offline, devices[rows.listener, 0], rows.device)),
        np.where(offline, delays[rows.session], 0),
    )
