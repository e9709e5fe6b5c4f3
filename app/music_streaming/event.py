"""The contract of an event: one play, as compact JSON in Kafka, key = user_id.

Everything that sends events (producer, scrobble server, importers) and the job that reads them take fields,
limits, vocabularies and reasons from here. `judge` is the law: it says of any bytes what play they are or why
they are none. query.py lets a record pass without it only where the outcome cannot be in doubt.

Decisions where the contract leaves room:
- event_time: RFC 3339 with any offset (`Z`, `+02:00`); stored in UTC, cut to milliseconds. A leap second is
  malformed.
- JSON types are strict: "true" is no boolean, 1.0 no integer, 1999 no title. In a field with a vocabulary
  anything unknown, whatever its type, means `unknown`, since the play itself is good.
- Text is trimmed of Unicode white space; empty means missing. title, artist, album, genre, os and player
  become NFC; limits hold for what is stored. Ids and reasons are opaque: stored as sent.
- An event longer than 64 KiB is too long, whatever is in it.
"""

import json
import re
import unicodedata
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid5

from music_streaming.country import COUNTRIES, UNKNOWN_CODE, region_of

UNKNOWN = "unknown"
SOURCES = ("demo", "scrobble", "import")
SUBSCRIPTION_TYPES = ("free", "premium", "family", "student")
AGE_GROUPS = ("<18", "18-24", "25-34", "35-44", "45-54", "55-64", "65+")
DEVICE_TYPES = ("mobile", "tablet", "desktop", "web", "speaker", "tv", "car", "console")

FIRST_TIME = datetime(2002, 10, 1, tzinfo=UTC)
MAX_MS = 2_073_600_000


