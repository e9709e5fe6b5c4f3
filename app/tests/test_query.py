"""The query on batch DataFrames: every malformed shape, and what a good play becomes."""

import datetime as dt
import json
import random
from typing import Any, NamedTuple

import pytest
from pyspark.sql import SparkSession

from music_streaming import event
from music_streaming.query import plays
from music_streaming.rows import split
from music_streaming.testing.events import sample

NOW = dt.datetime(2026, 11, 25, 12, 0, tzinfo=dt.UTC)
RECORDS = "value binary, partition int, offset bigint, timestamp timestamp, timestampType int"
GOOD: dict[str, Any] = {
    "event_id": "0f8fad5b-d9cb-469f-a165-70867728950e",
    "event_time": "2026-11-25T11:58:59.123Z",
    "source": "demo",
    "user_id": "u1",
    "title": "Song",
    "artist": "Artist",
}


class Judged(NamedTuple):
    """What became of one record: the stored play, or why not; by_spark if the plain Python was not asked."""

    reason: str | None
    field: str | None
    raw: bytes | None
    raw_length: int | None
    play: dict[str, Any] | None
    by_spark: bool


def judge(spark: SparkSession, values: list[Any]) -> list[Judged]:
    """The verdicts on values (bytes, None, or an event to encode), in order; the broker got all of them NOW."""
    encoded = [
        value if value is None or isinstance(value, bytes) else json.dumps(value, ensure_ascii=False).encode()
        for value in values
    ]
    rows = [(value, 0, offset, NOW, 1) for offset, value in enumerate(encoded)]
    found = plays(spark.createDataFrame(rows, RECORDS)).toArrow()
    assert sorted(found["offset"].to_pylist()) == list(range(len(values)))
    by_spark = {
        offset
        for offset, play in zip(
            found["offset"].to_pylist(), found["play"].is_valid().to_pylist(), strict=True
        )
        if play
    }
    accepted, rejects, tombstones = (part.to_pylist() for part in split(found, dt.timedelta(minutes=5)))
    verdicts = {
        row["kafka_offset"]: Judged(None, None, None, None, row, row["kafka_offset"] in by_spark)
        for row in accepted
    }
    for row in rejects:
        raw = bytes.fromhex(row["raw"].removeprefix("\\x"))
        verdicts[row["kafka_offset"]] = Judged(
            row["reason"], row["field"], raw, row["raw_length"], None, False
        )
    for row in tombstones:
        verdicts[row["kafka_offset"]] = Judged("tombstone", None, None, None, None, False)
    return [verdicts[offset] for offset in range(len(values))]


def good(**changes: Any) -> dict[str, Any]:
    """GOOD with changes; a value of ... takes the field out."""
    return {name: value for name, value in {**GOOD, **changes}.items() if value is not ...}


def encoded(**changes: Any) -> bytes:
    return json.dumps(good(**changes)).encode()


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
    "offset of a day": (good(event_time="2026-11-25T11:58:59+24:00"), "malformed", "event_time"),
    "year 12345": (good(event_time="12345-01-01T00:00:00Z"), "malformed", "event_time"),
    "before scrobbling": (good(event_time="2002-09-30T23:59:59.999Z"), "out_of_range", "event_time"),
    "year 1": (good(event_time="0001-01-01T00:00:00Z"), "out_of_range", "event_time"),
    "in five minutes and a bit": (good(event_time="2026-11-25T12:05:00.001Z"), "in_future", "event_time"),
    "2036": (good(event_time="2036-01-01T00:00:00Z"), "in_future", "event_time"),
    "unknown source": (good(source="Demo"), "unknown_source", "source"),
    "duration as text": (good(duration_ms="abc"), "wrong_type", "duration_ms"),
    "duration in quotes": (good(duration_ms="1000"), "wrong_type", "duration_ms"),
    "duration as float": (good(duration_ms=1000.0), "wrong_type", "duration_ms"),
    "duration beyond 64 bits": (good(duration_ms=99999999999999999999), "out_of_range", "duration_ms"),
    "duration of 64 bits": (good(duration_ms=2**63 - 1), "out_of_range", "duration_ms"),
    "no duration": (good(duration_ms=0), "out_of_range", "duration_ms"),
    "negative listening": (good(listened_ms=-1), "out_of_range", "listened_ms"),
    "boolean as text": (good(skipped="true"), "wrong_type", "skipped"),
    "boolean as number": (good(liked=1), "wrong_type", "liked"),
    "number as boolean": (good(listened_ms=True), "wrong_type", "listened_ms"),
    "title as number": (good(title=1999), "wrong_type", "title"),
    "title as boolean": (good(title=True), "wrong_type", "title"),
    "title as object": (good(title={"a": 1}), "wrong_type", "title"),
    "album as array": (good(album=["a"]), "wrong_type", "album"),
    "NUL in a title": (good(title="a\0b"), "nul", "title"),
    "NUL as artist": (good(artist="\0"), "nul", "artist"),
    "NUL in an id": (good(session_id="a\0"), "nul", "session_id"),
    "half of a pair": (encoded(title="\ud83d"), "lone_surrogate", "title"),
    "other half": (encoded(title="a\udfb5b"), "lone_surrogate", "title"),
    "halves the wrong way": (encoded(title="\udfb5\ud83c"), "lone_surrogate", "title"),
    "long title": (good(title="x" * 1025), "too_long", "title"),
    "long by NFC": (good(artist="\u0958" * 171), "too_long", "artist"),
    "long genre": (good(genre="x" * 129), "too_long", "genre"),
    "long user_id": (good(user_id="ü" * 65), "too_long", "user_id"),
    "long reason": (good(reason_end="x" * 33), "too_long", "reason_end"),
    "2 MB of title": (good(title="x" * 2_000_000), "too_long", None),
}


