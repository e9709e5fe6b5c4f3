"""A play as a player sends it, and the event of the contract that it becomes.

Whatever the protocol, a `Heard` comes of it; only here it becomes an event. A bad length costs the
field, never the play.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from music_streaming.event import (
    DEVICE_TYPES,
    FIELDS,
    FIRST_TIME,
    INFERRED,
    MAX_MS,
    format_time,
    normalise,
    play_id,
)
from music_streaming.scrobble.directory import Player

FIRST_SECOND = 1_033_410_600
"""The oldest listened_at that ListenBrainz takes: some hours before the first time of the contract."""

AHEAD = timedelta(hours=1)
"""How far a player's clock may be ahead."""

_LIMITS = {one.name: one.limit for one in FIELDS}
_DEVICES = {name: name for name in DEVICE_TYPES} | {
    "browser": "web", "laptop": "desktop", "pc": "desktop", "phone": "mobile", "smartphone": "mobile",
}  # fmt: skip


class RefusedError(Exception):
    """A play or request that is refused; status is HTTP's, the text is for the player's owner."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.message, self.status = message, status


@dataclass(frozen=True)
class Heard:
    """One play, or with no start what is playing now. duration_ms: as sent, of any type.

    inferred: nobody has reported it (inferred.py).
    """

    title: str
    artist: str
    started: datetime | None = None
    album: str | None = None
    duration_ms: Any = None
    genre: str | None = None
    player: str | None = None
    skipped: bool | None = None
    liked: bool | None = None
    inferred: bool = False
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def milliseconds(self) -> int | None:
        """The length of the song, None where it is not known or makes no sense."""
        try:
            found = int(float(self.duration_ms))
        except (TypeError, ValueError, OverflowError):
            return None
        return found if 0 < found <= MAX_MS else None


def checked_text(sent: Any, name: str) -> str:
    """A title or artist as it is stored; RefusedError where the contract would reject it."""
    if not isinstance(sent, str):
        raise RefusedError(f"{name}: found {_kind(sent)}, wanted a text")
    text = normalise(sent)
    if "\0" in sent:
        raise RefusedError(f"{name}: found a NUL character, wanted a text without")
    if not text:
        raise RefusedError(f"{name}: found an empty text, wanted a name")
    try:
        length = len(text.encode())
    except UnicodeEncodeError:
        raise RefusedError(f"{name}: found half of a surrogate pair, wanted Unicode text") from None
    if length > _LIMITS["title"]:
        raise RefusedError(f"{name}: found {length} bytes, wanted at most {_LIMITS['title']}")
    return text


def started_at(sent: Any, name: str, now: datetime) -> datetime:
    """The start of a play from Unix seconds, as number or text; RefusedError where it cannot be one."""
    try:
        if isinstance(sent, bool):
            raise TypeError
        seconds = int(float(sent))
    except (TypeError, ValueError, OverflowError):
        raise RefusedError(f"{name}: found {_kind(sent)}, wanted Unix seconds, a whole number") from None
    if seconds < FIRST_SECOND:
        raise RefusedError(f"{name}: found {seconds}, wanted {FIRST_SECOND} (2002) or later")
    if seconds >= int((now + AHEAD).timestamp()):
        raise RefusedError(f"{name}: found {seconds}, wanted at most an hour from now; is its clock right?")
    return datetime.fromtimestamp(seconds, UTC)


def _kind(sent: Any) -> str:
    kinds = {dict: "an object", list: "a list", bool: "true or false", type(None): "nothing", int: "a number"}
    return kinds.get(type(sent), f"{str(sent)[:40]!r}")


def event_of(heard: Heard, player: Player, now: datetime) -> tuple[bytes, bytes]:
    """Key and value of the record: the same event_id whenever the same play is sent again.

    A start that is ahead of `now` (or before the contract's first time) is moved there, as the job would
    reject it; the id is of what was sent.
    """
    if heard.started is None:
        raise ValueError("what is playing now is no play")
    listener = player.listener
    event = {
        "event_id": play_id(listener.name, heard.started, heard.artist, heard.title),
        "event_time": format_time(max(FIRST_TIME, min(heard.started, now))),
        "source": "scrobble",
        "user_id": listener.name,
        "title": heard.title,
        "artist": heard.artist,
        "album": heard.album,
        "genre": heard.genre,
        "duration_ms": heard.milliseconds,
        "skipped": heard.skipped,
        "liked": heard.liked,
        "subscription_type": listener.subscription_type,
        "age_group": listener.age_group,
        "country": listener.country,
        "device_type": _DEVICES.get(player.player.lower()),
        "player": heard.player or player.player,
        "reason_end": INFERRED if heard.inferred else None,
    }
    value = {name: one for name, one in event.items() if one is not None}
    return listener.name.encode(), json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
