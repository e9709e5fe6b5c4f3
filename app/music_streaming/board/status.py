"""What `musicctl status` shows: units, how far the job is behind, what was counted, and the room on the disk.

Each service is asked on its own, so that a broken one is reported and hides no other.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg2

from music_streaming import broker, clock
from music_streaming.board.growth import SELECT_GROWTH, Growth, read_growth
from music_streaming.error import MusicError, database_error
from music_streaming.settings import Role, Settings

JOB = "music-metrics"
# These may be stopped on purpose.
PRODUCER, SCROBBLE, FORWARD = "music-producer", "music-scrobble", "music-forward"
# At work once a night, and once an hour.
BACKUP, HEALTH = "music-backup", "music-health"
SELECT_NEWEST_BACKUP = "SELECT taken_at, file, bytes, secrets FROM backups ORDER BY taken_at DESC LIMIT 1"
# A night may fail, three in a row have a reason.
BACKUP_OLD = timedelta(days=3)
# How the status of a unit begins that does not start because its image is missing (run-image).
IMAGE_MISSING = "image missing"
# A full disk stops Kafka and PostgreSQL alike; this much must be left.
FREE_BYTES_WANTED = 1024**3
# Between boards, and between this program and the database.
CLOCKS_DIFFER = timedelta(seconds=30)
# A gap is a permanent loss, but it is reported for this long only.
GAP_NEWS = timedelta(days=1)
# Cause of a gap -> what to do. Not a log that a power cut shortened: that is what a single board cannot keep.
GAP_REMEDIES = {
    "retention": "raise the retention of the topic",
    "hole": "sudo musicctl topics, since a compacted topic forgets plays",
    "topic_recreated": "none where a backup was restored on a new card, else let nobody delete the topic",
    "began_anew": "journalctl -u music-kafka tells what became of the log",
}


@dataclass(frozen=True)
class Unit:
    """A systemd unit of the appliance that is installed on this board."""

    name: str
    active: str
    sub: str
    restarts: int
    since: str
    text: str

    @property
    def ok(self) -> bool:
        """Whether it runs, or is one that need not run and is stopped."""
        return (
            self.active == "active"
            or (self.name in (BACKUP, HEALTH) and self.active == "activating")
            or (self.name in (PRODUCER, SCROBBLE, FORWARD, BACKUP, HEALTH) and self.active == "inactive")
        )


@dataclass(frozen=True)
class Partition:
    """How far the job is behind in one partition; records."""

    partition: int
    end_offset: int
    next_offset: int | None

    @property
    def lag(self) -> int:
        """Records that Kafka holds and the job has not committed."""
        return self.end_offset - (self.next_offset or 0)


@dataclass(frozen=True)
class Total:
    """What was counted for one source since the first start."""

    source: str
    accepted: int
    duplicates: int
    late: int
    expired: int
    newest_event_time: datetime | None


@dataclass(frozen=True)
class Limit:
    """How many records a batch may have, of the setting's number; why it is lower, or ""."""

    records: int
    most: int
    why: str


@dataclass(frozen=True)
class Backup:
    """The newest backup: the moment that it holds, its file, bytes, and whether the secrets are in it."""

    taken_at: datetime
    file: str
    size: int
    secrets: bool


@dataclass(frozen=True)
class Counted:
    """What PostgreSQL knows; all from one snapshot."""

    totals: list[Total]
    offsets: dict[int, int]
    rejected: dict[str, int]
    lost_records: int
    recent_gaps: dict[str, int]
    last_commit: datetime | None
    watermark: datetime | None
    events_last_minute: int
    inexact_sources: list[str]
    batch_limit: Limit | None
    growth: Growth = field(default_factory=lambda: read_growth([]))
    newest_backup: Backup | None = None


@dataclass(frozen=True)
class Folder:
    """Bytes that a folder takes on the disk."""

    path: str
    used: int


@dataclass
class Status:
    """Everything that was found; `problems` is empty on a healthy board."""

    at: datetime
    units: list[Unit] = field(default_factory=list)
    partitions: list[Partition] = field(default_factory=list)
    counted: Counted | None = None
    folders: list[Folder] = field(default_factory=list)
    free_bytes: int | None = None
    clock_synchronised: bool = True
    problems: list[str] = field(default_factory=list)

    @property
    def healthy(self) -> bool:
        """No problem was found."""
        return not self.problems

    @property
    def lag(self) -> int | None:
        """Records not yet committed, over all partitions; None where Kafka or PostgreSQL did not answer."""
        if not self.partitions or self.counted is None:
            return None
        return sum(partition.lag for partition in self.partitions)

    def to_dict(self) -> dict[str, Any]:
        """For --json: times as RFC 3339 text."""
        return asdict(self) | {"healthy": self.healthy, "lag": self.lag}


