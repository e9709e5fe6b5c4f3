"""Exports of scrobbling services and players.

Their times are when a play began. Shapes are those of the writers:

- ListenBrainz: listens of its API, in an array (old export) or a line each (listens/<year>/*.jsonl).
- Last.fm has no export of its own. JSON in the shape of user.getRecentTracks, flat or in pages;
  lastfmstats.com's JSON and CSV (`;`, the date in ms); mainstream.ghan.nl's CSV (uts, artist, album, track);
  and lastfm-to-csv's, four values without a header.
- Maloja: {"scrobbles": [{"time", "track": {"artists", "title", "album", "length"}, "duration", "origin"}]}.
- Koito: {"version", "listens": [{"listened_at", "track", "album", "artists"}]}, names as lists of aliases.
- Pano Scrobbler: JSON lines or CSV with timeMs, artist, track, album, durationMs, event.
- Libre.fm: comments, then CSV with time, artist, track, album.
- Rockbox: tab-separated lines behind #AUDIOSCROBBLER/1.1; the clock is local unless #TZ/UTC says otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, BinaryIO

from music_streaming.error import MusicError
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
    printable,
    text,
    times,
)

EXPORT_KEY = "music_streaming"
"""Under additional_info of our own export: what ListenBrainz has no field for."""
OWN_TEXTS = ("genre", "country", "device_type", "os", "player", "session_id", "reason_start", "reason_end")
OWN_FLAGS = ("skipped", "liked", "completed")


class ClockError(MusicError):
    """A player's local time without the zone that it was in."""


def listenbrainz(file: BinaryIO, reading: Reading, prefix: str = "item") -> Iterator[Row]:
    """Listens of an old export."""
    return _each(read.objects(file, prefix), reading, _listen)


def listenbrainz_lines(file: BinaryIO, reading: Reading, prefix: str = "") -> Iterator[Row]:
    """Listens of an export zip, and of our own export."""
    return _each(read.json_lines(file), reading, _listen)


def _each(rows: Iterator[Any], reading: Reading, of: Any) -> Iterator[Row]:
    for row in rows:
        yield row if isinstance(row, Left) else of(row, reading)