@dataclass(frozen=True)
class Field:
    """One field of the event as sent.

    kind: uuid, time, id, text, name, integer, boolean or vocabulary. limit: bytes of UTF-8 as stored; a
    longer id or text is a reject, a longer name is `unknown`. default: stored where it is missing.
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
"""What is stored of a play: `judge` and query.plays give exactly these."""

# Smallest allowed value; the largest is MAX_MS for both.
INTEGERS = {"duration_ms": 1, "listened_ms": 0}

# Why an event is rejected, with what the word means.
REASONS = {
    "not_utf8": "the bytes are not UTF-8",
    "not_json": "not exactly one JSON object",
    "lone_surrogate": "half of a surrogate pair, which no text can hold",
    "wrong_type": "a field has another JSON type",
    "missing": "a needed field is absent, null or empty",
    "malformed": "event_id is no UUID, or event_time no RFC 3339 time",
    "unknown_source": "source is not demo, scrobble or import",
    "out_of_range": "a number or time outside its limits",
    "in_future": "event_time further ahead than the tolerance",
    "nul": "a NUL character in a text",
    "too_long": "a text longer than its limit",
}

MAX_BYTES = 65_536
"""Longest event."""

RAW_LIMIT = 8192
"""Bytes of a rejected event that are kept."""

_UUID = re.compile("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.IGNORECASE | re.ASCII)
_TIME = re.compile(r"(?!0000)\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_NAMESPACE = UUID("8a5f3c1e-6f0b-4d57-9b43-2f6f0f6f5a11")


def normalise(text: str) -> str:
    """Text as it is stored: trimmed and NFC."""
    return unicodedata.normalize("NFC", text.strip())


def song_id(artist: str, title: str) -> str:
    """The id of a song without one: UUIDv5 of artist and title (both normalised), whatever their case."""
    return str(uuid5(_NAMESPACE, f"song\x1f{artist.casefold()}\x1f{title.casefold()}"))


def play_id(source: str, user_id: str, event_time: datetime, artist: str, title: str) -> str:
    """The event_id of a scrobbled or imported play, a UUIDv5: the same when it is sent again."""
    identity = (source, user_id, format_time(event_time), normalise(artist), normalise(title))
    return str(uuid5(_NAMESPACE, "\x1f".join(("play", *identity))))


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


def window_start(moment: datetime, width: timedelta) -> datetime:
    """Start of the window that a moment falls in; windows are counted from 1970 in UTC."""
    return moment - (moment - _EPOCH) % width


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Rejected(Exception):  # noqa: N818  it is an outcome, not a fault
    """Why an event is refused: a key of REASONS, and the field where one is to blame."""

    def __init__(self, reason: str, field: str | None = None) -> None:
        super().__init__(reason, field)
        self.reason, self.field = reason, field


def judge(value: bytes, arrival: datetime, tolerance: timedelta = timedelta(minutes=5)) -> dict[str, Any]:
    """The play that the bytes are, as stored: a value for each of PLAY_COLUMNS. Rejected if they are none.

    arrival: when Kafka got it; an event_time more than tolerance later is in the future.
    """
    event = _decode(value)
    play: dict[str, Any] = {}
    for field in FIELDS:
        stored = _READERS[field.kind](field, event.get(field.name))
        if stored is None and field.required:
            raise Rejected("missing", field.name)
        play[field.name] = field.default if stored is None else stored
    if play["event_time"] > arrival + tolerance:
        raise Rejected("in_future", "event_time")
    if play["song_id"] is None:
        play["song_id"] = song_id(play["artist"], play["title"])
    if play["completed"] is None and None not in (play["duration_ms"], play["listened_ms"]):
        play["completed"] = play["listened_ms"] * 10 >= play["duration_ms"] * 9
    play["region"] = region_of(play["country"])
    return play


def _decode(value: bytes) -> dict[str, Any]:
    if len(value) > MAX_BYTES:
        raise Rejected("too_long")
    try:
        event = json.loads(value.decode(), parse_constant=_refuse)
    except UnicodeDecodeError:
        raise Rejected("not_utf8") from None
    except (ValueError, RecursionError):
        raise Rejected("not_json") from None
    if not isinstance(event, dict):
        raise Rejected("not_json")
    return event


def _refuse(constant: str) -> None:
    raise ValueError(constant)


def _text(field: Field, value: Any) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise Rejected("wrong_type", field.name)
    if _SURROGATE.search(value):
        raise Rejected("lone_surrogate", field.name)
    if "\0" in value:
        raise Rejected("nul", field.name)
    text = value if field.kind == "id" else normalise(value)
    if len(text.encode()) > field.limit:
        raise Rejected("too_long", field.name)
    if field.default is not None and text.lower() == field.default:
        return None
    return text if text.strip() else None


_SURROGATE = re.compile("[\ud800-\udfff]")


def _name(field: Field, value: Any) -> str | None:
    try:
        return _text(field, value)
    except Rejected:
        return None


def _vocabulary(field: Field, value: Any) -> str | None:
    if field.name == "source":
        if value in (None, ""):
            return None
        if value not in SOURCES:
            raise Rejected("unknown_source", "source")
        return str(value)
    if not isinstance(value, str):
        return None
    word = value.strip()
    word = word.upper() if field.name == "country" else word.lower()
    return word if word in field.vocabulary else None


def _integer(field: Field, value: Any) -> int | None:
    if value is None:
        return None
    if type(value) is not int:
        raise Rejected("wrong_type", field.name)
    if not INTEGERS[field.name] <= value <= MAX_MS:
        raise Rejected("out_of_range", field.name)
    return value


def _boolean(field: Field, value: Any) -> bool | None:
    if not isinstance(value, bool | None):
        raise Rejected("wrong_type", field.name)
    return value


def _uuid(field: Field, value: Any) -> str | None:
    if value in (None, ""):
        return None
    if not isinstance(value, str) or not _UUID.fullmatch(value.strip()):
        raise Rejected("malformed", field.name)
    return value.strip().lower()


def _time(field: Field, value: Any) -> datetime | None:
    if value in (None, ""):
        return None
    moment = parse_time(value.strip()) if isinstance(value, str) else None
    if moment is None:
        raise Rejected("malformed", field.name)
    if moment < FIRST_TIME:
        raise Rejected("out_of_range", field.name)
    return moment


_READERS = {
    "uuid": _uuid,
    "time": _time,
    "id": _text,
    "text": _text,
    "name": _name,
    "integer": _integer,
    "boolean": _boolean,
    "vocabulary": _vocabulary,
}