def collect(settings: Settings) -> Status:
    """Ask every part of the appliance; problems are noted, never raised."""
    status = Status(at=datetime.now(UTC))

    def ask(part: str, question: Callable[[], Any]) -> Any:
        try:
            return question()
        except (MusicError, OSError, subprocess.SubprocessError, psycopg2.Error) as error:
            fault = database_error(error) if isinstance(error, psycopg2.Error) else None
            status.problems.append(str(fault) if fault else f"{part}: {str(error).strip()}")
            return None

    status.clock_synchronised = clock.synchronised(trusted=settings.stream.clock_trusted)
    status.units = ask("systemd", units) or []
    status.counted = ask("PostgreSQL", lambda: counted(settings))
    ends = ask("Kafka", lambda: broker.ends_of_topic(settings.kafka))
    if ends is not None:
        next_offsets = status.counted.offsets if status.counted else {}
        status.partitions = [
            Partition(partition, end, next_offsets.get(partition)) for partition, end in sorted(ends.items())
        ]
    data = settings.paths.data
    status.folders = ask("disk", lambda: folders(data)) or []
    status.free_bytes = ask("disk", lambda: shutil.disk_usage(data).free)
    status.problems += diagnose(status, settings)
    return status


def diagnose(status: Status, settings: Settings) -> list[str]:
    """What is wrong with the parts that answered, one sentence each."""
    problems = [
        f"{unit.name}: found its image missing, wanted it in Docker. Remedy: run site.yml"
        if unit.text.startswith(IMAGE_MISSING)
        else f"{unit.name}: found {unit.active} ({unit.sub}), wanted active. "
        f"Remedy: journalctl -u {unit.name} -n 50"
        for unit in status.units
        if not unit.ok
    ]
    if not status.units:
        problems.append(
            "systemd: found no music-* unit on this board, wanted some. Remedy: run the play (site.yml)."
        )
    if status.free_bytes is not None and status.free_bytes < FREE_BYTES_WANTED:
        problems.append(
            f"disk: found {size(status.free_bytes)} free at {settings.paths.data}, "
            f"wanted {size(FREE_BYTES_WANTED)}. Remedy: lower the retention in the inventory, or add a disk."
        )
    if status.counted:
        problems += _diagnose_counts(status, status.counted, settings)
    return problems


def _diagnose_counts(status: Status, counts: Counted, settings: Settings) -> list[str]:
    problems = []
    stalled = timedelta(seconds=settings.spark.stall_seconds)
    silent = counts.last_commit is None or status.at - counts.last_commit > stalled
    ahead = counts.last_commit - status.at if counts.last_commit else timedelta()
    if ahead > CLOCKS_DIFFER:
        problems.append(
            f"clock: found the last commit {ahead.total_seconds():.0f} s ahead of it, wanted none. "
            "Remedy: timedatectl shows whether the clock is right; the job draws it back once it is"
        )
    if status.lag and silent:
        problems.append(
            f"{JOB}: found {status.lag} records waiting and last commit "
            f"{age(counts.last_commit, status.at)} ago, "
            f"wanted less than {stalled.total_seconds():.0f} s. Remedy: journalctl -u {JOB} -n 50"
        )
    problems += [
        f"{JOB}: found {number} new gaps in the last day ({cause}), wanted none. Remedy: "  # noqa: S608  a command to type
        f"{GAP_REMEDIES[cause]}; musicctl sql -c 'SELECT * FROM ingest_gaps'"
        for cause, number in counts.recent_gaps.items()
        if cause in GAP_REMEDIES
    ]
    backup = counts.newest_backup
    if backup and settings.backup.nightly and status.at - backup.taken_at > BACKUP_OLD:
        problems.append(
            f"backup: found the newest {age(backup.taken_at, status.at)} old, wanted one of the last "
            f"{BACKUP_OLD.days} days. Remedy: sudo musicctl backup shows what is wrong"
        )
    if counts.inexact_sources:
        problems.append(
            f"PostgreSQL: found metrics that differ from the plays of {', '.join(counts.inexact_sources)}, "
            "wanted equal sums. Remedy: musicctl validate"
        )
    return problems


