"""Takes a backup: one moment of both databases, what is remembered beside them, settings, and secrets."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import shutil
import socket
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from music_streaming.backup import contents, databases, place
from music_streaming.backup.archive import BackupError, Manifest, Reader, Writer, no_room
from music_streaming.settings import Settings

CONFIGURATION = Path("/etc/music")
# What stays free: what Kafka and PostgreSQL need on their disk, and a little on another one.
DATA_DISK_FLOOR, OTHER_DISK_FLOOR = 1 << 30, 64 << 20
# Of what the databases take on the disk, where no backup tells.
SHARE_OF_DISK = 0.5
# Of the newest backup.
GROWTH = 1.25

Progress = Callable[[str, int, int], Any]
"""Called with the step's name, how much of it is done, and of how much; 0 of 0 where that is not known."""


@dataclass(frozen=True)
class Taken:
    """A backup that was just taken; size in bytes; removed: older ones that went."""

    path: Path
    at: datetime
    seconds: float
    size: int
    secrets: bool
    removed: list[Path]


class Step:
    def __init__(self, progress: Progress, name: str, total: int) -> None:
        self._progress, self._name, self._total, self._done = progress, name, total, 0
        progress(name, 0, total)

    def __call__(self, more: int) -> None:
        self._done += more
        self._progress(self._name, self._done, self._total)


def take(
    settings: Settings,
    where: str,
    *,
    passphrase: str | None,
    rotate: bool = False,
    progress: Progress = lambda *_: None,
    configuration: Path = CONFIGURATION,
) -> Taken:
    """Write a backup to the place `where`; without a passphrase it holds no secrets.

    rotate: older ones go as the settings say, once this one is whole. BackupError where the place is not
    there, has too little room, or cannot be written; nothing that looks like a backup is left then.
    psycopg2.Error as it comes.
    """
    refuse_elsewhere(settings)
    began = datetime.now(UTC)
    with place.alone(settings.paths.data), place.opened(where, write=True) as folder:
        place.remove_cut_off(folder)
        board = socket.gethostname().partition(".")[0]
        floor = _floor(settings, folder)
        _refuse_to_fill(settings, folder, board, floor)
        writer = Writer(place.free_path(folder, board, began), floor)
        try:
            manifest = _write_databases(settings, writer, board, progress)
            writer.add(contents.FILES, [contents.files_tar(settings, configuration)])
            if passphrase:
                progress("encrypting the secrets", 0, 0)
                writer.add(contents.SECRETS, [contents.secrets_tar(settings, passphrase)])
            manifest = replace(manifest, secrets=bool(passphrase), members=writer.members)
            progress("bringing it to the disk", 0, 0)
            size = writer.finish(manifest.to_json())
        except BaseException:
            writer.discard()
            raise
        _read_back(writer.path, size, progress)
        _note(settings, manifest, writer.path, size)
        removed = _rotate(settings, folder, board) if rotate else []
    seconds = (datetime.now(UTC) - began).total_seconds()
    return Taken(writer.path, manifest.at, seconds, size, manifest.secrets, removed)


def refuse_elsewhere(settings: Settings) -> None:
    host = settings.postgres.admin_host
    if host.startswith("/") and not Path(host).exists():
        raise BackupError.of(
            "Backup",
            found=f"no socket of PostgreSQL in {host}",
            wanted="the board that runs PostgreSQL, and root",
            remedy="run it there, with sudo; if it is this one: systemctl status music-postgres",
        )


def _write_databases(settings: Settings, writer: Writer, board: str, progress: Progress) -> Manifest:
    postgres = settings.postgres
    with contextlib.ExitStack() as stack:
        taken = [stack.enter_context(databases.snapshot(postgres, name)) for name in _names(settings)]
        at = datetime.now(UTC)
        found = {}
        for one in taken:
            total = sum(one.sizes.values())
            found[one.name] = databases.described(one, Step(progress, f"adding up {one.name}", total))
            step = Step(progress, f"copying {one.name}", total)
            writer.add(f"{one.name}.dump", databases.dump(postgres, one, step))
        music = taken[0]
        return Manifest(
            id=str(uuid.uuid4()),
            at=at,
            board=board,
            versions=_versions(databases.server_version(postgres)),
            migrations=dict(music.rows("SELECT name, sha256 FROM schema_migrations ORDER BY name")),
            position=[
                (topic, partition, topic_id, offset)
                for topic, partition, topic_id, offset in music.rows(
                    "SELECT topic, partition, topic_id, next_offset FROM ingest_offsets ORDER BY 1, 2"
                )
            ],
            databases=found,
            secrets=False,
        )


