"""The contract of an event: one play, as compact JSON in Kafka, key = user_id.

Everything that sends events (producer, scrobble server, importers) and the query that reads them take
fields, limits, vocabularies and reasons from here. `check` is the plain Python reading of the rules that
query.py applies in Spark; a test compares the two.

Decisions where the contract leaves room:
- event_time: RFC 3339 with any offset (`Z`, `+02:00`); stored in UTC, cut to milliseconds. A leap second is
  malformed.
- JSON types are strict: "true" is no boolean, 1.0 no integer, 1999 no title. In a field with a vocabulary
  anything unknown, whatever its type, means `unknown`, since the play itself is good.
- Text is trimmed of Unicode white space; empty means missing. title, artist, album and genre become NFC, and
  their limits hold for what is stored. Ids are opaque: never normalised.
"""

import re
import sys
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

    kind: text, integer, boolean, uuid, time or vocabulary. limit: bytes of UTF-8 for text, else None.
    """

    name: str
    kind: str
    required: bool = False
    limit: int | None = None
    vocabulary: tuple[str, ...] = ()
    nfc: bool = False


FIELDS = (
    Field("event_id", "uuid", required=True),
    Field("event_time", "time", required=True),
    Field("source", "vocabulary", required=True, vocabulary=SOURCES),
    Field("user_id", "text", required=True, limit=128),
    Field("session_id", "text", limit=128),
    Field("song_id", "text", limit=128),
    Field("title", "text", required=True, limit=1024, nfc=True),
    Field("artist", "text", required=True, limit=1024, nfc=True),
    Field("album", "text", limit=1024, nfc=True),
    Field("genre", "text", limit=128, nfc=True),
    Field("duration_ms", "integer"),
    Field("listened_ms", "integer"),
    Field("skipped", "boolean"),
    Field("liked", "boolean"),
    Field("completed", "boolean"),
    Field("subscription_type", "vocabulary", vocabulary=SUBSCRIPTION_TYPES),
    Field("age_group", "vocabulary", vocabulary=AGE_GROUPS),
    Field("country", "vocabulary", vocabulary=tuple(COUNTRIES)),
    Field("device_type", "vocabulary", vocabulary=DEVICE_TYPES),
    # A name of an operating system or player that is too long is unknown, not a reason to lose the play.
    Field("os", "vocabulary", limit=64),
    Field("player", "vocabulary", limit=64),
    Field("reason_start", "text", limit=32),
    Field("reason_end", "text", limit=32),
)
FIELD_NAMES = tuple(field.name for field in FIELDS)
TEXTS = tuple(field for field in FIELDS if field.kind == "text")
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

RAW_LIMIT = 8192
"""Bytes of a rejected event that are kept."""

WHITESPACE = "".join(chr(code) for code in range(sys.maxunicode + 1) if chr(code).isspace())

UUID_PATTERN = "^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$"
TIME_PATTERN = (
    r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?([Zz]|[+-][0-9]{2}:[0-9]{2})$"
)

_NAMESPACE = UUID("8a5f3c1e-6f0b-4d57-9b43-2f6f0f6f5a11")


def normalise(text: str, *, nfc: bool = True) -> str:
    """Text as it is stored: trimmed, and NFC unless it is an opaque id."""
    stripped = text.strip()
    return unicodedata.normalize("NFC", stripped) if nfc else stripped


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
    if not re.match(TIME_PATTERN, text):
        return None
    try:
        # From 24:00 or an offset beyond what a time zone can have, fromisoformat makes its own sense.
        if text[11:13] == "24" or (text[-1] not in "Zz" and text[-5:] > "18:00"):
            return None
        moment = datetime.fromisoformat(text.upper()).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


@dataclass(frozen=True)
class Reject:
    """Why an event is refused: a key of REASONS, and the field where one is to blame."""

    reason: str
    field: str | None = None


def check(event: dict[str, Any], now: datetime, tolerance: timedelta = timedelta(minutes=5)) -> Reject | None:
    """Judge a decoded event as of now; None means accepted, else the first rule that it breaks."""
    for rule in (_surrogate, _types, _missing, _malformed, _ranges, _texts):
        if reject := rule(event):
            return reject
    moment = parse_time(event["event_time"])
    if moment is None or moment < FIRST_TIME:
        return Reject("out_of_range", "event_time")
    return Reject("in_future", "event_time") if moment > now + tolerance else None


def _surrogate(event: dict[str, Any]) -> Reject | None:
    lone = any(isinstance(value, str) and re.search("[\ud800-\udfff]", value) for value in event.values())
    return Reject("lone_surrogate") if lone else None


def _types(event: dict[str, Any]) -> Reject | None:
    wanted = {"text": str, "integer": int, "boolean": bool}
    for field in FIELDS:
        value = event.get(field.name)
        if value is None or field.kind not in wanted:
            continue
        right = isinstance(value, wanted[field.kind])
        if not right or (field.kind == "integer" and isinstance(value, bool)):
            return Reject("wrong_type", field.name)
    return None


def _missing(event: dict[str, Any]) -> Reject | None:
    for field in FIELDS:
        value = event.get(field.name)
        if field.required and (value is None or not str(value).strip()):
            return Reject("missing", field.name)
    return None


def _malformed(event: dict[str, Any]) -> Reject | None:
    if not re.match(UUID_PATTERN, str(event["event_id"]).strip()):
        return Reject("malformed", "event_id")
    if parse_time(str(event["event_time"]).strip()) is None:
        return Reject("malformed", "event_time")
    return None if event["source"] in SOURCES else Reject("unknown_source", "source")


def _ranges(event: dict[str, Any]) -> Reject | None:
    for name, least in INTEGERS.items():
        value = event.get(name)
        if value is not None and not least <= value <= MAX_MS:
            return Reject("out_of_range", name)
    return None


def _texts(event: dict[str, Any]) -> Reject | None:
    texts = {field: normalise(event.get(field.name) or "", nfc=field.nfc) for field in TEXTS}
    for field, text in texts.items():
        if "\0" in text:
            return Reject("nul", field.name)
    for field, text in texts.items():
        if field.limit is not None and len(text.encode()) > field.limit:
            return Reject("too_long", field.name)
    return None


def region(country: str | None) -> tuple[str, str]:
    """Code and region as stored for a country as sent: upper-cased, `ZZ` and `unknown` if it is no code."""
    code = (country or "").strip().upper()
    return (code, region_of(code)) if code in COUNTRIES else (UNKNOWN_CODE, region_of(UNKNOWN_CODE))
