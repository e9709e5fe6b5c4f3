"""Which export a file is: told by what is in it, not by its name."""

from __future__ import annotations

import csv
import io
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import BinaryIO

from music_streaming.imports import scrobbles, services, spotify
from music_streaming.imports.document import BrokenError, elements
from music_streaming.imports.plays import Reading, Row
from music_streaming.imports.reading import BOM, json_lines

HEAD_BYTES = 1 << 16
"""How much of a file is looked at."""


@dataclass(frozen=True)
class Shape:
    """What the start of a file shows.

    kind: json, lines (a JSON document a line), csv, log, xlsx, or "" for none. places: path of each array of
    objects and the keys of its first one in lower case; of a line or a CSV file "" and the names.
    """

    kind: str
    places: Mapping[str, frozenset[str]] = field(default_factory=lambda: {"": frozenset()})


@dataclass(frozen=True)
class Format:
    """An export that can be read. minutes: its times have no seconds."""

    name: str
    parse: Callable[[BinaryIO, Reading, str], Iterator[Row]]
    kind: str
    keys: frozenset[str]
    prefix: str | None = None
    minutes: bool = False

    def place(self, shape: Shape) -> str | None:
        """Where in a file of this shape the rows are; None if it is of another format."""
        if self.kind != shape.kind:
            return None
        fitting = (place for place, keys in shape.places.items() if self.keys <= keys)
        return next((place for place in fitting if self.prefix in (None, place)), None)


def _format(name: str, parse: Callable[[BinaryIO, Reading, str], Iterator[Row]], kind: str, *keys: str,
            prefix: str | None = None, minutes: bool = False) -> Format:  # fmt: skip
    return Format(name, parse, kind, frozenset(keys), prefix, minutes)


# Those that know most of a play come first: of two exports in one import the first one's rows are taken.
FORMATS = (
    _format("Spotify extended streaming history", spotify.extended, "json", "ts", "ms_played"),
    _format("Apple Music play activity", services.apple, "csv", "event start timestamp", "song name"),
    _format("Deezer", services.deezer, "xlsx"),
    _format("Koito", scrobbles.koito, "json", "listened_at", "track", "artists", prefix="listens.item"),
    _format("ListenBrainz", scrobbles.listenbrainz_lines, "lines", "listened_at", "track_metadata"),
    _format("ListenBrainz (old export)", scrobbles.listenbrainz, "json", "listened_at", "track_metadata"),
    _format("Maloja", scrobbles.maloja, "json", "time", "track", prefix="scrobbles.item"),
    _format("Pano Scrobbler", scrobbles.pano, "lines", "timems", "artist", "track"),
    _format("Pano Scrobbler (CSV)", scrobbles.pano_csv, "csv", "timems", "artist", "track"),
    _format("Rockbox", scrobbles.rockbox, "log"),
    _format("Last.fm", scrobbles.lastfm, "json", "artist", "name", "url"),
    _format("Last.fm (short)", scrobbles.lastfm, "json", "artist", "name", "date"),
    _format("Last.fm (lastfmstats.com)", scrobbles.lastfmstats, "json", "artist", "track", "date"),
    _format("Last.fm (lastfmstats.com, CSV)", scrobbles.lastfmstats_csv, "csv", "artist", "track", "date#"),
    _format("Last.fm (CSV)", scrobbles.lastfm_csv, "csv", "uts", "artist", "track"),
    _format("Libre.fm", scrobbles.librefm, "csv", "time", "artist", "track"),
    _format("YouTube Music", services.youtube, "json", "header", "title", "time"),
    _format("Last.fm (lastfm-to-csv)", scrobbles.lastfm_to_csv, "csv", "no header", minutes=True),
    _format("Spotify streaming history", spotify.basic, "json", "endtime", "msplayed", minutes=True),
)


def recognise(file: BinaryIO) -> tuple[Format, str] | None:
    """The format of a file and where in it the rows are; None if it is no export. Leaves it at its start."""
    shape = shape_of(file)
    file.seek(0)
    for known in FORMATS:
        place = known.place(shape)
        if place is not None:
            return known, place
    return None


def shape_of(file: BinaryIO) -> Shape:
    """What the start of a file shows."""
    file.seek(0)
    head = file.read(HEAD_BYTES).removeprefix(BOM)
    if head.startswith(b"PK\x03\x04"):
        return Shape("xlsx") if _is_workbook(file) else Shape("")
    if head.startswith(b"#AUDIOSCROBBLER/"):
        return Shape("log")
    start = head.lstrip()[:1]
    if start in (b"{", b"["):
        return _json(head)
    return _csv(head.decode(errors="replace"))


def _is_workbook(file: BinaryIO) -> bool:
    file.seek(0)
    try:
        with zipfile.ZipFile(file) as archive:
            return "xl/workbook.xml" in archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return False


# Where in a document the rows may be: ours and those of pages of Last.fm's answers.
_PATHS = (
    "item",
    "item.item",
    "scrobbles.item",
    "listens.item",
    "track.item",
    "item.track.item",
    "recenttracks.track.item",
    "item.recenttracks.track.item",
)


def _json(head: bytes) -> Shape:
    first = next(json_lines(io.BytesIO(head)), None)
    keys = _lower(first)
    if keys & {"track_metadata", "timems"}:
        return Shape("lines", {"": keys})
    return Shape("json", {path: keys for path in _PATHS if (keys := _first(head, path))})


def _lower(row: object) -> frozenset[str]:
    return frozenset(key.lower() for key in row) if isinstance(row, dict) else frozenset()


def _first(head: bytes, path: str) -> frozenset[str]:
    """The keys of the first object there."""
    try:
        rows = (row for row in elements(io.BytesIO(head), path.split(".")) if isinstance(row, dict))
        return _lower(next(rows, None))
    except BrokenError:
        # The head ends somewhere within the document.
        return frozenset()


_DATE = re.compile(r"\d{1,2} [A-Z][a-z]{2} \d{4},? \d\d:\d\d")


def _csv(head: str) -> Shape:
    lines = [line for line in head.splitlines() if line.strip() and not line.startswith("#")][:1]
    for line in lines:
        for delimiter in (",", ";"):
            try:
                names = [name.strip() for name in next(csv.reader([line], delimiter=delimiter))]
            except (csv.Error, StopIteration):
                continue
            if len(names) == 4 and _DATE.fullmatch(names[3]):
                return Shape("csv", {"": frozenset({"no header"})})
            keys = frozenset("date#" if n.lower().startswith("date#") else n.lower() for n in names)
            if len(names) > 2 and (delimiter == ",") != ("date#" in keys):
                return Shape("csv", {"": keys})
    return Shape("")
