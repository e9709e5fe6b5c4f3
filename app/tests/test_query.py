"""The query on batch DataFrames: every malformed shape, and what may take the fast path."""

import json
import random
from typing import Any

import pytest
from pyspark.sql import SparkSession

from music_streaming import event
from music_streaming.query import plays
from music_streaming.testing.events import sample
from reading import GOOD, NOW, RECORDS, Found, encoded, found_of, good

REJECTS: dict[str, tuple[Any, str, str | None]] = {
    "brace": (b"{", "not_json", None),
    "empty": (b"", "not_json", None),
    "blank": (b"  ", "not_json", None),
    "array": (b"[]", "not_json", None),
    "array of an event": (b"[" + encoded() + b"]", "not_json", None),
    "string": (b'"x"', "not_json", None),
    "number": (b"17", "not_json", None),
    "null": (b"null", "not_json", None),
    "cut off": (encoded()[:-9], "not_json", None),
    "two events": (encoded() + encoded(), "not_json", None),
    "two events and a comma": (encoded() + b"," + encoded(), "not_json", None),
    "something behind": (encoded() + b" x", "not_json", None),
    "single quotes": (encoded().replace(b'"', b"'"), "not_json", None),
    "byte order mark": (b"\xef\xbb\xbf" + encoded(), "not_json", None),
    "deep nesting": (b'{"a":' + b"[" * 60_000, "not_json", None),
    "not a number": (b'{"duration_ms":NaN,' + encoded()[1:], "not_json", None),
    "raw NUL": (encoded(title="a~b").replace(b"~", b"\0"), "not_json", None),
    "FF FE": (b"\xff\xfe", "not_utf8", None),
    "latin-1": (encoded(title="Caf~").replace(b"~", b"\xe9"), "not_utf8", None),
    "surrogate as UTF-8": (encoded(title="a~").replace(b"~", b"\xed\xa0\xbd"), "not_utf8", None),
    "empty object": (b"{}", "missing", "event_id"),
    "no event_id": (good(event_id=...), "missing", "event_id"),
    "null event_id": (good(event_id=None), "missing", "event_id"),
    "blank title": (good(title=" \u3000\t"), "missing", "title"),
    "title of zero width": (good(title="\u200b\ufeff\u200d"), "missing", "title"),
    "no source": (good(source=...), "missing", "source"),
    "short event_id": (good(event_id="abc"), "malformed", "event_id"),
    "number as event_id": (good(event_id=7), "malformed", "event_id"),
    "date only": (good(event_time="2026-11-25"), "malformed", "event_time"),
    "no zone": (good(event_time="2026-11-25T11:58:59"), "malformed", "event_time"),
    "blank between": (good(event_time="2026-11-25 11:58:59Z"), "malformed", "event_time"),
    "impossible date": (good(event_time="2026-02-30T00:00:00Z"), "malformed", "event_time"),
    "hour 24": (good(event_time="2026-11-24T24:00:00Z"), "malformed", "event_time"),
    "leap second": (good(event_time="2016-12-31T23:59:60Z"), "malformed", "event_time"),
    "unix time": (good(event_time=1_700_000_000), "malformed", "event_time"),
    "offset of 99 minutes": (good(event_time="2026-11-25T11:58:59+05:99"), "malformed", "event_time"),
    "offset of a day": (good(event_time="2026-11-25T11:58:59+24:00"), "malformed", "event_time"),
    "year 12345": (good(event_time="12345-01-01T00:00:00Z"), "malformed", "event_time"),
    "before scrobbling": (good(event_time="2002-09-30T23:59:59.999Z"), "out_of_range", "event_time"),
    "year 1": (good(event_time="0001-01-01T00:00:00Z"), "out_of_range", "event_time"),
    "in five minutes and a bit": (good(event_time="2026-11-25T12:05:00.001Z"), "in_future", "event_time"),
    "2036": (good(event_time="2036-01-01T00:00:00Z"), "in_future", "event_time"),
    "unknown source": (good(source="Demo"), "unknown_source", "source"),
    "title as object": (good(title={"a": 1}), "wrong_type", "title"),
    "title as array": (good(title=["a", "b"]), "wrong_type", "title"),
    "user_id as object": (good(user_id={"id": 1}), "wrong_type", "user_id"),
    "NUL in a title": (good(title="a\0b"), "nul", "title"),
    "NUL as artist": (good(artist="\0"), "nul", "artist"),
    "NUL in an id": (good(user_id="a\0"), "nul", "user_id"),
    "half of a pair": (encoded(title="\ud83d"), "lone_surrogate", "title"),
    "other half": (encoded(title="a\udfb5b"), "lone_surrogate", "title"),
    "halves the wrong way": (encoded(title="\udfb5\ud83c"), "lone_surrogate", "title"),
    "long title": (good(title="x" * 1025), "too_long", "title"),
    "long by NFC": (good(artist="\u0958" * 171), "too_long", "artist"),
    "long user_id": (good(user_id="ü" * 65), "too_long", "user_id"),
    "2 MB of title": (good(title="x" * 2_000_000), "too_long", None),
}


