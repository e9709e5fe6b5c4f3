"""The contract of an event: one play, as compact JSON in Kafka, key = user_id.

Everything that sends events (producer, scrobble server, importers) and the job that reads them take fields,
limits, vocabularies and reasons from here. `parse_event` says of any bytes what play they are or why they are
none; `read` says what one field is stored as. docs/contract.md has a row for each shape.

- Only what makes no play is a reject: bytes that are no JSON object, and event_id, event_time, source,
  user_id, title or artist missing or bad. A bad optional field is stored as unknown, and counted as a flaw.
- A number or boolean is read by its text: 1999 is the title "1999", "180000" and 180000.0 are the integer
  180000, 1 is true. A list of one value is that value.
- event_time: RFC 3339 with any offset (`Z`, `+02:00`); stored in UTC, cut to milliseconds. A leap second is
  malformed.
- title, artist, album, genre, os and player become NFC, trimmed of Unicode white space and without
  zero-width spaces and byte order marks; limits hold for what is stored. Joiners stay, as some scripts and
  emoji need them, but make no other song. Ids and reasons are opaque: stored as sent. Empty means missing.
- An event longer than 64 KiB is too long, whatever is in it.
"""

import json
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID, uuid5

from music_streaming.country import COUNTRIES, UNKNOWN_CODE, region_of

UNKNOWN = "unknown"
SOURCES = ("demo", "scrobble", "import")
SUBSCRIPTION_TYPES = ("free", "premium", "family", "student")
AGE_GROUPS = ("<18", "18-24", "25-34", "35-44", "45-54", "55-64", "65+")
DEVICE_TYPES = ("mobile", "tablet", "desktop", "web", "speaker", "tv", "car", "console")

FIRST_TIME = datetime(2002, 10, 1, tzinfo=UTC)
MAX_MS = 2_073_600_000
SAME_PLAY_MS = 30_000
INFERRED = "inferred"
"""reason_end of a play that no player has reported: it was playing, and for long enough."""


@dataclass(frozen=True)
class Field:
    """One field of the event as sent.

    kind: uuid, time, id, text, name, integer, boolean or vocabulary. limit: bytes of UTF-8 as stored.
    default: stored where it is missing or bad.
    """

    name: str
    kind: str
    required: bool = False
    limit: int = 0
    vocabulary: tuple[str, ...] = ()
    default: str | None = None


FIELDS = (
    Field("event_id", "uuid", required=True),
    Field("event_time", "time", required=True),
    Field("source", "vocabulary", required=True, vocabulary=SOURCES),
    Field("user_id", "id", required=True, limit=128),
    Field("session_id", "id", limit=128),
    Field("song_id", "id", limit=128),
    Field("title", "text", required=True, limit=1024),
    Field("artist", "text", required=True, limit=1024),
    Field("album", "text", limit=1024),
    Field("genre", "text", limit=128, default=UNKNOWN),
    Field("duration_ms", "integer"),
    Field("listened_ms", "integer"),
    Field("skipped", "boolean"),
    Field("liked", "boolean"),
    Field("completed", "boolean"),
    Field("subscription_type", "vocabulary", vocabulary=SUBSCRIPTION_TYPES, default=UNKNOWN),
    Field("age_group", "vocabulary", vocabulary=AGE_GROUPS, default=UNKNOWN),
    Field("country", "vocabulary", vocabulary=tuple(COUNTRIES), default=UNKNOWN_CODE),
    Field("device_type", "vocabulary", vocabulary=DEVICE_TYPES, default=UNKNOWN),
    Field("os", "name", limit=64, default=UNKNOWN),
    Field("player", "name", limit=64, default=UNKNOWN),
    Field("reason_start", "id", limit=32),
    Field("reason_end", "id", limit=32),
)
FIELD_NAMES = tuple(field.name for field in FIELDS)
PLAY_COLUMNS = (*FIELD_NAMES, "region")
"""What is stored of a play."""

# Smallest allowed value; the largest is MAX_MS for both.
INTEGERS = {"duration_ms": 1, "listened_ms": 0}

# Why an event is rejected, with what the word means.
REASONS = {
    "not_utf8": "the bytes are not UTF-8",
    "not_json": "not exactly one JSON object",
    "lone_surrogate": "half of a surrogate pair, which no text can hold",
    "wrong_type": "a needed field is an object, or a list of other than one value",
    "missing": "a needed field is absent, null or empty",
    "malformed": "event_id is no UUID, or event_time no RFC 3339 time",
    "unknown_source": "source is not demo, scrobble or import",
    "out_of_range": "event_time before the first one allowed",
    "in_future": "event_time further ahead than the tolerance",
    "nul": "a NUL character in a needed text",
    "too_long": "a needed text longer than its limit, or the event longer than 64 KiB",
}