def units() -> list[Unit]:
    """The installed music-* services, by name."""
    shown = subprocess.run(
        [
            "systemctl",
            "show",
            "music-*.service",
            "--all",
            "--property=Id,LoadState,ActiveState,SubState,NRestarts,StateChangeTimestamp,StatusText",
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=20,
        env=os.environ | {"LC_ALL": "C.UTF-8", "TZ": "UTC"},
    ).stdout
    return parse_units(shown)


def parse_units(shown: str) -> list[Unit]:
    """Units from the output of `systemctl show`: blocks of KEY=VALUE with an empty line between."""
    found = [
        dict(line.split("=", 1) for line in block.splitlines()) for block in shown.split("\n\n") if block
    ]
    return sorted(
        (
            Unit(
                name=unit["Id"].removesuffix(".service"),
                active=unit["ActiveState"],
                sub=unit["SubState"],
                restarts=int(unit["NRestarts"]),
                since=unit["StateChangeTimestamp"],
                text=unit.get("StatusText", ""),
            )
            for unit in found
            if unit.get("LoadState") == "loaded"
        ),
        key=lambda unit: unit.name,
    )


def counted(settings: Settings) -> Counted:
    """What PostgreSQL has counted, from one snapshot."""
    with settings.postgres.connection(Role.READER, application="musicctl-status") as connection:
        connection.set_session(isolation_level="REPEATABLE READ", readonly=True)
        with connection.cursor() as cursor:

            def rows(sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
                cursor.execute(sql, parameters)
                return cursor.fetchall()

            topic = settings.kafka.topic
            ((last_commit, per_minute),) = rows(
                "SELECT max(committed_at), coalesce(sum(accepted) FILTER"
                " (WHERE committed_at > now() - interval '1 minute'), 0)::bigint FROM ingest_batches"
            )
            ((lost,),) = rows("SELECT coalesce(sum(to_offset - from_offset), 0)::bigint FROM ingest_gaps")
            watermarks = rows("SELECT watermark FROM ingest_state WHERE topic = %s", topic)
            limits = rows("SELECT records, most, why FROM ingest_limits WHERE topic = %s", topic)
            return Counted(
                totals=[
                    Total(*row)
                    for row in rows(
                        "SELECT source, accepted, duplicates, late, expired, newest_event_time"
                        " FROM ingest_totals ORDER BY source"
                    )
                ],
                offsets=dict(
                    rows("SELECT partition, next_offset FROM ingest_offsets WHERE topic = %s", topic)
                ),
                rejected=dict(
                    rows("SELECT reason, rejected FROM ingest_reject_totals ORDER BY rejected DESC")
                ),
                lost_records=lost,
                recent_gaps=dict(
                    rows(
                        "SELECT cause, count(*) FROM ingest_gaps WHERE noticed_at > now() - %s"
                        " GROUP BY cause",
                        GAP_NEWS,
                    )
                ),
                last_commit=last_commit,
                watermark=watermarks[0][0] if watermarks else None,
                events_last_minute=per_minute,
                inexact_sources=[
                    row[0] for row in rows("SELECT source FROM ingest_exactness_recent WHERE NOT exact")
                ],
                batch_limit=Limit(*limits[0]) if limits else None,
                growth=read_growth(rows(SELECT_GROWTH)),
                newest_backup=next((Backup(*row) for row in rows(SELECT_NEWEST_BACKUP)), None),
            )


def folders(data: Path) -> list[Folder]:
    """Bytes on disk of each folder below `data` but the file system's own; files that vanish are left out."""
    return [
        Folder(str(path), _used(path))
        for path in sorted(data.iterdir())
        if path.is_dir() and path.name != "lost+found"
    ]


def _used(path: Path) -> int:
    total = 0
    for folder, _, names in os.walk(path):
        for name in names:
            try:
                total += os.lstat(os.path.join(folder, name)).st_blocks * 512
            except FileNotFoundError:
                continue
    return total


def size(count: int) -> str:
    """Bytes for people."""
    amount = float(count)
    for unit in ("B", "KiB", "MiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}"
        amount /= 1024
    return f"{amount:.1f} GiB"


def age(moment: datetime | None, now: datetime) -> str:
    """How long ago, for people."""
    if moment is None:
        return "never"
    # Clocks of several boards differ by some ms.
    seconds = max(0.0, (now - moment).total_seconds())
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 172_800 else f"{seconds / 86_400:.0f} days"
