"""The first links that `musicctl doctor` looks at: the board itself, its clock, its disk, Docker.

A link's function returns what was seen, and raises Broken, Doubtful or Unseen (breakages.py).
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import psycopg2

from music_streaming import clock
from music_streaming.board import systemd
from music_streaming.board.breakages import DOCKER, UNITS, Broken, Doubtful, Unseen
from music_streaming.board.engine import Engine, EngineError
from music_streaming.board.status import CLOCKS_DIFFER, FREE_BYTES_WANTED, size
from music_streaming.error import MusicError
from music_streaming.settings import Role, Settings

# Part of all inodes that must be left.
FREE_INODES_WANTED = 0.01
# On a single board site.yml stops these where the owner wants none.
MAY_BE_STOPPED = ("music-producer", "music-scrobble", "music-forward")
NEEDS_ROOT = "only root may look: sudo musicctl doctor"


@dataclass(frozen=True)
class Board:
    """What the links are asked of: settings, systemd, Docker; root: where files of the system lie."""

    settings: Settings
    systemd: systemd.Systemd = field(default_factory=systemd.Systemd)
    engine: Engine = field(default_factory=Engine)
    root: Path = Path("/")

    def now(self) -> datetime:
        """The time by the board's clock."""
        return datetime.now(UTC)

    def may_read(self, role: Role) -> bool:
        """Whether this user may read the password of `role`, where there is one at all."""
        path = self.settings.postgres.secrets_dir / f"postgres_{role}"
        return os.access(path, os.R_OK) or not path.exists()


def board(of: Board) -> str:
    """Units of the appliance are installed."""
    try:
        installed = of.systemd.installed()
    except systemd.SystemdError as error:
        raise Broken("no-systemd", str(error)) from error
    if not installed:
        raise Broken("no-units", "none")
    # Links of what is enabled are left behind by a unit's file that is gone.
    for wanted in sorted((of.root / "etc/systemd/system/music.target.wants").glob("music-*.service")):
        if not wanted.exists():
            raise Broken("unit-gone", f"no file {wanted.readlink()}", unit=wanted.stem)
    return f"{len(installed)} units installed"


def clock_link(of: Board) -> str:
    """The clock is not behind what the database knows, and a time server keeps it right."""
    last = _last_commit(of)
    if last and last - of.now() > CLOCKS_DIFFER:
        behind = (last - of.now()).total_seconds()
        raise Broken(
            "clock-behind", f"a batch stored {behind:,.0f} s ahead of the clock ({of.now():%F %T} UTC)"
        )
    if not clock.synchronised(trusted=of.settings.stream.clock_trusted):
        raise Doubtful("clock-alone", f"{of.now():%F %T} UTC, not synchronised")
    return f"{of.now():%F %T} UTC"


def _last_commit(of: Board) -> datetime | None:
    """When the last batch was stored; None where the database does not tell: another link's matter."""
    try:
        with (
            of.settings.postgres.connection(Role.READER, application="musicctl-doctor") as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute("SELECT max(committed_at) FROM ingest_batches")
            (last,) = cursor.fetchone() or (None,)
    except (MusicError, psycopg2.Error):
        return None
    return last if isinstance(last, datetime) else None


def disk(of: Board) -> str:
    """The folder of all data is there, can be written, and has room."""
    data = of.settings.paths.data
    try:
        room, state = shutil.disk_usage(data), os.statvfs(data)
    except OSError as error:
        raise Broken("disk-missing", f"{data}: {error.strerror}", data=data) from error
    if state.f_flag & os.ST_RDONLY:
        raise Broken("disk-read-only", f"{data} mounted read-only")
    if room.free < FREE_BYTES_WANTED:
        raise Broken("disk-full", f"{size(room.free)} free at {data}")
    if state.f_files and state.f_favail < FREE_INODES_WANTED * state.f_files:
        raise Broken("disk-full", f"{state.f_favail:,} inodes free at {data}")
    return f"{size(room.free)} free"


def docker(of: Board) -> str:
    """Docker answers, and has the image of every unit here."""
    seen = running(of, *UNITS[DOCKER])
    if not of.engine.may_ask:
        raise Unseen(f"docker.service is active; {NEEDS_ROOT}")
    images = {
        unit.image: unit.name for name in of.systemd.installed() if (unit := of.systemd.unit(name)).image
    }
    try:
        version = of.engine.version()
        missing = of.engine.missing(sorted(images))
    except EngineError as error:
        raise Broken("docker-silent", str(error), unit="docker") from error
    if missing:
        raise Broken("image-missing", f"no {missing[0]} in Docker", unit=images[missing[0]])
    return f"{seen}, Docker {version} with {len(images)} images"


def running(of: Board, *names: str) -> str:
    """These units are active, and come back at boot; on a board that has none of them Unseen is raised.

    Where one is not: the first in this order.
    """
    units = [of.systemd.unit(name) for name in names]
    here = [unit for unit in units if unit.load != "not-found"]
    if not here:
        raise Unseen(f"{names[0]} is not of this board")
    # A board has all units of a link, but of Spark's.
    for unit in here:
        _running(unit)
    return ", ".join(unit.name for unit in here)


def _running(unit: systemd.Unit) -> None:
    state = f"{unit.name} {unit.active} ({unit.sub})"
    optional = unit.name in MAY_BE_STOPPED
    if unit.load == "masked":
        raise Broken("unit-masked", f"{unit.name} masked", unit=unit.name)
    if unit.active == "failed":
        raise Broken("unit-failed", f"{state}, result {unit.result} {unit.text}".strip(), unit=unit.name)
    if unit.active in ("inactive", "deactivating") and not optional:
        raise Broken("unit-stopped", state, unit=unit.name)
    if unit.active == "activating":
        raise Broken("unit-restarts", f"{state}, {unit.restarts} restarts", unit=unit.name)
    if unit.enabled == "disabled" and not optional:
        raise Broken("unit-disabled", f"{unit.name} active and disabled", unit=unit.name)
