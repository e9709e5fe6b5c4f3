"""Plays: what listeners choose in their sessions, on what device, and how long they stand it.

Attention (Lamere, "The Skip", 2014): 24 % of plays are skipped within 5 s, 35 % within 30 s, 48.6 % before
the end; more at weekends, more on phones than at desks.
Choice (Louail & Barthelemy, arXiv 1704.05815): people repeat more than they discover.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import numpy as np

from music_streaming.demo.catalogue import FRESH_DAYS, Catalogue
from music_streaming.demo.listeners import Listeners
from music_streaming.demo.rng import Floats, Ints, find, halves, running, scatter
from music_streaming.demo.sessions import HOUR_MS, Sessions
from music_streaming.event import DEVICE_TYPES

# Which device by part of the day (rows: 05-10, 10-17, 17-23, 23-05; columns: DEVICE_TYPES).
_DEVICE_BY_PART = np.array([
    [1.50, 0.20, 0.25, 0.15, 0.45, 0.08, 0.90, 0.03],
    [1.00, 0.25, 1.20, 0.75, 0.35, 0.12, 0.35, 0.10],
    [0.80, 0.35, 0.40, 0.25, 1.10, 0.85, 0.35, 0.45],
    [1.10, 0.40, 0.35, 0.25, 0.60, 0.45, 0.10, 0.30],
])  # fmt: skip
_PART_OF_HOUR = np.array([3] * 5 + [0] * 5 + [1] * 7 + [2] * 6 + [3])

_FAVOURITES = 60  # depth of a listener's own history, in songs
_DISCOVERY_DAYS = 3  # a new favourite each three days
_SIMILAR = 0.11  # share of plays by the artist or of the genre of a favourite
_NEW_ROUND = 0.035, 0.075  # share of plays from the new releases: always, and more just after a release day

_SKIP_SCALE = 0.56  # makes 48.6 % of all plays end in a skip, limits of free listeners included
_SKIP_BY_DEVICE = np.array(
    [1.05, 1.0, 0.86, 0.9, 0.95, 0.9, 1.0, 0.95]
)  # Lamere: mobile 51.1 %, desktop 40.1 %
_SKIP_WEEKEND = 1.0, 1.08
_SKIP_STRANGE, _SKIP_OWN = 1.36, 0.86
_SKIP_5_S, _SKIP_30_S = 24.0 / 48.6, 35.05 / 48.6
_FREE_SKIPS, _FREE_SPAN_MS = 6, HOUR_MS

START_REASONS = ("clickrow", "playbtn", "appload", "trackdone", "fwdbtn")
END_REASONS = ("trackdone", "fwdbtn", "endplay", "logout")


class Plays(NamedTuple):
    """Plays as columns, by session; `device` indexes DEVICES, `subscription` SUBSCRIPTION_TYPES."""

    session: Ints  # running number within the batch
    listener: Ints
    session_start_ms: Ints
    song: Ints
    start_ms: Ints
    listened_ms: Ints
    device: Ints
    subscription: Ints
    skipped: Ints
    liked: Ints
    completed: Ints
    start_reason: Ints
    end_reason: Ints

    def take(self, chosen: Ints | np.ndarray) -> Plays:
        return Plays(*(column[chosen] for column in self))


class Charts:
    """What can be played on one UTC `day` (days since 1970): the songs that are out, and the new releases."""

    def __init__(self, catalogue: Catalogue, day: int) -> None:
        self.catalogue, self.day = catalogue, day
        age = catalogue.age_days(day)
        self.out = age >= 0
        self.cumulative = running(np.where(self.out, catalogue.weight, 0))
        fresh = self.out & (age < FRESH_DAYS) & (catalogue.weight > 0)
        self.fresh = np.flatnonzero(fresh)
        # Square root: new songs of less popular artists are played too.
        self.fresh_cumulative = running(np.sqrt(catalogue.weight[fresh]) * np.exp(-age[fresh] / 7.0))
        since_friday = (day - 1) % 7
        always, at_first = _NEW_ROUND
        self.fresh_share = (always + at_first * round(2.0**-since_friday, 6)) * (len(self.fresh) > 0)


def plays(rng: np.random.Generator, listeners: Listeners, charts: Charts, sessions: Sessions) -> Plays:
    """What is played in `sessions`, begun on the day of `charts`. Who has left plays nothing."""
    catalogue, day = charts.catalogue, charts.day
    subscription = listeners.subscriptions(day)[sessions.listener]
    sessions, subscription = sessions.take(subscription >= 0), subscription[subscription >= 0]
    # Songs that may fit in; a session of more skips than that ends earlier.
    room = np.minimum(sessions.length_ms // 80_000 + 5, 250)
    session = np.repeat(np.arange(len(room)), room)
    first = np.cumsum(room) - room
    count = len(session)
    listener = sessions.listener[session]

    song, own = _choice(rng, listeners, charts, listener, session)
    duration = catalogue.duration_ms[song]
    kind = _device_kind(rng, listeners, sessions)
    mood = _mood(listeners, sessions, kind)[session] * np.where(own, _SKIP_OWN, _SKIP_STRANGE)
    skipped = rng.random(count) < np.minimum(mood, 0.95)
    listened = np.where(skipped, _patience(rng.random(count), duration), duration)
    between = rng.integers(150, 1_200, count)
    _refuse_skips(skipped, listened, between, duration, first=first, room=room, free=subscription == 0)
    offset = _since_start(listened + between, first, session)
    kept = offset < sessions.length_ms[session]
    last = kept & ~np.append(kept[1:] & (session[1:] == session[:-1]), False)
    opening = np.diff(session, prepend=-1) > 0

    draw = rng.random(count)
    stopped = last & ~skipped & (draw < 0.3)
    listened = np.where(stopped, np.maximum((duration * (draw / 0.3)).astype(np.int64), 1_000), listened)
    start_reason, end_reason = _reasons(draw, skipped, stopped, opening)
    completed = listened * 10 >= duration * 9
    fond = np.where(own, 0.012, 0.035) * np.where(completed, 1.0, np.where(listened > 30_000, 0.25, 0.0))
    liked = rng.random(count) < fond

    columns = Plays(
        session=session,
        listener=listener,
        session_start_ms=sessions.start_ms[session],
        song=song,
        start_ms=sessions.start_ms[session] + offset,
        listened_ms=listened,
        device=listeners.devices[sessions.listener, kind][session],
        subscription=subscription[session],
        skipped=skipped.astype(np.int64),
        liked=liked.astype(np.int64),
        completed=completed.astype(np.int64),
        start_reason=start_reason,
        end_reason=end_reason,
    )
    return columns.take(kept)


def _mood(listeners: Listeners, sessions: Sessions, kind: Ints) -> Floats:
    """How inclined to skip each session is, before it is known what is played."""
    of_day = np.array(_SKIP_WEEKEND)[sessions.weekend]
    mood: Floats = _SKIP_SCALE * listeners.skipping[sessions.listener] * _SKIP_BY_DEVICE[kind] * of_day
    return mood


def _since_start(spent: Ints, first: Ints, session: Ints) -> Ints:
    """When each play begins, in ms since the start of its session."""
    offset: Ints = np.cumsum(spent) - spent
    return offset - offset[first][session]


def _reasons(
    draw: Floats, skipped: np.ndarray, stopped: np.ndarray, opening: np.ndarray
) -> tuple[Ints, Ints]:
    """Why each play began and ended: indices of START_REASONS and END_REASONS."""
    # A skip by choosing another song from a list instead of the button.
    chosen = skipped & (draw < 0.1)
    ended = np.where(skipped, np.where(chosen, 2, 1), np.where(stopped, np.where(draw < 0.06, 3, 2), 0))
    begun = np.where(draw < 0.5, 0, np.where(draw < 0.85, 1, 2))
    after = np.array([3, 4, 0, 0])[np.concatenate(([0], ended[:-1]))]
    return np.where(opening, begun, after), ended


def _choice(
    rng: np.random.Generator, listeners: Listeners, charts: Charts, listener: Ints, session: Ints
) -> tuple[Ints, np.ndarray]:
    """A song for each play, and whether it comes from the listener's own history.

    Own history is not stored but asked from a hash. Half of it are all-time favourites, half the
    favourites of late, of which
    a new one comes each few days; the n-th of both is played in proportion to 1/n. So a song is repeated
    by recency times frequency.
    """
    catalogue, count = charts.catalogue, len(listener)
    draw = rng.random(count)
    place = _PLACES[rng.integers(0, len(_PLACES), count)]
    lately = rng.random(count) < 0.5
    discoveries = (charts.day + listener % _DISCOVERY_DAYS) // _DISCOVERY_DAYS
    slot = np.where(lately, (1 << 40) + discoveries - place, place)
    in_genre, in_songs = halves(scatter(listeners.seed, listener, slot))
    own_song = find(catalogue.cumulative, _within(catalogue, _taste(listeners, listener, in_genre), in_songs))

    own_share = listeners.own[listener]
    own = draw < own_share
    similar = ~own & (draw < own_share + _SIMILAR)
    fresh = ~own & ~similar & (draw >= 1 - charts.fresh_share)
    total = charts.cumulative[-1]
    anywhere = rng.random(count)

    song = own_song.copy()
    by_artist = rng.random(count) < 0.4
    of_genre = catalogue.genre_range[catalogue.genre[own_song]]
    ranges = np.where(by_artist[:, None], catalogue.artist_range[own_song], of_genre)
    edges = np.concatenate(([0.0], charts.cumulative))
    low, high = edges[ranges[:, 0]], edges[ranges[:, 1]]
    song[similar] = find(charts.cumulative, (low + anywhere * (high - low))[similar])
    popular = ~own & ~similar & ~fresh
    song[popular] = find(charts.cumulative, anywhere[popular] * total)
    if fresh.any():
        song[fresh] = charts.fresh[
            find(charts.fresh_cumulative, anywhere[fresh] * charts.fresh_cumulative[-1])
        ]

    # Not out yet, or the very song that has just been played: take a popular one.
    again = np.append(False, (song[1:] == song[:-1]) & (session[1:] == session[:-1]))
    other = ~charts.out[song] | again
    song[other] = find(charts.cumulative, rng.random(count)[other] * total)
    return song, own & ~other


_PLACES = np.round(_FAVOURITES ** (np.arange(4096) / 4095)).astype(
    np.int64
)  # 1 .. 60, the n-th in proportion to 1/n


def _taste(listeners: Listeners, listener: Ints, draw: Floats) -> Ints:
    """Genre: half the time the first favourite, then the second and third, a fifth of the time any (-1)."""
    return np.where(
        draw < 0.8, listeners.taste[listener, np.searchsorted([0.5, 0.7], draw, side="right")], -1
    )


def _within(catalogue: Catalogue, genre: Ints, draw: Floats) -> Floats:
    """A place on the popularity scale within `genre`, or anywhere for -1."""
    edges = np.concatenate(([0.0], catalogue.cumulative))
    low = np.append(edges[catalogue.genre_range[:, 0]], 0.0)
    high = np.append(edges[catalogue.genre_range[:, 1]], edges[-1])
    places: Floats = low[genre] + draw * (high - low)[genre]
    return places


def _device_kind(rng: np.random.Generator, listeners: Listeners, sessions: Sessions) -> Ints:
    owned = listeners.devices[sessions.listener] >= 0
    weights = np.cumsum(owned * _DEVICE_BY_PART[_PART_OF_HOUR[sessions.local_hour]], axis=1)
    position = rng.random(len(weights)) * weights[:, -1]
    kinds: Ints = np.minimum((weights <= position[:, None]).sum(axis=1), len(DEVICE_TYPES) - 1)
    return kinds


def _patience(draw: Floats, duration: Ints) -> Ints:
    """Milliseconds listened before a skip: often below five seconds, at most nine tenths of the song."""
    early = 400 + draw / _SKIP_5_S * 4_600
    soon = 5_000 + (draw - _SKIP_5_S) / (_SKIP_30_S - _SKIP_5_S) * 25_000
    late = 30_000 + (draw - _SKIP_30_S) / (1 - _SKIP_30_S) * (duration * 0.9 - 30_001)
    return np.where(draw < _SKIP_5_S, early, np.where(draw < _SKIP_30_S, soon, late)).astype(np.int64)


def _refuse_skips(
    skipped: np.ndarray,
    listened: Ints,
    between: Ints,
    duration: Ints,
    *,
    first: Ints,
    room: Ints,
    free: np.ndarray,
) -> None:
    """Let free listeners hear out what they may not skip; changes `skipped` and `listened`."""
    many = np.add.reduceat(skipped, first, dtype=np.int64) > _FREE_SKIPS
    for number in np.flatnonzero(many & free).tolist():
        one = slice(int(first[number]), int(first[number] + room[number]))
        refused = one.start + _refused(skipped[one], listened[one], between[one], duration[one])
        skipped[refused], listened[refused] = False, duration[refused]


def _refused(skips: np.ndarray, listened: Ints, between: Ints, duration: Ints) -> Ints:
    """Which skips of one session a free listener does not get: there are six an hour."""
    recent: deque[int] = deque(maxlen=_FREE_SKIPS)
    refused, now = [], 0
    columns = (column.tolist() for column in (skips, listened, between, duration))
    for place, (skip, heard, pause, whole) in enumerate(zip(*columns, strict=True)):
        if skip and len(recent) == _FREE_SKIPS and now + heard - recent[0] < _FREE_SPAN_MS:
            refused.append(place)
            now += whole + pause
            continue
        if skip:
            recent.append(now + heard)
        now += heard + pause
    return np.array(refused, dtype=np.int64)