def _map(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _listen(row: dict[str, Any], reading: Reading) -> Row:
    track = row.get("track_metadata")
    if not isinstance(track, dict):
        return Left("malformed", printable(", ".join(map(str, row))))
    info = _map(track.get("additional_info"))
    own = _map(info.get(EXPORT_KEY))
    listened = milliseconds(own.get("listened_ms"))
    if listened is None:
        listened = milliseconds(info.get("duration_played"), 1000)
    known: dict[str, Any] = {name: text(own.get(name)) for name in OWN_TEXTS}
    known |= {name: own[name] if isinstance(own.get(name), bool) else None for name in OWN_FLAGS}
    if not own:
        known["player"] = _first(info, "media_player", "music_service_name", "submission_client")
    started = moment(own.get("event_time"))
    return play(
        reading,
        times(row.get("listened_at"), 1000) if started is None else started,
        track.get("track_name"),
        track.get("artist_name"),
        album=text(track.get("release_name")),
        duration_ms=positive(info.get("duration_ms")) or positive(info.get("duration"), 1000),
        listened_ms=listened,
        **known,
    )


def _first(values: dict[str, Any], *names: str) -> str | None:
    return next((found for name in names if (found := text(values.get(name)))), None)


def lastfm(file: BinaryIO, reading: Reading, prefix: str = "item") -> Iterator[Row]:
    """Tracks in the shape of user.getRecentTracks."""
    return _each(read.objects(file, prefix), reading, _recent_track)


def _recent_track(row: dict[str, Any], reading: Reading) -> Row:
    artist, album = row.get("artist"), row.get("album")
    if isinstance(artist, dict):
        artist = artist.get("#text") or artist.get("name")
    if isinstance(album, dict):
        album = album.get("#text") or album.get("name")
    date = row.get("date")
    if date is None and _map(row.get("@attr")).get("nowplaying"):
        return Left("no_play", example(artist, row.get("name")))
    started = times(date.get("uts"), 1000) if isinstance(date, dict) else times(date, 1000)
    liked = True if row.get("loved") in ("1", 1) else None
    return play(reading, started, row.get("name"), artist, album=text(album), liked=liked)


def lastfmstats(file: BinaryIO, reading: Reading, prefix: str = "scrobbles.item") -> Iterator[Row]:
    """Scrobbles of lastfmstats.com's JSON; dates are in ms."""
    return _each(read.objects(file, prefix), reading, _lastfmstats)


def _lastfmstats(row: dict[str, Any], reading: Reading) -> Row:
    started = times(row.get("date"), 1)
    return play(reading, started, row.get("track"), row.get("artist"), album=text(row.get("album")))


def lastfmstats_csv(file: BinaryIO, reading: Reading, prefix: str = "") -> Iterator[Row]:
    """The same as CSV: Artist;Album;AlbumId;Track;Date#<user>."""

    def of(row: dict[str, str], reading: Reading) -> Row:
        date = next((value for name, value in row.items() if name.startswith("date")), "")
        return _lastfmstats({**row, "date": date}, reading)

    return _each(read.named(read.records(file, ";")), reading, of)


def lastfm_csv(file: BinaryIO, reading: Reading, prefix: str = "") -> Iterator[Row]:
    """CSV with a column uts."""

    def of(row: dict[str, str], reading: Reading) -> Row:
        started = times(row.get("uts"), 1000)
        return play(reading, started, row.get("track"), row.get("artist"), album=text(row.get("album")))

    return _each(read.named(read.records(file)), reading, of)


def lastfm_to_csv(file: BinaryIO, reading: Reading, prefix: str = "") -> Iterator[Row]:
    """CSV without a header: artist, album, track, "02 Jan 2024 15:04" in UTC."""
    for row in read.records(file):
        if isinstance(row, Left):
            yield row
        elif len(row) != 4:
            yield Left("malformed", printable(",".join(row)))
        else:
            artist, album, title, date = row
            yield play(reading, lastfm_date(date), title, artist, album=text(album))


def lastfm_date(date: str) -> float | None:
    """Unix ms of Last.fm's way to write a date, in UTC."""
    try:
        found = datetime.strptime(date.replace(",", "").strip(), "%d %b %Y %H:%M").replace(tzinfo=UTC)
    except ValueError:
        return None
    return found.timestamp() * 1000


def maloja(file: BinaryIO, reading: Reading, prefix: str = "scrobbles.item") -> Iterator[Row]:
    """Scrobbles of a Maloja export; several artists become one text, as in a scrobble."""

    def of(row: dict[str, Any], reading: Reading) -> Row:
        track = row.get("track")
        if not isinstance(track, dict):
            return Left("malformed", printable(", ".join(map(str, row))))
        artists, album = track.get("artists"), _map(track.get("album"))
        names = [name for name in artists if text(name)] if isinstance(artists, list) else [text(artists)]
        listened = positive(row.get("duration"), 1000)
        return play(
            reading,
            times(row.get("time"), 1000),
            track.get("title"),
            ", ".join(name for name in names if name),
            album=text(album.get("albumtitle")) or text(album.get("name")),
            duration_ms=positive(track.get("length"), 1000),
            listened_ms=listened,
            player=_client(row.get("origin")),
        )

    return _each(read.objects(file, prefix), reading, of)


def _client(origin: Any) -> str | None:
    name = (text(origin) or "").rpartition(":")[2].strip()
    return None if name in ("", "unknown", "legacy") else name


def koito(file: BinaryIO, reading: Reading, prefix: str = "listens.item") -> Iterator[Row]:
    """Listens of a Koito export; names are the primary aliases."""

    def of(row: dict[str, Any], reading: Reading) -> Row:
        track, artists = _map(row.get("track")), row.get("artists")
        names = [_alias(artist) for artist in artists] if isinstance(artists, list) else []
        return play(
            reading,
            moment(row.get("listened_at")),
            _alias(track),
            ", ".join(name for name in names if name),
            album=_alias(row.get("album")),
            duration_ms=positive(track.get("duration"), 1000),
            player=text(row.get("client")),
        )

    return _each(read.objects(file, prefix), reading, of)


def _alias(named: Any) -> str | None:
    aliases = _map(named).get("aliases")
    found = [alias for alias in aliases if isinstance(alias, dict)] if isinstance(aliases, list) else []
    primary = [alias for alias in found if alias.get("is_primary") is True] or found[:1]
    return text(primary[0].get("alias")) if primary else None


def pano(file: BinaryIO, reading: Reading, prefix: str = "") -> Iterator[Row]:
    """Entries of Pano Scrobbler's JSON lines."""
    return _each(read.json_lines(file), reading, _pano)


def pano_csv(file: BinaryIO, reading: Reading, prefix: str = "") -> Iterator[Row]:
    """The same as CSV."""

    def of(row: dict[str, str], reading: Reading) -> Row:
        names = {"timems": "timeMs", "durationms": "durationMs", "mediaplayername": "mediaPlayerName"}
        return _pano({names.get(name, name): value for name, value in row.items()}, reading)

    return _each(read.named(read.records(file)), reading, of)


def _pano(row: dict[str, Any], reading: Reading) -> Row:
    if row.get("event") not in (None, "", "scrobble"):
        return Left("no_play", example(row.get("artist"), row.get("track")))
    return play(
        reading,
        times(row.get("timeMs"), 1),
        row.get("track"),
        row.get("artist"),
        album=text(row.get("album")),
        duration_ms=positive(row.get("durationMs")),
        player=text(row.get("mediaPlayerName")),
    )


def librefm(file: BinaryIO, reading: Reading, prefix: str = "") -> Iterator[Row]:
    """Rows of a Libre.fm export; lines before the header that begin with # are comments."""

    def of(row: dict[str, str], reading: Reading) -> Row:
        started = times(row.get("time"), 1000)
        return play(reading, started, row.get("track"), row.get("artist"), album=text(row.get("album")))

    return _each(read.named(read.records(file, comment="#")), reading, of)


def rockbox(file: BinaryIO, reading: Reading, prefix: str = "") -> Iterator[Row]:
    """Lines of a .scrobbler.log: artist, album, title, number, seconds, L or S (skipped), time.

    ClockError where the clock is local and nobody said of which zone.
    """
    zone, player = reading.zone, "Rockbox"
    for line in read.lines(file):
        if isinstance(line, Left):
            yield line
            continue
        row = line.decode(errors="replace")
        if row.startswith("#"):
            if row.strip().upper() == "#TZ/UTC":
                zone = None
            elif row.upper().startswith("#TZ/") and reading.zone is None:
                raise ClockError.of(
                    "Rockbox log",
                    found=f"{printable(row)}: times of the player's own clock",
                    wanted="the zone that it was set to",
                    remedy="add --timezone, for example --timezone Europe/Berlin",
                )
            elif row.startswith("#CLIENT/"):
                player = printable(row.removeprefix("#CLIENT/").strip().partition(" ")[0], 64) or player
            continue
        yield _rockbox(row.split("\t"), reading, zone, player)


def _rockbox(values: list[str], reading: Reading, zone: Any, player: str) -> Row:
    if len(values) < 7:
        return Left("malformed", printable(" ".join(values)))
    artist, album, title, _, seconds, rating, clock = values[:7]
    if artist == "<Untagged>":
        return Left("no_artist", example(None, title))
    started = times(clock, 1000)
    if started is not None and zone is not None:
        try:
            started = moment(datetime(1970, 1, 1) + timedelta(milliseconds=started), zone)
        except OverflowError:
            started = None
    return play(
        reading,
        started,
        title,
        artist,
        album=text(album),
        duration_ms=positive(seconds, 1000),
        skipped=is_skip(None, rating.strip() == "S"),
        player=player,
    )
