"""What a parser yields: a play, or a row that is none and why. And how values of exports are read."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from music_streaming import event

REASONS = {
    "podcast": "an episode of a podcast",
    "audiobook": "a chapter of an audiobook",
    "video": "a video that is no music",
    "no_play": "an entry that is no play: a love, a song playing now, lyrics",
    "no_title": "no title",
    "no_artist": "no artist",
    "no_time": "no time, or none that can be read",
    "too_early": f"before {event.FIRST_TIME:%Y-%m-%d}",
    "in_future": "in the future",
    "bad_text": "a title or artist that is too long or no text",
    "malformed": "a row without the shape of its format",
    "broken": "the file is broken off or damaged: what follows cannot be read",
    "repeated": "the same play again in these files",
    "known": "in the tables already",
    "same_play": "the same play, known from another player or export",
}
"""Why a row of an export is not taken, with what the word means."""

SKIP_MS = 30_000
"""A play that was ended before is a skip, where an export says nothing else."""


@dataclass(slots=True)
class Play:
    """A play as an export has it, with names of the contract; None is unknown. started_ms: Unix time."""

    started_ms: int
    title: str
    artist: str
    album: str | None = None
    genre: str | None = None
    duration_ms: int | None = None
    listened_ms: int | None = None
    skipped: bool | None = None
    liked: bool | None = None
    completed: bool | None = None
    country: str | None = None
    device_type: str | None = None
    os: str | None = None
    player: str | None = None
    session_id: str | None = None
    reason_start: str | None = None
    reason_end: str | None = None


class Left(NamedTuple):
    """A row that is not taken: a key of REASONS, and what of the row helps to find it. Never an address."""

    reason: str
    example: str


Row = Play | Left


@dataclass(frozen=True)
class Reading:
    """What a parser is told. zone: of a clock that shows local time; now_ms: later is in the future."""

    now_ms: int
    zone: ZoneInfo | None = None

    @classmethod
    def at(cls, now: datetime, zone: ZoneInfo | None = None, tolerance_seconds: int = 300) -> Reading:
        """As of `now`, with the tolerance that the job has for clocks ahead of its own."""
        return cls(int((now + timedelta(seconds=tolerance_seconds)).timestamp() * 1000), zone)


_FIRST_MS = int(event.FIRST_TIME.timestamp() * 1000)
_FIELDS = {field.name: field for field in event.FIELDS}


def play(reading: Reading, started_ms: float | None, title: Any, artist: Any, **known: Any) -> Row:
    """The row as a Play whose title, artist and time the job will take, or why it is Left."""
    names = {}
    for name, value in (("title", title), ("artist", artist)):
        stored, reason = event.read(_FIELDS[name], value)
        if stored is None:
            return Left(f"no_{name}" if reason is None else "bad_text", example(artist, title))
        names[name] = stored
    if started_ms is None or not math.isfinite(started_ms):
        return Left("no_time", example(artist, title))
    if not _FIRST_MS <= started_ms <= reading.now_ms:
        early = started_ms < _FIRST_MS
        # A player whose clock was never set counts from 1970.
        reason = "no_time" if abs(started_ms) < YEAR_MS else "too_early" if early else "in_future"
        return Left(reason, example(artist, title, started_ms))
    return Play(int(started_ms), names["title"], names["artist"], **known)


YEAR_MS = 366 * 86_400_000


def example(artist: Any, title: Any, started_ms: float | None = None) -> str:
    """Artist and title, short, for a report."""
    when = ""
    if started_ms is not None and abs(started_ms) < 2**53:
        try:
            when = f"{datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=started_ms):%Y-%m-%d %H:%M} "
        except OverflowError:
            when = f"{started_ms:g} "
    return when + " - ".join(printable(value, 60) for value in (artist, title) if value is not None)


def printable(value: Any, most: int = 100) -> str:
    """The start of a value as text that any terminal can show."""
    shown = value if isinstance(value, str) else repr(value)
    shown = "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in shown[: most + 1]
    )
    return shown if len(shown) <= most else f"{shown[: most - 1]}…"


def text(value: Any) -> str | None:
    """A text that is not blank; None for anything else."""
    return value if isinstance(value, str) and value.strip() else None


def number(value: Any) -> float | None:
    """A finite number, or a text that is one; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def milliseconds(value: Any, factor: int = 1) -> int | None:
    """A length as the contract takes it, from one in units of `factor` ms; None where it makes no sense."""
    found = number(value)
    if found is None or not 0 <= found * factor <= event.MAX_MS:
        return None
    return int(found * factor)


def positive(value: Any, factor: int = 1) -> int | None:
    """The length of a song: not 0, which exports write where they do not know."""
    return milliseconds(value, factor) or None


def times(value: Any, factor: int) -> float | None:
    """A point in time in ms from one in units of `factor` ms."""
    found = number(value)
    return None if found is None else found * factor


def moment(value: Any, zone: ZoneInfo | None = None) -> float | None:
    """Unix ms of an ISO 8601 text or a datetime; one without an offset is of `zone` (default UTC)."""
    try:
        found = value if isinstance(value, datetime) else datetime.fromisoformat(value.strip())
        if found.tzinfo is None:
            found = found.replace(tzinfo=zone or UTC)
        return (found - _EPOCH) / _MILLISECOND
    except (AttributeError, TypeError, ValueError, OverflowError):
        return None


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


def is_skip(listened_ms: int | None, skipped: Any = None) -> bool | None:
    """Whether a play was skipped: what the export says, else whether it was short; None is unknown."""
    if isinstance(skipped, bool) and skipped:
        return True
    if listened_ms is not None:
        return listened_ms < SKIP_MS
    return skipped if isinstance(skipped, bool) else None