def _names(settings: Settings) -> list[str]:
    return [settings.postgres.database, settings.postgres.superset_database]


def app_version() -> str:
    """The version of this program; "" where it is not installed."""
    try:
        return importlib.metadata.version("music-streaming")
    except importlib.metadata.PackageNotFoundError:
        return ""


def _versions(postgres: str) -> dict[str, str]:
    system = ""
    with contextlib.suppress(OSError):
        system = platform.freedesktop_os_release().get("PRETTY_NAME", "")
    return {
        "music-streaming": app_version(),
        "PostgreSQL": postgres,
        "Python": platform.python_version(),
        "system": f"{system} {platform.machine()}".strip(),
    }


def _floor(settings: Settings, folder: Path) -> int:
    same = os.stat(settings.paths.data).st_dev == os.stat(folder).st_dev
    return DATA_DISK_FLOOR if same else OTHER_DISK_FLOOR


def _refuse_to_fill(settings: Settings, folder: Path, board: str, floor: int) -> None:
    before = [item for item in place.kept(folder) if item.board == board]
    if before:
        expected = before[0].size * GROWTH
    else:
        with settings.postgres.admin_connection() as connection, connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_database_size(oid) FROM pg_database WHERE datname = ANY(%s)", (_names(settings),)
            )
            expected = sum(size for (size,) in cursor.fetchall()) * SHARE_OF_DISK
    free = shutil.disk_usage(folder).free
    if free < expected + floor:
        raise no_room(folder, free, int(expected) + floor)


def _read_back(path: Path, size: int, progress: Progress) -> None:
    """From the disk, not from memory, where the system lets go of it."""
    with path.open("rb") as file, contextlib.suppress(OSError):
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    Reader(path).check(Step(progress, "reading it back", size))


def _note(settings: Settings, manifest: Manifest, path: Path, size: int) -> None:
    with settings.postgres.admin_connection(settings.postgres.database) as connection, connection:
        connection.cursor().execute(
            "INSERT INTO backups (taken_at, file, bytes, secrets) VALUES (%s, %s, %s, %s)",
            (manifest.at, str(path), size, manifest.secrets),
        )


def _rotate(settings: Settings, folder: Path, board: str) -> list[Path]:
    mine = [item for item in place.kept(folder) if item.board == board]
    gone = place.superfluous(mine, settings.backup.daily, settings.backup.weekly)
    for item in gone:
        item.path.unlink(missing_ok=True)
    return [item.path for item in gone]


def verify(settings: Settings, path: Path, progress: Progress = lambda *_: None) -> Manifest:
    """Restore a backup into databases beside, compare the sum of every table, and remove them again.

    BackupError that names the part of the file or the table that differs.
    """
    refuse_elsewhere(settings)
    reader = Reader(path)
    with place.alone(settings.paths.data):
        reader.check(Step(progress, "reading the file", path.stat().st_size))
        refuse_too_large(settings, reader.manifest)
        for name, database in reader.manifest.databases.items():
            beside = f"{name}{databases.VERIFYING}"
            total = reader.manifest.members[f"{name}.dump"].size
            step = Step(progress, f"restoring {name} beside", total)
            try:
                chunks = partial(counted, reader, name, step)
                databases.restore_beside(settings.postgres, beside, database, chunks)
            finally:
                databases.drop(settings.postgres, beside)
        with settings.postgres.admin_connection(settings.postgres.database) as connection, connection:
            connection.cursor().execute(
                "UPDATE backups SET verified_at = now() WHERE taken_at = %s", (reader.manifest.at,)
            )
    return reader.manifest


def counted(reader: Reader, name: str, step: Callable[[int], Any]) -> Iterator[bytes]:
    """The dump of a database, with what was read told to `step`."""
    for chunk in reader.chunks(f"{name}.dump"):
        yield chunk
        step(len(chunk))


def refuse_too_large(settings: Settings, manifest: Manifest) -> None:
    """BackupError where the databases of a backup have no room beside what is on the disk of the data."""
    free = shutil.disk_usage(settings.paths.data).free
    wanted = sum(database.size for database in manifest.databases.values()) + DATA_DISK_FLOOR
    if free < wanted:
        raise BackupError.of(
            f"Disk of {settings.paths.data}",
            found=f"{free / 1e6:,.0f} MB free",
            wanted=f"{wanted / 1e6:,.0f} MB, for the databases of the backup beside those that are there",
            remedy="free some, or restore on a board with a larger disk.",
        )