# Why an optional field of a play is stored as unknown though something was sent.
FLAWS = {
    "wrong_type": "no sensible reading: an object, a longer list, or a text that is no number or boolean",
    "out_of_range": "a number outside its limits",
    "not_in_vocabulary": "none of the words that the field knows",
    "lone_surrogate": "half of a surrogate pair, which no text can hold",
    "nul": "a NUL character",
    "too_long": "longer than its limit",
}

MAX_BYTES = 65_536
"""Longest event."""

RAW_LIMIT = 8192
"""Bytes of a rejected event that are kept."""

# As their makers write them; whatever else is sent stays as it is.
SYSTEMS = ("Android", "ChromeOS", "FreeBSD", "HarmonyOS", "iOS", "iPadOS", "Linux", "macOS", "tvOS",
           "visionOS", "watchOS", "webOS", "Windows")  # fmt: skip

_UUID = re.compile("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.IGNORECASE | re.ASCII)
_TIME = re.compile(r"(?!0000)\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:[0-5]\d)", re.ASCII)
_NAMESPACE = UUID("8a5f3c1e-6f0b-4d57-9b43-2f6f0f6f5a11")


def normalise(text: str) -> str:
    """Text as it is stored: NFC, trimmed, without zero-width spaces and byte order marks."""
    # Most of a catalogue is ASCII, in which there is nothing but white space to take off.
    if text.isascii():
        return text.strip()
    return unicodedata.normalize("NFC", text.translate(_ZERO_WIDTH).strip())


_ZERO_WIDTH = dict.fromkeys(map(ord, "\u200b\u2060\ufeff"))
_JOINERS = dict.fromkeys(map(ord, "\u200c\u200d"))


def song_id(artist: str, title: str) -> str:
    """The id of a song without one: UUIDv5 of artist and title (both normalised), whatever their case."""
    key = f"song\x1f{artist.casefold()}\x1f{title.casefold()}"
    return str(uuid5(_NAMESPACE, key.translate(_JOINERS)))


def play_id(user_id: str, event_time: datetime, artist: str, title: str) -> str:
    """The event_id of a real play, a UUIDv5: the same when it is sent again, scrobbled or imported.

    Of the listener, the whole second in which it began, and the song.
    """
    song = song_id(normalise(artist), normalise(title))
    return str(uuid5(_NAMESPACE, f"play\x1f{user_id}\x1f{int(event_time.timestamp())}\x1f{song}"))


def same_play_ms(duration_ms: int | None) -> int:
    """How far apart two reports of one play may begin: 30 s, at most the length of the song."""
    return min(SAME_PLAY_MS, duration_ms) if duration_ms else SAME_PLAY_MS


def reported_twice(play: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two reports of a listener and song with other event_ids are one play (docs/contract.md)."""
    elsewhere = (play["source"], play["player"]) != (other["source"], other["player"])
    # Nobody reported it: the player's own report may differ, too.
    elsewhere = elsewhere or INFERRED in (play["reason_end"], other["reason_end"])
    apart: timedelta = abs(play["event_time"] - other["event_time"])
    return elsewhere and apart <= timedelta(milliseconds=same_play_ms(play["duration_ms"]))


def format_time(moment: datetime) -> str:
    """RFC 3339 in UTC with milliseconds, as event_time is sent."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def parse_time(text: str) -> datetime | None:
    """The moment of an RFC 3339 time in UTC, cut to milliseconds; None if it is none."""
    if not _TIME.fullmatch(text):
        return None
    # From hour 24, or an offset that no zone has, fromisoformat makes its own sense.
    if text[11:13] == "24" or (text[-1] not in "Zz" and text[-5:] > "18:00"):
        return None
    try:
        moment = datetime.fromisoformat(text.upper()).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


class Rejected(Exception):  # noqa: N818  it is an outcome, not a fault
    """Why an event is refused: a key of REASONS, and the field where one is to blame.

    due: when an event that is in the future is to be judged again.
    """

    def __init__(self, reason: str, field: str | None = None, due: datetime | None = None) -> None:
        super().__init__(reason, field)
        self.reason, self.field, self.due = reason, field, due


class Flaw(NamedTuple):
    """An optional field that was sent and is stored as unknown; reason is a key of FLAWS."""

    field: str
    reason: str


class Parsed(NamedTuple):
    """A play as stored (a value for each of PLAY_COLUMNS), and what was left out of it."""

    play: dict[str, Any]
    flaws: tuple[Flaw, ...]


class Reading(NamedTuple):
    """What a field is stored as; None is missing. reason: why a value that was sent is not stored."""

    stored: Any
    reason: str | None = None


def parse_event(value: bytes, arrival: datetime, tolerance: timedelta = timedelta(minutes=5)) -> Parsed:
    """The play that the bytes are. Rejected if they are none.

    arrival: when Kafka got it; an event_time more than tolerance later is in the future.
    """
    event = _decode(value)
    play: dict[str, Any] = {}
    flaws = []
    for field in FIELDS:
        stored, reason = read(field, event.get(field.name))
        if field.required and stored is None:
            raise Rejected(reason or "missing", field.name)
        if reason is not None:
            flaws.append(Flaw(field.name, reason))
        play[field.name] = field.default if stored is None else stored
    if play["event_time"] > arrival + tolerance:
        raise Rejected("in_future", "event_time", play["event_time"])
    if play["song_id"] is None:
        play["song_id"] = song_id(play["artist"], play["title"])
    if play["completed"] is None and None not in (play["duration_ms"], play["listened_ms"]):
        play["completed"] = play["listened_ms"] * 10 >= play["duration_ms"] * 9
    play["region"] = region_of(play["country"])
    return Parsed(play, tuple(flaws))


def _decode(value: bytes) -> dict[str, Any]:
    if len(value) > MAX_BYTES:
        raise Rejected("too_long")
    try:
        # Numbers stay the text that was sent.
        event = json.loads(value.decode(), parse_int=str, parse_float=str, parse_constant=_refuse)
    except UnicodeDecodeError:
        raise Rejected("not_utf8") from None
    except (ValueError, RecursionError):
        raise Rejected("not_json") from None
    if not isinstance(event, dict):
        raise Rejected("not_json")
    return event


def _refuse(constant: str) -> None:
    raise ValueError(constant)


def read(field: Field, sent: Any) -> Reading:
    """What a field is stored as. sent: its text (a number's or boolean's too), or what JSON made of it."""
    while isinstance(sent, list) and len(sent) == 1:
        (sent,) = sent
    if isinstance(sent, bool):
        sent = "true" if sent else "false"
    if sent is None:
        return Reading(None)
    if not isinstance(sent, str):
        return Reading(None, "wrong_type")
    return _READERS[field.kind](field, sent)


def _text(field: Field, sent: str) -> Reading:
    if _SURROGATE.search(sent):
        return Reading(None, "lone_surrogate")
    if "\0" in sent:
        return Reading(None, "nul")
    text = sent if field.kind == "id" else normalise(sent)
    if field.name == "genre":
        text = normalise(text.lower())
    elif field.name == "os":
        text = _SYSTEMS.get(text.lower(), text)
    if not text.translate(_JOINERS).strip() or (field.default is not None and text.lower() == field.default):
        return Reading(None)
    if len(text.encode()) > field.limit:
        return Reading(None, "too_long")
    return Reading(text)


_SURROGATE = re.compile("[\ud800-\udfff]")
_SYSTEMS = {name.lower(): name for name in SYSTEMS}


def _vocabulary(field: Field, sent: str) -> Reading:
    if field.name == "source":
        known = sent in SOURCES
        return Reading(sent) if known else Reading(None, "unknown_source" if sent else None)
    word = sent.strip()
    word = word.upper() if field.name == "country" else word.lower()
    if word in field.vocabulary:
        return Reading(word)
    return Reading(None, None if word in ("", field.default) else "not_in_vocabulary")


def _integer(field: Field, sent: str) -> Reading:
    number = _number(sent)
    if number is None:
        return Reading(None, "wrong_type" if sent.strip() else None)
    if not INTEGERS[field.name] <= number <= MAX_MS:
        return Reading(None, "out_of_range")
    return Reading(int(number))


def _number(sent: str) -> float | None:
    # Exact for all that lies within the limits; 1e999 is infinite, and so out of range.
    return float(sent) if _NUMBER.fullmatch(sent.strip()) else None


_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?([eE][+-]?\d+)?", re.ASCII)
_BOOLEANS = {"true": True, "false": False}


def _boolean(field: Field, sent: str) -> Reading:
    word = sent.strip().lower()
    if word in _BOOLEANS:
        return Reading(_BOOLEANS[word])
    number = _number(word)
    if number in (0, 1):
        return Reading(number == 1)
    return Reading(None, "wrong_type" if word else None)


def _uuid(field: Field, sent: str) -> Reading:
    text = sent.strip()
    if not text:
        return Reading(None)
    return Reading(text.lower()) if _UUID.fullmatch(text) else Reading(None, "malformed")


def _time(field: Field, sent: str) -> Reading:
    text = sent.strip()
    if not text:
        return Reading(None)
    moment = parse_time(text)
    if moment is None:
        return Reading(None, "malformed")
    return Reading(moment) if moment >= FIRST_TIME else Reading(None, "out_of_range")


_READERS: dict[str, Callable[[Field, str], Reading]] = {
    "uuid": _uuid,
    "time": _time,
    "id": _text,
    "text": _text,
    "name": _text,
    "integer": _integer,
    "boolean": _boolean,
    "vocabulary": _vocabulary,
}
