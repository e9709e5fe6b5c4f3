"""The file of a backup: a tar whose last member, manifest.json, says what is in it.

Written as ``NAME.partial`` in one pass and renamed when all of it is on the disk. So a file that has its name
is whole; one that was cut short, or changed later, is found by its manifest and named.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import tarfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from music_streaming.error import MusicError

FORMAT = 1
MANIFEST, PARTIAL, SUFFIX = "manifest.json", ".partial", ".tar"
CHUNK = 1 << 20
# How often the room on the disk is looked at.
LOOK_BYTES = 64 << 20


class BackupError(MusicError):
    """A backup that cannot be made, read or restored."""


@dataclass(frozen=True)
class Sum:
    """Rows of a table, and the sum of a hash of each row; the same on every board and in any order."""

    rows: int
    hashes: str


@dataclass(frozen=True)
class Database:
    """A database as it was at the moment of the backup; size: bytes it took on the disk then.

    grants: (role, privilege) on the database itself, which a dump of it does not hold.
    """

    owner: str
    size: int
    tables: dict[str, Sum]
    grants: list[tuple[str, str]]


@dataclass(frozen=True)
class Member:
    """Bytes and SHA-256 of a member."""

    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What a backup is of and holds.

    migrations: name -> sha256 of each schema file applied, the version of the contract. position: topic,
    partition, topic id, next offset. secrets: whether they are in it, encrypted.
    """

    id: str
    at: datetime
    board: str
    versions: dict[str, str]
    migrations: dict[str, str]
    position: list[tuple[str, int, str, int]]
    databases: dict[str, Database]
    secrets: bool
    members: dict[str, Member] = field(default_factory=dict)

    def to_json(self) -> str:
        """As the last member holds it."""
        content = asdict(self) | {"format": FORMAT, "at": self.at.isoformat()}
        return json.dumps(content, indent=2, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str | bytes) -> Manifest:
        """ValueError, KeyError or TypeError where it is none."""
        content = json.loads(text)
        if content.pop("format") != FORMAT:
            raise ValueError("another format")
        content["at"] = datetime.fromisoformat(content["at"])
        content["position"] = [tuple(row) for row in content["position"]]
        content["members"] = {name: Member(**member) for name, member in content["members"].items()}
        content["databases"] = {
            name: Database(
                **database
                | {
                    "tables": {table: Sum(**found) for table, found in database["tables"].items()},
                    "grants": [tuple(grant) for grant in database["grants"]],
                }
            )
            for name, database in content["databases"].items()
        }
        return cls(**content)