@pytest.fixture(scope="module")
def found_rejects(spark: SparkSession) -> dict[str, Found]:
    return dict(zip(REJECTS, found_of(spark, [value for value, _, _ in REJECTS.values()]), strict=True))


@pytest.mark.parametrize("name", REJECTS)
def test_reject(found_rejects: dict[str, Found], name: str) -> None:
    value, reason, field = REJECTS[name]
    found = found_rejects[name]
    raw = value if isinstance(value, bytes) else json.dumps(value, ensure_ascii=False).encode()
    assert (found.reason, found.field) == (reason, field)
    assert (found.raw, found.raw_length) == (raw[: event.RAW_LIMIT], len(raw))


def test_every_reason_is_a_known_word() -> None:
    assert {reason for _, reason, _ in REJECTS.values()} == set(event.REASONS)


def test_tombstone_is_no_reject(spark: SparkSession) -> None:
    (found,) = found_of(spark, [None])
    assert found.reason == "tombstone"


def test_usual_plays_take_the_fast_path(spark: SparkSession) -> None:
    usual = [
        good(
            title="東京事変", artist="Sigur Rós", album=None, duration_ms=1000, listened_ms=900, skipped=False
        ),
        good(subscription_type="Premium", age_group="65+", country="DE", device_type="speaker", os="ios"),
        good(mood=[1, 2], tempo=120.5),
        good(
            title="Song (Live) [2019] {x", album="It\u2019s", duration_ms="1000", country="XX", genre="a\tb"
        ),
        encoded(title="Café ~", genre="rock"),
    ]
    compact = [json.dumps(one, separators=(",", ":")).encode() for one in usual if isinstance(one, dict)]
    assert [found.fast for found in found_of(spark, usual + compact)] == [True] * 9


NASTY = (
    None, True, False, 0, 1, -1, 899, 900, 1000, 2_073_600_000, 2_073_600_001, 2**63, 1.0, 1e300, [], ["a"], {}, {"a": 1},
    "", " ", "a", " a ", "1", "-1.5e3", "true", "null", "[", "{", "}", "a}b", "\\", "\\u0000", "\0", "a\0b", '"', "\n",
    "\u2028", "\u3000", "e\u0301", "\u0958" * 400, "x" * 32, "x" * 33, "x" * 65, "x" * 129, "x" * 1025, "\U0001f3b5",
    "ß", "İ", "demo", "import", "DE", "de ", "zz", "premium", "PREMIUM", " Premium", "premium\u00a0", "un\u212anown", "65+", "unknown", "\ud83c", "\udfb5",
    GOOD["event_id"], GOOD["event_id"].upper(), f"{{{GOOD['event_id']}}}", "2026-11-25T11:00:00Z",
    "2026-11-25T11:00:00.1234567890Z", "2026-11-25T11:00:00+18:01", "2026-11-25T11:00:00-18:00", "2026-11-31T11:00:00Z",
    "2024-02-29T00:00:00Z", "2023-02-29T00:00:00Z", "2026-11-25T24:00:00Z", "2026-11-25T11:60:00Z", "2026-11-25T12:05:00Z",
    "9999-12-31T23:59:59Z", "0000-01-01T00:00:00Z", "2002-10-01T00:00:00+00:01", "2002-09-30T23:59:59-00:01",
)  # fmt: skip


def agree(values: list[bytes], found: list[Found]) -> int:
    """How many took the fast path; fails unless each of them is what the contract says."""
    for value, one in zip(values, found, strict=True):
        if one.fast:
            parsed, play = event.parse_event(value, NOW), one.play or {}
            assert parsed.play == {name: play[name] for name in event.PLAY_COLUMNS}, value
            assert {flaw.field: flaw.reason for flaw in parsed.flaws} == one.flaws, value
    return sum(one.fast for one in found)


def test_the_fast_path_says_what_the_contract_says(spark: SparkSession) -> None:
    chance = random.Random(3)
    events = [
        good(
            **{
                name: chance.choice(NASTY)
                for name in chance.sample(event.FIELD_NAMES, chance.choice((1, 1, 2, 3)))
            }
        )
        for _ in range(8000)
    ]
    values = [json.dumps(one, ensure_ascii=chance.random() < 0.5).encode(errors="replace") for one in events]
    assert agree(values, found_of(spark, list(values))) > 3000


def test_whatever_comes_is_read_on_and_the_fast_path_agrees(spark: SparkSession) -> None:
    sent = sample(1000)
    agree(sent, found_of(spark, list(sent)))


def test_every_field_is_handed_over(spark: SparkSession) -> None:
    frame = plays(spark.createDataFrame([], RECORDS))
    assert tuple(frame.schema["fields"].dataType.fieldNames()) == event.FIELD_NAMES
