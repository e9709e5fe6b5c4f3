"""Every export in the shape that its writer documents, and one of each that is wrong."""

from __future__ import annotations

import io
import json
from collections import Counter
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from export_files import DEEZER, DEEZER_ROWS, EXPORTS, workbook
from music_streaming.imports.formats import FORMATS, recognise
from music_streaming.imports.plays import REASONS, Left, Play, Reading
from music_streaming.imports.scrobbles import ClockError

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
READING = Reading.at(NOW, ZoneInfo("Europe/Berlin"))
EIGHT = 1_677_657_600_000  # 2023-03-01 08:00 UTC


def read(content: bytes, reading: Reading = READING) -> tuple[str, list[Play], list[Left]]:
    """The format of a file, its plays, and its other rows."""
    file = io.BytesIO(content)
    found = recognise(file)
    assert found is not None, "not recognised"
    rows = list(found[0].parse(file, reading, found[1]))
    return (
        found[0].name,
        [row for row in rows if isinstance(row, Play)],
        [row for row in rows if isinstance(row, Left)],
    )


def content(name: str) -> bytes:
    return workbook(DEEZER_ROWS) if name == "deezer.xlsx" else (EXPORTS / name).read_bytes()


# File -> format, plays, reasons of the other rows, and what is known of the first play beyond title, artist, time.
CASES = {
    "spotify_extended.json": ("Spotify extended streaming history", 2, "podcast audiobook no_title",
        {"album": "Low Tide", "listened_ms": 200_000, "skipped": False, "completed": True, "country": "DE", "device_type": "mobile",
         "os": "Android", "player": "Spotify", "reason_start": "clickrow", "reason_end": "trackdone"}),
    "spotify_basic.json": ("Spotify streaming history", 2, "podcast", {"listened_ms": 200_000, "skipped": False, "player": "Spotify"}),
    "listenbrainz.jsonl": ("ListenBrainz", 2, "no_title malformed", {"album": "Low Tide", "duration_ms": 204_000, "player": "Strawberry"}),
    "listenbrainz_old.json": ("ListenBrainz (old export)", 2, "", {"album": "Low Tide"}),
    "lastfm.json": ("Last.fm", 1, "no_play no_time", {"album": "Low Tide"}),
    "lastfmstats.json": ("Last.fm (lastfmstats.com)", 1, "no_artist", {"album": "Low Tide"}),
    "lastfmstats.csv": ("Last.fm (lastfmstats.com, CSV)", 2, "", {"album": "Low Tide"}),
    "lastfm_uts.csv": ("Last.fm (CSV)", 2, "no_time", {"album": "Low Tide"}),
    "lastfm_to_csv.csv": ("Last.fm (lastfm-to-csv)", 2, "malformed", {"album": "Low Tide"}),
    "maloja.json": ("Maloja", 1, "no_artist",
        {"album": "Low Tide", "duration_ms": 204_000, "listened_ms": 200_000, "player": "Strawberry"}),
    "koito.json": ("Koito", 1, "no_time", {"album": "Low Tide", "duration_ms": 204_000, "player": "navidrome"}),
    "pano.jsonl": ("Pano Scrobbler", 1, "no_play", {"album": "Low Tide", "duration_ms": 204_000, "player": "Example Player"}),
    "pano.csv": ("Pano Scrobbler (CSV)", 1, "no_play", {"album": "Low Tide", "duration_ms": 204_000, "player": "Example Player"}),
    "librefm.csv": ("Libre.fm", 2, "no_time", {"album": "Low Tide"}),
    "apple.csv": ("Apple Music play activity", 2, "no_play no_artist",
        {"album": "Low Tide", "genre": "Pop", "duration_ms": 204_000, "listened_ms": 204_000, "skipped": False, "completed": True,
         "country": "DE", "device_type": "mobile", "os": "iOS", "player": "Apple Music", "reason_end": "trackdone"}),
    "youtube.json": ("YouTube Music", 2, "video no_title", {"player": "YouTube Music"}),
    "deezer.xlsx": ("Deezer", 2, "no_time",
        {"album": "Low Tide", "listened_ms": 200_000, "skipped": False, "device_type": "mobile", "os": "Android", "player": "Deezer"}),
    "rockbox.log": ("Rockbox", 2, "no_artist malformed no_time",
        {"album": "Low Tide", "duration_ms": 204_000, "skipped": False, "player": "Rockbox"}),
}  # fmt: skip
STARTS = {
    "spotify_basic.json": EIGHT - 20_000,
    "pano.jsonl": EIGHT + 123,
    "pano.csv": EIGHT + 123,
    "youtube.json": EIGHT + 123,
}


@pytest.mark.parametrize("name", CASES)
def test_an_export_is_recognised_and_each_row_is_a_play_or_has_its_reason(name: str) -> None:
    wanted, count, reasons, known = CASES[name]
    found, plays, left = read(content(name))
    assert found == wanted
    assert [row.reason for row in left] == reasons.split()
    assert len(plays) == count
    artist = "The Paper Lanterns, Guest" if name == "maloja.json" else "The Paper Lanterns"
    assert plays[0] == Play(STARTS.get(name, EIGHT), "Harbour Lights", artist, **known)


def test_every_format_has_an_example() -> None:
    assert {case[0] for case in CASES.values()} == {
        known.name for known in FORMATS if known.name != "Last.fm (short)"
    }


