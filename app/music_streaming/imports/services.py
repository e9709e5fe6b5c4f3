"""Exports of streaming services other than Spotify, as their privacy pages make them.

- Apple Music: Apple Music Play Activity.csv, one row an event. Addresses and places are not looked at.
- YouTube Music: watch-history.json of Google Takeout, among videos that are no music.
- Deezer: a workbook with the sheet 10_listeningHistory; its times are taken as UTC.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO

from music_streaming.imports import reading as read
from music_streaming.imports.plays import (
    Left,
    Reading,
    Row,
    example,
    is_skip,
    milliseconds,
    moment,
    play,
    positive,
    text,
)
from music_streaming.imports.spotify import platform

DEEZER = frozenset({"song title", "artist", "listening time", "date"})

# Apple's reasons in Spotify's words, which the contract has.
_ENDS = {
    "NATURAL_END_OF_TRACK": "trackdone",
    "TRACK_SKIPPED_FORWARDS": "fwdbtn",
    "TRACK_SKIPPED_BACKWARDS": "backbtn",
    "PLAYBACK_MANUALLY_PAUSED": "endplay",
    "MANUALLY_SELECTED_PLAYBACK_OF_A_DIFF_ITEM": "clickrow",
    "PLAYBACK_STOPPED_DUE_TO_SESSION_TIMEOUT": "endplay",
    "SCRUB_BEGIN": "endplay",
    "SCRUB_END": "endplay",
}


def apple(file: BinaryIO, reading: Reading, prefix: str = "") -> Iterator[Row]:
    """Rows of the play activity that are the end of a play."""
    for row in read.named(read.records(file)):
        yield row if isinstance(row, Left) else _apple(row, reading)


def _apple(row: dict[str, str], reading: Reading) -> Row:
    title = row.get("song name") or row.get("content name")
    artist = row.get("artist name") or row.get("container artist name")
    if row.get("event type", "") not in ("", "PLAY_END"):
        return Left("no_play", example(artist, title))
    if row.get("media type", "").upper() == "VIDEO":
        return Left("video", example(artist, title))
    listened = milliseconds(row.get("play duration milliseconds"))
    started = moment(row.get("event start timestamp"))
    if started is None and listened is not None:
        ended = moment(row.get("event end timestamp"))
        started = None if ended is None else ended - listened
    reason_end = row.get("end reason type", "").strip()
    whole = reason_end == "NATURAL_END_OF_TRACK"
    device = platform(f"{row.get('device os name', '')} {row.get('device type', '')}")
    return play(
        reading,
        started,
        title,
        artist,
        album=text(row.get("album name")) or text(row.get("container album name")),
        genre=text(row.get("genre")),
        duration_ms=positive(row.get("media duration in milliseconds")),
        listened_ms=listened,
        skipped=is_skip(None if whole else listened, reason_end == "TRACK_SKIPPED_FORWARDS"),
        completed=whole if reason_end else None,
        country=text(row.get("ip country code")),
        device_type=device.device_type,
        os=device.os,
        player="Apple Music",
        reason_end=_ENDS.get(reason_end),
    )


# How Takeout says that something was watched, in the languages of most exports: before or behind the title.
_BEFORE = (
    "Watched ",
    "Vous avez regardé ",
    "Has visto ",
    "Viste ",
    "Hai guardato ",
    "Você assistiu a ",
    "Du såg ",
)
_BEHIND = (" angesehen", " bekeken")
_TOPIC = " - Topic"


def youtube(file: BinaryIO, reading: Reading, prefix: str = "item") -> Iterator[Row]:
    """What was played in YouTube Music."""
    for row in read.objects(file, prefix):
        yield row if isinstance(row, Left) else _youtube(row, reading)


def _youtube(row: dict[str, Any], reading: Reading) -> Row:
    title = text(row.get("title"))
    if row.get("header") != "YouTube Music":
        return Left("video", example(None, title))
    channels = row.get("subtitles")
    channel = channels[0] if isinstance(channels, list) and channels else {}
    artist = text(channel.get("name")) if isinstance(channel, dict) else None
    watched = _watched(title) if title else None
    # Of a video that is gone only the address is left.
    if watched is None or watched.startswith(("https://", "http://")):
        return Left("no_title", example(artist, title))
    return play(
        reading,
        moment(row.get("time")),
        watched,
        None if artist is None else artist.removesuffix(_TOPIC),
        player="YouTube Music",
    )


def _watched(title: str) -> str:
    for word in _BEFORE:
        if title.startswith(word):
            return title.removeprefix(word)
    for word in _BEHIND:
        if title.endswith(word):
            return title.removesuffix(word).strip('„“”"')
    return title


def deezer(file: BinaryIO, reading: Reading, prefix: str = "") -> Iterator[Row]:
    """Rows of the listening history."""
    for row in read.cells(file, DEEZER):
        if isinstance(row, Left):
            yield row
            continue
        listened = milliseconds(row.get("listening time"), 1000)
        device = platform(f"{row.get('platform name') or ''} {row.get('platform model') or ''}")
        title, artist = (_cell(row.get(name)) for name in ("song title", "artist"))
        yield play(
            reading,
            moment(row.get("date")),
            title,
            artist,
            album=text(_cell(row.get("album title"))),
            listened_ms=listened,
            skipped=is_skip(listened),
            device_type=device.device_type,
            os=device.os,
            player="Deezer",
        )


def _cell(value: Any) -> str | None:
    """A cell as text: spreadsheets take the song "1999" for a number."""
    return (
        value
        if value is None or isinstance(value, str)
        else f"{value:g}"
        if isinstance(value, float)
        else str(value)
    )
