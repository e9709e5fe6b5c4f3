"""Rows of JSON, JSON lines, CSV and XLSX, one at a time: memory stays flat whatever a file's size.

Each yields what the file has, and a `Left` where it cannot be read on; none raises for what is in it.
"""

from __future__ import annotations

import csv
import io
import json
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any, BinaryIO
from xml.etree.ElementTree import ParseError

from music_streaming.imports.document import BrokenError, elements
from music_streaming.imports.plays import Left, printable

LINE_LIMIT = 1 << 20
"""Longest line of JSON lines or CSV in bytes: a play takes a few hundred."""

BOM = b"\xef\xbb\xbf"


def objects(file: BinaryIO, path: str) -> Iterator[dict[str, Any] | Left]:
    """Each object of an array within a JSON document ("item", "listens.item")."""
    try:
        for found in elements(file, path.split(".")):
            yield found if isinstance(found, dict) else Left("malformed", printable(found))
    except BrokenError as error:
        yield Left("broken", printable(str(error)))


def lines(file: BinaryIO) -> Iterator[bytes | Left]:
    """Each line that is not blank, without its end."""
    if file.read(3) != BOM:
        file.seek(0)
    while line := file.readline(LINE_LIMIT + 1):
        if len(line) > LINE_LIMIT:
            while line and not line.endswith(b"\n"):
                line = file.readline(LINE_LIMIT)
            yield Left("malformed", f"a line longer than {LINE_LIMIT:,} bytes")
        elif line.strip():
            yield line.rstrip(b"\r\n")


def json_lines(file: BinaryIO) -> Iterator[dict[str, Any] | Left]:
    """Each object of a file with one JSON document a line."""
    for line in lines(file):
        if isinstance(line, Left):
            yield line
            continue
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            found = None
        yield (
            found if isinstance(found, dict) else Left("malformed", printable(line.decode(errors="replace")))
        )


def records(file: BinaryIO, delimiter: str = ",", comment: str | None = None) -> Iterator[list[str] | Left]:
    """Each row of a CSV file as its values, the header too."""
    if file.read(3) != BOM:
        file.seek(0)
    # NUL ends a row for Python's reader before 3.11 only; as a character it is refused where it matters.
    wrapper = io.TextIOWrapper(_Unclosed(file), encoding="utf-8", errors="replace", newline="")
    source = _limited(wrapper)
    rows = csv.reader(source if comment is None else _without(source, comment), delimiter=delimiter)
    while True:
        try:
            row = next(rows, None)
        except csv.Error as error:
            yield Left("malformed", printable(str(error)))
            continue
        if row is None:
            return
        if row:
            yield row


def _limited(wrapper: io.TextIOWrapper) -> Iterator[str]:
    while line := wrapper.readline(LINE_LIMIT):
        yield line


def _without(source: Iterator[str], comment: str) -> Iterator[str]:
    return (line for line in source if not line.startswith(comment))


class _Unclosed(io.BufferedReader):
    """Leaves the file open when the wrapper around it goes."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(_Raw(file))


class _Raw(io.RawIOBase):
    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        found = self._file.read(len(buffer))
        buffer[: len(found)] = found
        return len(found)


def named(
    rows: Iterator[list[str] | Left], header: Sequence[str] | None = None
) -> Iterator[dict[str, str] | Left]:
    """Each row behind the header as name (in lower case) -> value; Left where the lengths differ."""
    for row in rows:
        if isinstance(row, Left):
            yield row
        elif header is None:
            header = [name.strip().lower() for name in row]
        elif len(row) > len(header) or len(row) < 2:
            yield Left("malformed", printable(",".join(row)))
        else:
            # A row that leaves out empty values at its end.
            yield dict(zip(header, chain(row, [""] * (len(header) - len(row))), strict=True))


def cells(file: BinaryIO, wanted: frozenset[str]) -> Iterator[dict[str, Any] | Left]:
    """Each row of the first sheet of a workbook whose header has the wanted names (in lower case)."""
    import openpyxl  # noqa: PLC0415  loads much, for one format
    from openpyxl.utils.exceptions import InvalidFileException  # noqa: PLC0415

    try:
        book = openpyxl.load_workbook(file, read_only=True, data_only=True)
        for sheet in book.worksheets:
            # Some writers leave a wrong size behind, at which openpyxl would stop.
            sheet.reset_dimensions()
            header: list[str] | None = None
            for row in sheet.iter_rows(values_only=True):
                if header is None:
                    header = [str(value or "").strip().lower() for value in row]
                    if not wanted <= set(header):
                        break
                elif any(value is not None for value in row):
                    yield dict(zip(header, row, strict=False))
            if header and wanted <= set(header):
                return
    except (InvalidFileException, zipfile.BadZipFile, ParseError, KeyError, ValueError, TypeError, OSError,
            AttributeError, IndexError, EOFError, NotImplementedError, zlib.error) as error:  # fmt: skip
        yield Left("broken", printable(f"{type(error).__name__}: {error}"))
