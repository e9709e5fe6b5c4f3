"""Where backups lie: a folder, or a disk by its label; which are there, and which go when new ones come."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from music_streaming.backup.archive import PARTIAL, SUFFIX, BackupError

LABEL = "label:"
MOUNTS = Path("/run/music-backup")
_NAME = re.compile(r"music-(?P<board>[A-Za-z0-9.-]+)-(?P<at>\d{8}T\d{6}Z)\.tar$")
_TIME = "%Y%m%dT%H%M%SZ"


@dataclass(frozen=True)
class Kept:
    """A backup by its file: of which board, from when, and how many bytes it has."""

    path: Path
    board: str
    at: datetime
    size: int


def file_name(board: str, at: datetime) -> str:
    """The name of a backup; times in UTC."""
    return f"music-{re.sub('[^A-Za-z0-9.-]', '-', board)}-{at.astimezone(UTC):{_TIME}}{SUFFIX}"


def free_path(folder: Path, board: str, at: datetime) -> Path:
    """Where a backup of that moment goes: the first second from then on that none has."""
    while (path := folder / file_name(board, at)).exists():
        at += timedelta(seconds=1)
    return path


def kept(folder: Path) -> list[Kept]:
    """The backups of a folder, newest first; by their names, none is opened."""
    found = []
    for path in folder.glob(f"music-*{SUFFIX}"):
        if match := _NAME.match(path.name):
            at = datetime.strptime(match["at"], _TIME).replace(tzinfo=UTC)
            found.append(Kept(path, match["board"], at, path.stat().st_size))
    return sorted(found, key=lambda item: item.at, reverse=True)


def superfluous(backups: Iterable[Kept], daily: int, weekly: int) -> list[Kept]:
    """Those that go where the newest of the last `daily` days and of the last `weekly` weeks stay.

    Days and weeks (Monday first) of UTC in which there is a backup at all: a board that was off keeps its old
    ones.
    """
    newest = sorted(backups, key=lambda item: item.at, reverse=True)
    stay: set[Path] = set()
    for form, count in (("%F", daily), ("%G-%V", weekly)):
        first: dict[str, Path] = {}
        for item in newest:
            first.setdefault(item.at.strftime(form), item.path)
        stay |= set(list(first.values())[:count])
    return [item for item in newest if item.path not in stay]


@contextlib.contextmanager
def opened(place: str, *, write: bool = False) -> Iterator[Path]:
    """The folder that `place` names; a disk that is named by its label is mounted meanwhile, if it is not.

    write: make the folder itself, not those above it. BackupError where the disk is not there: nothing is
    written to the card beneath a disk that is missing.
    """
    if place.startswith(LABEL):
        label, _, below = place.removeprefix(LABEL).partition("/")
        with _mounted(label) as root:
            yield _folder(root / below, write=write)
    else:
        folder = Path(place).absolute()
        _refuse_missing_disk(folder)
        yield _folder(folder, write=write)


def _folder(folder: Path, *, write: bool) -> Path:
    try:
        if write:
            if not folder.exists():
                folder.mkdir(mode=0o700)
            if not os.access(folder, os.W_OK):
                raise PermissionError(0, "not writable")
        os.listdir(folder)
    except OSError as error:
        raise BackupError.of(
            f"Backup to {folder}",
            found=error.strerror or "no folder",
            wanted="a folder that is there, or whose parent is, and root's to write",
            remedy=f"mkdir -p {folder}, or plug in and mount the disk that it is on.",
        ) from None
    return folder


def _refuse_missing_disk(folder: Path) -> None:
    """Where /etc/fstab names a disk for it and that is not mounted, it would be the card's."""
    shown = subprocess.run(
        ["findmnt", "--fstab", "--json", "--output", "TARGET"], capture_output=True, text=True, check=False
    ).stdout
    entries = json.loads(shown)["filesystems"] if shown.strip() else []
    for target in (entry["target"] for entry in entries):
        at = Path(str(target))
        if at != Path("/") and folder.is_relative_to(at) and not os.path.ismount(at):
            raise BackupError.of(
                f"Backup to {folder}",
                found=f"nothing mounted at {at}, which /etc/fstab names",
                wanted="its disk",
                remedy=f"plug it in, sudo mount {at}",
            )


@contextlib.contextmanager
def _mounted(label: str) -> Iterator[Path]:
    device = _said("blkid", "--label", label)
    if not device:
        raise BackupError.of(
            f"Disk {label}",
            found=f"labels {', '.join(_labels()) or 'of no disk'}",
            wanted=f"a disk with the label {label}",
            remedy="plug it in; sudo e2label DEVICE NAME (ext4) or exfatlabel names a disk.",
        )
    if at := _said("findmnt", "--noheadings", "--first-only", "--output", "TARGET", "--source", device):
        yield Path(at)
        return
    at_folder = MOUNTS / label
    at_folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        ["mount", "-o", "noatime,nosuid,nodev,noexec", device, str(at_folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise BackupError.of(
            f"Disk {label} ({device})",
            found=" ".join(done.stderr.split()),
            wanted="a file system that can be mounted",
            remedy="check it on another computer, or format it: mkfs.ext4 -L NAME DEVICE",
        )
    try:
        yield at_folder
    finally:
        subprocess.run(["umount", str(at_folder)], check=False)
        with contextlib.suppress(OSError):
            at_folder.rmdir()


def _labels() -> list[str]:
    return sorted(set(_said("blkid", "--match-tag", "LABEL", "--output", "value").splitlines()))


def _said(*argv: str) -> str:
    return subprocess.run(argv, capture_output=True, text=True, check=False).stdout.strip()


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """One backup or restore at a time; BackupError for a second one. folder: the board's data."""
    held = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise BackupError.of(
            "Backup",
            found="another backup or restore at work",
            wanted="none",
            remedy="wait for it: systemctl status music-backup",
        ) from None
    finally:
        os.close(held)


def remove_cut_off(folder: Path) -> None:
    """Remove what a backup that was killed has left."""
    for path in folder.glob(f"music-*{SUFFIX}{PARTIAL}"):
        path.unlink(missing_ok=True)
