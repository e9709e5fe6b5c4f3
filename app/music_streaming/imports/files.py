"""What is to be imported as files that can be read: a file, a folder, a zip, standard input.

A zip is read in place and never unpacked into a folder. What it may hold is limited before it is read.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, BinaryIO, cast

from music_streaming.error import MusicError
from music_streaming.imports.formats import Format, recognise

ENTRIES = 20_000
MEMBER_BYTES = 2 << 30
TOTAL_BYTES = 8 << 30
# Text as repetitive as these exports shrinks to a thirtieth.
RATIO = 200
# A small file may well be one letter.
RATIO_FROM_BYTES = 1 << 20
DEPTH = 2
_DRIVE = re.compile("[A-Za-z]:")

READ_ERRORS = (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, NotImplementedError)
"""What reading a damaged or encrypted member of a zip raises."""


class SourceError(MusicError):
    """Files that cannot be imported."""


@dataclass(frozen=True)
class Source:
    """One file. size: bytes, unpacked. format, place: as `recognise` tells; None for no export."""

    name: str
    file: BinaryIO
    size: int
    format: Format | None
    place: str


@contextlib.contextmanager
def sources(
    path: str, stdin: BinaryIO, folder: Path | None = None, called: str = "standard input"
) -> Iterator[list[Source]]:
    """Every file at `path` ("-" for standard input, `called` so), open until the block ends.

    folder: for what must be kept for the while. SourceError where nothing can be read, or a zip is refused.
    """
    with contextlib.ExitStack() as stack:
        if path == "-":
            whole = stdin
            # A pipe goes by once; a file need not be copied.
            if not stdin.seekable():
                whole = cast("BinaryIO", stack.enter_context(tempfile.TemporaryFile(dir=folder)))
                shutil.copyfileobj(stdin, whole)
                whole.seek(0)
            yield list(_opened(called, whole, stack, folder, 0))
            return
        found = Path(path)
        base = found if found.is_dir() else found.parent
        try:
            yield list(_all(sorted(_files(found)) if found.is_dir() else [found], base, stack, folder))
        except OSError as error:
            raise SourceError.of(
                "Import",
                found=f"{error.filename}: {error.strerror}",
                wanted="a file, folder or zip that can be read on this board",
                remedy="copy it here, or send it: ssh pi@BOARD sudo musicctl import - < FILE",
            ) from None


def _all(paths: list[Path], base: Path, stack: contextlib.ExitStack, folder: Path | None) -> Iterator[Source]:
    for path in paths:
        with contextlib.ExitStack() as own:
            found = list(
                _opened(str(path.relative_to(base)), own.enter_context(path.open("rb")), own, folder, 0)
            )
            if any(source.format for source in found):
                # Those that are read stay open; of all others there may be thousands.
                stack.enter_context(own.pop_all())
        yield from found


def _files(folder: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(folder):
        folders.sort()
        for name in names:
            path = Path(place, name)
            # Neither links, which may lead outside, nor pipes, which may never end.
            if stat.S_ISREG(path.lstat().st_mode):
                yield path


def _opened(
    name: str, file: BinaryIO, stack: contextlib.ExitStack, folder: Path | None, depth: int
) -> Iterator[Source]:
    size = file.seek(0, os.SEEK_END)
    try:
        found = recognise(file)
    except READ_ERRORS as error:
        raise _damaged(name, error) from None
    if found:
        if found[0].kind == "xlsx":
            with zipfile.ZipFile(file) as archive:
                _guard(name, archive)
        file.seek(0)
        yield Source(name, file, size, *found)
    elif zipfile.is_zipfile(file) and depth < DEPTH:
        try:
            archive = stack.enter_context(zipfile.ZipFile(file))
            _guard(name, archive)
            for entry in archive.infolist():
                if not entry.is_dir() and stat.S_IFMT(entry.external_attr >> 16) in (0, stat.S_IFREG):
                    if entry.compress_type == zipfile.ZIP_STORED:
                        _check(archive, entry)
                    member = _seekable(stack.enter_context(archive.open(entry)), stack, folder)
                    yield from _opened(f"{name}/{entry.filename}", member, stack, folder, depth + 1)
        except READ_ERRORS as error:
            raise _damaged(name, error) from None
    else:
        yield Source(name, file, size, None, "")


def _check(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> None:
    """Read a stored member to its end: from Python 3.13 on, its CRC is not asked for once one seeks in it."""
    with archive.open(entry) as file:
        while file.read(1 << 20):
            pass


def _seekable(file: IO[bytes], stack: contextlib.ExitStack, folder: Path | None) -> BinaryIO:
    """The member itself; of one that is a zip again, which is read at many places, a copy without a name."""
    zipped = file.read(4) == b"PK\x03\x04"
    file.seek(0)
    if not zipped:
        return cast("BinaryIO", file)
    copy: IO[bytes] = stack.enter_context(tempfile.TemporaryFile(dir=folder))  # noqa: SIM115  mypy
    shutil.copyfileobj(file, copy)
    return cast("BinaryIO", copy)


def _guard(name: str, archive: zipfile.ZipFile) -> None:
    """Refuse what an export never is; zipfile itself reads no more of a member than it says it has."""
    entries = archive.infolist()
    total = sum(entry.file_size for entry in entries)
    if len(entries) > ENTRIES:
        raise _refused(name, f"{len(entries):,} entries", f"at most {ENTRIES:,}")
    if total > TOTAL_BYTES:
        raise _refused(name, f"{total:,} bytes when unpacked", f"at most {TOTAL_BYTES:,}")
    for entry in entries:
        path = PurePosixPath(entry.filename.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or _DRIVE.match(str(path)):
            raise _refused(
                name, f"an entry that leads outside: {entry.filename!r}", "names within the archive"
            )
        if entry.file_size > MEMBER_BYTES:
            raise _refused(
                name, f"{entry.filename!r} of {entry.file_size:,} bytes", f"at most {MEMBER_BYTES:,}"
            )
        ratio = entry.file_size / max(1, entry.compress_size)
        if entry.file_size > RATIO_FROM_BYTES and ratio > RATIO:
            raise _refused(name, f"{entry.filename!r} packed {ratio:,.0f} to 1", f"at most {RATIO} to 1")


def _refused(name: str, found: str, wanted: str) -> SourceError:
    return SourceError.of(
        f"Archive {name}",
        found=found,
        wanted=wanted,
        remedy="unpack it yourself, look at it, import the folder.",
    )


def _damaged(name: str, error: Exception) -> SourceError:
    return SourceError.of(
        f"Archive {name}",
        found=f"{type(error).__name__}: {error}",
        wanted="a zip that can be read, without a password",
        remedy="download it again, or unpack it yourself and import the folder.",
    )