class Writer:
    """A tar written in one pass, members of unknown size too. floor: bytes that stay free on the disk."""

    def __init__(self, path: Path, floor: int) -> None:
        self.path, self.partial, self.floor = path, path.with_name(path.name + PARTIAL), floor
        self.members: dict[str, Member] = {}
        self._file: IO[bytes] = self.partial.open("xb")
        os.fchmod(self._file.fileno(), 0o600)
        # Near the limit the room is looked at before each chunk.
        self._unlooked, self._near = 0, True

    def add(self, name: str, chunks: Iterable[bytes]) -> Member:
        """Add a member; BackupError where the disk has no room for it."""
        info = tarfile.TarInfo(name)
        info.mode, info.mtime = 0o600, int(datetime.now(UTC).timestamp())
        digest = hashlib.sha256()
        try:
            start = self._file.tell()
            self._file.write(info.tobuf(tarfile.GNU_FORMAT))
            for chunk in chunks:
                self._leave_room(len(chunk))
                digest.update(chunk)
                self._file.write(chunk)
                info.size += len(chunk)
            self._file.write(b"\0" * (-info.size % tarfile.BLOCKSIZE))
            end = self._file.tell()
            # Its size is known only now.
            self._file.seek(start)
            self._file.write(info.tobuf(tarfile.GNU_FORMAT))
            self._file.seek(end)
        except OSError as error:
            raise self._explained(error) from None
        self.members[name] = Member(info.size, digest.hexdigest())
        return self.members[name]

    def finish(self, manifest: str) -> int:
        """Add the manifest, bring all of it to the disk, give the file its name; its size in bytes."""
        self.add(MANIFEST, [manifest.encode()])
        try:
            self._file.write(b"\0" * 2 * tarfile.BLOCKSIZE)
            self._file.flush()
            os.fsync(self._file.fileno())
            size = self._file.tell()
            self._file.close()
            self.partial.rename(self.path)
            folder = os.open(self.path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise self._explained(error) from None
        return size

    def discard(self) -> None:
        """Remove what was written; nothing after `finish`."""
        # What could not be written to a full disk cannot be flushed either.
        with contextlib.suppress(OSError):
            self._file.close()
        self.partial.unlink(missing_ok=True)

    def _leave_room(self, more: int) -> None:
        self._unlooked += more
        if self._unlooked < LOOK_BYTES and not self._near:
            return
        self._unlooked = 0
        free = shutil.disk_usage(self.path.parent).free
        self._near = free - 2 * LOOK_BYTES < self.floor
        if free - more < self.floor:
            raise no_room(self.path.parent, free, self.floor + more)

    def _explained(self, error: OSError) -> BackupError:
        if error.errno == errno.ENOSPC:
            return no_room(self.path.parent, shutil.disk_usage(self.path.parent).free, self.floor)
        if error.errno == errno.EFBIG:
            return BackupError.of(
                f"Backup to {self.path.parent}",
                found="a file system that takes no file of this size, as FAT32 takes none above 4 GiB",
                wanted="one that does",
                remedy="format the disk as ext4 or exFAT.",
            )
        return BackupError.of(
            f"Backup to {self.path.parent}",
            found=f"{error.strerror} after {self._file.tell() if not self._file.closed else 0:,} bytes",
            wanted="a disk that can be written",
            remedy="look at dmesg, try another disk. Nothing that looks like a backup was left.",
        )


def no_room(folder: Path, free: int, wanted: int) -> BackupError:
    """That a disk has too little room; free, wanted: bytes."""
    return BackupError.of(
        f"Backup to {folder}",
        found=f"{free / 1e6:,.0f} MB free",
        wanted=f"{wanted / 1e6:,.0f} MB",
        remedy="delete old backups there, keep fewer (backup_keep_daily, backup_keep_weekly), or give "
        "another disk: sudo musicctl backup FOLDER.",
    )


class Reader:
    """A backup that is there. BackupError where the file is no whole backup."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with tarfile.open(path, "r:") as tar:
                self._where = {info.name: info for info in tar.getmembers()}
                content = tar.extractfile(self._where[MANIFEST])
                self.manifest = Manifest.from_json(content.read() if content else b"")
        except OSError as error:
            raise BackupError.of(
                f"Backup {path}",
                found=error.strerror or str(error),
                wanted="a file that can be read",
                remedy="sudo musicctl backup --list shows those that are there.",
            ) from None
        except (tarfile.TarError, KeyError, ValueError, TypeError, AttributeError) as error:
            raise BackupError.of(
                f"Backup {path}",
                found=f"no manifest at its end, so that it is cut short or no backup ({error})",
                wanted="a whole file",
                remedy="take another backup; sudo musicctl backup --list shows those that are there.",
            ) from None

    def names(self) -> list[str]:
        """The members, without the manifest, in order."""
        return [name for name in self._where if name != MANIFEST]

    def chunks(self, name: str) -> Iterator[bytes]:
        """The content of a member."""
        info = self._where[name]
        with self.path.open("rb") as file:
            file.seek(info.offset_data)
            left = info.size
            while left > 0:
                chunk = file.read(min(CHUNK, left))
                if not chunk:
                    raise self._corrupted(name, f"{info.size - left:,} bytes")
                left -= len(chunk)
                yield chunk

    def read(self, name: str) -> bytes:
        """The whole content of a small member."""
        return b"".join(self.chunks(name))

    def check(self, progress: Callable[[int], Any] = lambda _: None) -> None:
        """Compare every member with its checksum; progress: called with bytes read since the last call."""
        wanted = self.manifest.members
        if missing := sorted(set(wanted) - set(self.names())):
            raise self._corrupted(missing[0], "nothing")
        for name, member in wanted.items():
            digest = hashlib.sha256()
            for chunk in self.chunks(name):
                digest.update(chunk)
                progress(len(chunk))
            if digest.hexdigest() != member.sha256:
                raise self._corrupted(name, f"SHA-256 {digest.hexdigest()[:12]}")

    def _corrupted(self, name: str, found: str) -> BackupError:
        member = self.manifest.members.get(name)
        return BackupError.of(
            f"Backup {self.path}, its part {name}",
            found=found,
            wanted=f"SHA-256 {member.sha256[:12]}, {member.size:,} bytes" if member else "the whole part",
            remedy="the file was changed or its disk fails: use another one (sudo musicctl backup --list).",
        )
