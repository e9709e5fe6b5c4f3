"""Spotify's two exports, as its privacy page makes them.

Extended streaming history (Streaming_History_Audio_*.json, endsong_*.json before 2023): `ts` is the END of
the play, in UTC; `ms_played` how long it lasted. User name, IP address and user agent are not looked at.
Basic history (StreamingHistory*.json of the account data, one year): `endTime` in UTC and whole minutes.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

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
    printable,
    text,
)

PLAYER = "Spotify"


def extended(file: BinaryIO, reading: Reading, prefix: str = "item") -> Iterator[Row]:
    """Rows of the extended streaming history; each stays, short ones as skips."""
    for row in read.objects(file, prefix):
        yield row if isinstance(row, Left) else _extended(row, reading)


def _extended(row: dict[str, Any], reading: Reading) -> Row:
    if text(row.get("episode_name")) or row.get("spotify_episode_uri"):
        return Left("podcast", example(row.get("episode_show_name"), row.get("episode_name")))
    if text(row.get("audiobook_title")) or row.get("audiobook_uri"):
        return Left("audiobook", example(row.get("audiobook_title"), row.get("audiobook_chapter_title")))
    listened = milliseconds(row.get("ms_played"))
    if listened is None:
        return Left("malformed", _shown(row))
    end = moment(row.get("ts"))
    reason_end = text(row.get("reason_end"))
    whole = reason_end == "trackdone"
    device = platform(text(row.get("platform")) or "")
    return play(
        reading,
        None if end is None else end - listened,
        row.get("master_metadata_track_name"),
        row.get("master_metadata_album_artist_name"),
        album=text(row.get("master_metadata_album_album_name")),
        listened_ms=listened,
        # A song of less than 30 s that ran to its end is none.
        skipped=is_skip(None if whole else listened, row.get("skipped")) or False,
        completed=whole if reason_end else None,
        country=text(row.get("conn_country")),
        device_type=device.device_type,
        os=device.os,
        player=PLAYER,
        reason_start=text(row.get("reason_start")),
        reason_end=reason_end,
    )


def basic(file: BinaryIO, reading: Reading, prefix: str = "item") -> Iterator[Row]:
    """Rows of the account data's streaming history."""
    for row in read.objects(file, prefix):
        yield row if isinstance(row, Left) else _basic(row, reading)


def _basic(row: dict[str, Any], reading: Reading) -> Row:
    if "podcastName" in row or "episodeName" in row:
        return Left("podcast", example(row.get("podcastName"), row.get("episodeName")))
    if "audiobookName" in row or "chapterName" in row:
        return Left("audiobook", example(row.get("audiobookName"), row.get("chapterName")))
    listened = milliseconds(row.get("msPlayed"))
    if listened is None:
        return Left("malformed", _shown(row))
    end = moment(row.get("endTime"))
    return play(
        reading,
        None if end is None else end - listened,
        row.get("trackName"),
        row.get("artistName"),
        listened_ms=listened,
        skipped=is_skip(listened),
        player=PLAYER,
    )


def _shown(row: dict[str, Any]) -> str:
    """The names of a row's fields: its values may be an address."""
    return printable(", ".join(map(str, row)))


class Device(NamedTuple):
    """What Spotify's platform says, in the contract's words."""

    device_type: str | None
    os: str | None


# The first that fits. Televisions and speakers run systems that are named further down.
_PLATFORMS = (
    (r"web_player|webplayer", Device("web", None)),
    (r"cast|roku|_tv|tizen|webos|\btv\b", Device("tv", None)),
    (r"sonos|echo|speaker|alexa|avr|soundbar", Device("speaker", None)),
    (r"playstation|ps[345]|xbox|nintendo", Device("console", None)),
    (r"car thing|android auto|\bcar\b|tesla", Device("car", None)),
    (r"ipad", Device("tablet", "iPadOS")),
    (r"\bios\b|iphone|ipod", Device("mobile", "iOS")),
    (r"android.*(tab|sm-t|sm-x)", Device("tablet", "Android")),
    (r"android", Device("mobile", "Android")),
    (r"windows.?phone", Device("mobile", "Windows")),
    (r"windows", Device("desktop", "Windows")),
    (r"os x|osx|macos", Device("desktop", "macOS")),
    (r"chrome.?os", Device("desktop", "ChromeOS")),
    (r"linux", Device("desktop", "Linux")),
)
_COMPILED = tuple((re.compile(pattern, re.IGNORECASE), device) for pattern, device in _PLATFORMS)


@functools.lru_cache(maxsize=1024)
def platform(name: str) -> Device:
    """Device and system of a platform such as "Android OS 12 API 32 (...)" or "web_player windows 10"."""
    return next((device for pattern, device in _COMPILED if pattern.search(name)), Device(None, None))