@pytest.fixture(scope="module")
def judged_rejects(spark: SparkSession) -> dict[str, Judged]:
    return dict(zip(REJECTS, judge(spark, [value for value, _, _ in REJECTS.values()]), strict=True))


@pytest.mark.parametrize("name", REJECTS)
def test_reject(judged_rejects: dict[str, Judged], name: str) -> None:
    value, reason, field = REJECTS[name]
    found = judged_rejects[name]
    raw = value if isinstance(value, bytes) else json.dumps(value, ensure_ascii=False).encode()
    assert (found.reason, found.field) == (reason, field)
    assert (found.raw, found.raw_length) == (raw[: event.RAW_LIMIT], len(raw))


def test_every_reason_is_a_known_word() -> None:
    assert {reason for _, reason, _ in REJECTS.values()} == set(event.REASONS)


def test_tombstone_is_no_reject(spark: SparkSession) -> None:
    (found,) = judge(spark, [None])
    assert found.reason == "tombstone"


ACCEPTED: dict[str, tuple[dict[str, Any] | bytes, dict[str, Any]]] = {
    "least": (
        good(),
        {
            "event_time": dt.datetime(2026, 11, 25, 11, 58, 59, 123_000, tzinfo=dt.UTC),
            "song_id": event.song_id("Artist", "Song"), "album": None, "genre": "unknown", "duration_ms": None, "completed": None,
            "subscription_type": "unknown", "age_group": "unknown", "country": "ZZ", "region": "unknown",
            "device_type": "unknown", "os": "unknown", "player": "unknown", "reason_start": None,
        },
    ),
    "extra field": (good(mood={"title": [1]}), {"title": "Song"}),
    "nulls": (good(album=None, skipped=None, os=None), {"album": None, "skipped": None, "os": "unknown"}),
    "empty texts": (good(album="", genre=" "), {"album": None, "genre": "unknown"}),
    "unknown in capitals": (good(genre="UNKNOWN", os="Unknown"), {"genre": "unknown", "os": "unknown"}),
    "white space": (
        good(title="\u3000Song\n", artist=" A b ", user_id="\tu1"),
        {"title": "Song", "artist": "A b", "user_id": "\tu1"},
    ),
    "pretty printed": (json.dumps(good(), indent=2).encode() + b"\n", {"title": "Song"}),
    "upper-case id": (good(event_id=GOOD["event_id"].upper()), {"event_id": GOOD["event_id"]}),
    "an offset": (good(event_time="2026-11-25T13:30:00+05:30"), {"event_time": dt.datetime(2026, 11, 25, 8, tzinfo=dt.UTC)}),
    "no fraction": (good(event_time="2026-11-25t11:00:00z"), {"event_time": dt.datetime(2026, 11, 25, 11, tzinfo=dt.UTC)}),
    "nanoseconds": (
        good(event_time="2026-11-25T11:00:00.123999999Z"),
        {"event_time": dt.datetime(2026, 11, 25, 11, 0, 0, 123_000, tzinfo=dt.UTC)},
    ),
    "in time": (good(event_time="2026-11-25T12:05:00Z"), {"event_time": dt.datetime(2026, 11, 25, 12, 5, tzinfo=dt.UTC)}),
    "first day": (good(event_time="2002-10-01T00:00:00Z"), {"event_time": dt.datetime(2002, 10, 1, tzinfo=dt.UTC)}),
    "emoji": (good(title="東京事変 🎵", artist="👩‍👩‍👧‍👦"), {"title": "東京事変 🎵", "artist": "👩‍👩‍👧‍👦"}),
    "emoji escaped": (encoded(title="東京事変 🎵"), {"title": "東京事変 🎵"}),
    "escaped backslash": (good(title="\\ud83d"), {"title": "\\ud83d"}),
    "right to left": (good(title="مرحبا"), {"title": "مرحبا"}),
    "not yet NFC": (good(title="e\u0301", user_id="e\u0301"), {"title": "\u00e9", "user_id": "e\u0301"}),
    "SQL": (good(title="Robert'); DROP--"), {"title": "Robert'); DROP--"}),
    "formula": (good(title="=1+1"), {"title": "=1+1"}),
    "like JSON": (good(title="1999", artist="[x]", album="true"), {"title": "1999", "artist": "[x]"}),
    "brace inside": (good(title="a } b"), {"title": "a } b"}),
    "words": (
        good(subscription_type=" Premium", age_group="<18", country="de", device_type="TV", os="iOS"),
        {"subscription_type": "premium", "age_group": "<18", "country": "DE", "region": "Europe",
         "device_type": "tv", "os": "iOS"},
    ),
    "an object behind the rest": (encoded()[:-1] + b',"more":{"a":[{}]}} ', {"title": "Song"}),
    "unknown words": (
        good(subscription_type="gold", age_group=17, country="XX", device_type=["a"], os="x" * 65, player="a\0"),
        {"subscription_type": "unknown", "age_group": "unknown", "country": "ZZ", "region": "unknown",
         "device_type": "unknown", "os": "unknown", "player": "unknown"},
    ),
    "region from the wire": (good(country="JP", region="Europe"), {"region": "Asia"}),
    "90 % heard": (good(duration_ms=1000, listened_ms=900), {"completed": True}),
    "89.9 % heard": (good(duration_ms=1000, listened_ms=899), {"completed": False}),
    "completed as sent": (good(duration_ms=1000, listened_ms=1, completed=True), {"completed": True}),
    "longest play": (
        good(duration_ms=2_073_600_000, listened_ms=2_073_600_000),
        {"duration_ms": 2_073_600_000, "listened_ms": 2_073_600_000, "completed": True},
    ),
    "limits": (
        good(title="x" * 1024, artist="ü" * 512, user_id="u" * 128, reason_start="r" * 32),
        {"title": "x" * 1024, "artist": "ü" * 512, "user_id": "u" * 128, "reason_start": "r" * 32},
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def judged_plays(spark: SparkSession) -> dict[str, Judged]:
    return dict(zip(ACCEPTED, judge(spark, [value for value, _ in ACCEPTED.values()]), strict=True))


@pytest.mark.parametrize("name", ACCEPTED)
def test_accepted(judged_plays: dict[str, Judged], name: str) -> None:
    found, wanted = judged_plays[name], ACCEPTED[name][1]
    assert (found.reason, found.field) == (None, None)
    assert found.play is not None
    assert {column: found.play[column] for column in wanted} == wanted


def test_usual_plays_are_certain_without_plain_python(spark: SparkSession) -> None:
    usual = [
        good(
            title="東京事変", artist="Sigur Rós", album=None, duration_ms=1000, listened_ms=900, skipped=False
        ),
        good(subscription_type="Premium", age_group="65+", country="DE", device_type="speaker", os="iOS"),
        good(mood=[1, 2], tempo=120.5),
        encoded(title="Café ~", genre="rock"),
    ]
    compact = [json.dumps(one, separators=(",", ":")).encode() for one in usual if isinstance(one, dict)]
    assert [found.by_spark for found in judge(spark, usual + compact)] == [True] * 7


@pytest.mark.parametrize("title", ["Song", "Song\t"], ids=["certain", "in doubt"])
def test_windows_are_those_of_the_event(spark: SparkSession, title: str) -> None:
    times = ["2026-11-25T10:59:59.999Z", "2026-11-25T11:00:00.000Z"]
    found = [one.play or {} for one in judge(spark, [good(title=title, event_time=time) for time in times])]
    assert [(play["metric_window"], play["content_window"]) for play in found] == [
        (dt.datetime(2026, 11, 25, 10, 55, tzinfo=dt.UTC), dt.datetime(2026, 11, 25, 10, tzinfo=dt.UTC)),
        (dt.datetime(2026, 11, 25, 11, tzinfo=dt.UTC), dt.datetime(2026, 11, 25, 11, tzinfo=dt.UTC)),
    ]


def test_listener_is_the_same_certain_or_in_doubt(spark: SparkSession) -> None:
    found = judge(spark, [good(), good(title="a\tb"), good(user_id="u2")])
    one, other, third = (verdict.play["listener"] for verdict in found if verdict.play)
    assert one == other != third


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


def test_spark_is_certain_only_of_what_plain_python_says(spark: SparkSession) -> None:
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
    certain = 0
    for value, found in zip(values, judge(spark, values), strict=True):
        if found.by_spark:
            certain += 1
            play = found.play or {}
            assert event.judge(value, NOW) == {name: play[name] for name in event.PLAY_COLUMNS}, value
    assert certain > 800


def test_whatever_comes_spark_reads_on_and_is_certain_of_the_truth_only(spark: SparkSession) -> None:
    sent = sample(1000)
    for value, found in zip(sent, judge(spark, list(sent)), strict=True):
        if found.by_spark:
            play = found.play or {}
            assert event.judge(value, NOW) == {name: play[name] for name in event.PLAY_COLUMNS}, value


def test_columns_of_the_play(spark: SparkSession) -> None:
    frame = plays(spark.createDataFrame([], RECORDS))
    assert tuple(frame.schema["play"].dataType.fieldNames()) == event.PLAY_COLUMNS