@pytest.mark.parametrize("name", CASES)
def test_no_address_is_read(name: str) -> None:
    _, plays, left = read(content(name))
    seen = repr([plays, left])
    assert not any(word in seen for word in ("192.0.2", "198.51.100", "owner1", "Springfield"))


def test_a_short_play_is_a_skip_and_starts_where_it_started() -> None:
    _, plays, _ = read(content("spotify_extended.json"))
    assert (plays[1].skipped, plays[1].completed, plays[1].listened_ms) == (True, False, 3_100)
    assert plays[1].started_ms == EIGHT + 204_000 - 3_100
    assert plays[1].device_type == "web"
    _, plays, _ = read(content("apple.csv"))
    assert (plays[1].skipped, plays[1].started_ms) == (True, EIGHT + 240_000)
    _, plays, _ = read(content("rockbox.log"))
    assert plays[1].skipped is True


def test_a_song_shorter_than_a_skip_that_ran_to_its_end_is_none() -> None:
    row = json.loads(content("spotify_extended.json"))[0] | {"ms_played": 12_000}
    _, plays, _ = read(json.dumps([row]).encode())
    assert (plays[0].skipped, plays[0].completed) == (False, True)


def test_a_clock_without_a_zone_is_asked_for() -> None:
    with pytest.raises(ClockError, match="--timezone"):
        read(content("rockbox.log"), Reading.at(NOW))
    utc = content("rockbox.log").replace(b"#TZ/UNKNOWN", b"#TZ/UTC")
    assert read(utc)[1][0].started_ms == EIGHT + 3_600_000
    assert read(utc, Reading.at(NOW))[1][0].started_ms == EIGHT + 3_600_000


def test_the_head_of_a_long_file_is_enough() -> None:
    rows = json.loads(content("spotify_extended.json")) * 400
    for text in (json.dumps(rows), json.dumps(rows, indent=2), "\ufeff" + json.dumps(rows)):
        found, plays, left = read(text.encode())
        assert (found, len(plays), len(left)) == ("Spotify extended streaming history", 800, 1_200)


# File -> what it lacks, so that it is wrong: read to the end, each row with a reason and no play.
WRONG = {
    "spotify_extended.json": (b'"ms_played": ', b'"ms_played": "long",  "x": '),
    "spotify_basic.json": (b'"msPlayed": ', b'"msPlayed": "long", "x": '),
    "listenbrainz.jsonl": (b'"track_metadata": ', b'"track_metadata": 1, "x": '),
    "listenbrainz_old.json": (b'"listened_at": ', b'"listened_at": "yesterday", "x": '),
    "lastfm.json": (b'"uts": ', b'"uts": "soon", "x": '),
    "lastfmstats.json": (b'"date": ', b'"date": null, "x": '),
    "lastfmstats.csv": (b'"16776', b'"x16776'),
    "lastfm_uts.csv": (b'"16776', b'"x16776'),
    "lastfm_to_csv.csv": (b" 2023 ", b" 1823 "),
    "maloja.json": (b'"track": ', b'"track": "x", "y": '),
    "koito.json": (b'"is_primary": true', b'"is_primary": true, "alias": ""'),
    "pano.jsonl": (b'"timeMs":', b'"timeMs":true,"x":'),
    "pano.csv": (b"1677657600123", b"9999999999999999999999"),
    "librefm.csv": (b"\n16776", b"\n-16776"),
    "apple.csv": (b"PLAY_END", b"LYRIC_DISPLAY"),
    "youtube.json": (b'"header": "YouTube Music"', b'"header": "YouTube"'),
    "rockbox.log": (b"\t16776", b"\tx16776"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_export_gives_reasons_and_no_play(name: str) -> None:
    old, new = WRONG[name]
    assert old in content(name)
    found, plays, left = read(content(name).replace(old, new))
    assert (found, plays) == (CASES[name][0], [])
    assert len(left) >= CASES[name][1]
    assert {row.reason for row in left} <= set(REASONS)


def test_a_wrong_workbook_gives_reasons_and_no_play() -> None:
    assert read(workbook([DEEZER, ("Song", "Artist", "", "", "", 9, "", "", "never")]))[1:] == (
        [],
        [Left("no_time", "Artist - Song")],
    )
    assert read(workbook([("Some", "other", "sheet")]))[1:] == ([], [])
    damaged = workbook(DEEZER_ROWS)
    at = damaged.index(b"xl/worksheets/sheet2.xml")
    _, plays, left = read(damaged[: at + 60] + b"damage" + damaged[at + 66 :])
    assert Counter(row.reason for row in left)["broken"] == 1 or len(plays) == 2


@pytest.mark.parametrize("cut", [0.3, 0.6, 0.9])
def test_a_file_that_is_broken_off_gives_what_it_has_and_says_so(cut: float) -> None:
    rows = json.dumps(json.loads(content("spotify_extended.json"))[:1] * 50).encode()
    _, plays, left = read(rows[: int(len(rows) * cut)])
    assert len(plays) == int(50 * cut)
    assert [row.reason for row in left] == ["broken"]


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"{}", b"null", b"[1, 2]", b'{"playlists": [{"name": "x", "items": []}]}', b"hello", b"\x00\xff", b"a,b\n1,2",
     b'[{"masterToken": "x"}]', b"PK\x03\x04rest", b"<html></html>", b"\xef\xbb\xbf", b"time;artist;track"],
)  # fmt: skip
def test_what_is_no_export_is_not_taken_for_one(content: bytes) -> None:
    file = io.BytesIO(content)
    assert recognise(file) is None
    assert file.tell() == 0
