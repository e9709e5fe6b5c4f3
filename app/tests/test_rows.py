"""What a good play becomes, and what of one is left out, whichever path it takes."""

import datetime as dt
import json
from typing import Any

import pytest
from pyspark.sql import SparkSession

from music_streaming import event
from reading import GOOD, Found, encoded, found_of, good

# What of an optional field makes no sense, and what is stored instead.
FLAWED: dict[str, tuple[dict[str, Any], Any, str]] = {
    "duration as word": (good(duration_ms="abc"), None, "wrong_type"),
    "duration as boolean": (good(duration_ms=True), None, "wrong_type"),
    "duration as object": (good(duration_ms={"ms": 1}), None, "wrong_type"),
    "duration beyond 64 bits": (good(duration_ms=99999999999999999999), None, "out_of_range"),
    "duration of 64 bits": (good(duration_ms=2**63 - 1), None, "out_of_range"),
    "infinite duration": (good(duration_ms="1e999"), None, "out_of_range"),
    "no duration": (good(duration_ms=0), None, "out_of_range"),
    "too long a duration": (good(duration_ms=2_073_600_001), None, "out_of_range"),
    "negative listening": (good(listened_ms=-1), None, "out_of_range"),
    "boolean as word": (good(skipped="maybe"), None, "wrong_type"),
    "boolean as number": (good(liked=2), None, "wrong_type"),
    "album as object": (good(album={"name": "a"}), None, "wrong_type"),
    "genre as list": (good(genre=["rock", "pop"]), "unknown", "wrong_type"),
    "empty list": (good(genre=[]), "unknown", "wrong_type"),
    "NUL in an id": (good(session_id="a\0"), None, "nul"),
    "NUL in a player": (good(player="a\0"), "unknown", "nul"),
    "long genre": (good(genre="x" * 129), "unknown", "too_long"),
    "long os": (good(os="x" * 65), "unknown", "too_long"),
    "long reason": (good(reason_end="x" * 33), None, "too_long"),
    "long album by NFC": (good(album="\u0958" * 171), None, "too_long"),
    "unknown subscription": (good(subscription_type="gold"), "unknown", "not_in_vocabulary"),
    "age as number": (good(age_group=17), "unknown", "not_in_vocabulary"),
    "no country": (good(country="XX"), "ZZ", "not_in_vocabulary"),
    "device as list": (good(device_type=["a"]), "unknown", "not_in_vocabulary"),
}


@pytest.fixture(scope="module")
def found_flaws(spark: SparkSession) -> dict[str, Found]:
    return dict(zip(FLAWED, found_of(spark, [sent for sent, _, _ in FLAWED.values()]), strict=True))


@pytest.mark.parametrize("name", FLAWED)
def test_a_flaw_costs_the_field_and_not_the_play(found_flaws: dict[str, Found], name: str) -> None:
    sent, stored, reason = FLAWED[name]
    (field,) = (key for key in sent if key not in GOOD)
    found = found_flaws[name]
    assert found.play is not None, found
    assert (found.play[field], found.flaws) == (stored, {field: reason})


def test_half_of_a_pair_costs_the_field(spark: SparkSession) -> None:
    (found,) = found_of(spark, [encoded(album="\ud83d")])
    assert found.play is not None
    assert (found.play["album"], found.flaws) == (None, {"album": "lone_surrogate"})


def test_every_flaw_is_a_known_word() -> None:
    assert {reason for _, _, reason in FLAWED.values()} | {"lone_surrogate"} == set(event.FLAWS)


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
    "duration in quotes": (good(duration_ms="1000"), {"duration_ms": 1000}),
    "duration as float": (good(duration_ms=180000.0, listened_ms="1.8e5"), {"duration_ms": 180000, "listened_ms": 180000}),
    "part of a millisecond": (good(listened_ms=1.9), {"listened_ms": 1}),
    "booleans as numbers": (good(liked=1, skipped="0", completed=1.0), {"liked": True, "skipped": False, "completed": True}),
    "booleans as text": (good(liked="true", skipped=" False "), {"liked": True, "skipped": False}),
    "numbers as text": (
        good(title=1999, artist=True, album=25, user_id=12345, session_id=-7, song_id=1.50, reason_end=0),
        {"title": "1999", "artist": "true", "album": "25", "user_id": "12345", "session_id": "-7", "song_id": "1.5",
         "reason_end": "0"},
    ),
    "lists of one": (good(title=["Song"], genre=[["Rock"]], liked=[1]), {"title": "Song", "genre": "rock", "liked": True}),
    "genre in capitals": (good(genre=" Hip-Hop"), {"genre": "hip-hop"}),
    "spellings of a system": (good(os="IOS"), {"os": "iOS"}),
    "another system": (good(os="Haiku R1"), {"os": "Haiku R1"}),
    "zero width": (
        good(title="\ufeffSo\u200bng", artist="Art\u2060ist"),
        {"title": "Song", "artist": "Artist", "song_id": event.song_id("Artist", "Song")},
    ),
    "joiners": (
        good(title="\u0645\u06cc\u200c\u062e"),
        {"title": "\u0645\u06cc\u200c\u062e", "song_id": event.song_id("Artist", "\u0645\u06cc\u062e")},
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
def found_plays(spark: SparkSession) -> dict[str, Found]:
    return dict(zip(ACCEPTED, found_of(spark, [value for value, _ in ACCEPTED.values()]), strict=True))


@pytest.mark.parametrize("name", ACCEPTED)
def test_accepted(found_plays: dict[str, Found], name: str) -> None:
    found, wanted = found_plays[name], ACCEPTED[name][1]
    assert (found.reason, found.field) == (None, None)
    assert found.play is not None
    assert found.flaws == {}
    assert {column: found.play[column] for column in wanted} == wanted
