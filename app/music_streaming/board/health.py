"""How the board is, red first, each with the command to type: for the login banner and for notices."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg2

from music_streaming.board import pi
from music_streaming.board.doctor import BROKEN, NOTE, Diagnosis
from music_streaming.board.engine import EngineError
from music_streaming.board.machine import Board
from music_streaming.board.status import Status, size
from music_streaming.error import MusicError
from music_streaming.settings import Role

RED, YELLOW = "red", "yellow"
HOT, TOO_HOT = 80.0, 85.0
DAYS_LEFT_RED, DAYS_LEFT_YELLOW = 7, 30
# A card of 64 GB bears some 6 TB: less than a year at that rate.
WEAR_A_DAY = 20 * 10**9
# Shorter times tell nothing of a day.
WEAR_AFTER = timedelta(minutes=30)
# Rejects of the last hour: so many, so many times those of the hours before, and such a part of all records:
# the demo's history and a long import bring their few at once.
SURGE, SURGE_TIMES, SURGE_PART = 100, 10, 0.01
MOTD = Path("run/motd.d/music")
# Beside the folder of all data, whose disk may be what is missing.
STATE = Path("var/lib/music-health/state.json")

REJECTS = """
SELECT coalesce(sum(rejected) FILTER (WHERE committed_at > now() - interval '1 hour'), 0)::bigint,
       coalesce(sum(records) FILTER (WHERE committed_at > now() - interval '1 hour'), 0)::bigint,
       coalesce(sum(rejected) FILTER (WHERE committed_at <= now() - interval '1 hour'), 0)::float
       / greatest(1, extract(epoch FROM now() - interval '1 hour' - min(committed_at)) / 3600)::float
FROM ingest_batches
"""


@dataclass(frozen=True)
class Finding:
    """Something the owner should know: how bad (RED or YELLOW), what, and the command that shows or mends it.

    name: the same as long as it is the same matter.
    """

    level: str
    name: str
    found: str
    command: str


@dataclass(frozen=True)
class Written:
    """Bytes that services and the disk had written by then, since the board's start."""

    at: datetime
    by: Mapping[str, int]


@dataclass
class Health:
    """What was found, red first, when, and how much each service writes a day."""

    at: datetime
    findings: list[Finding]
    written: Written
    a_day: dict[str, int] = field(default_factory=dict)

    @property
    def red(self) -> list[Finding]:
        """What needs the owner."""
        return [finding for finding in self.findings if finding.level == RED]

    def to_dict(self) -> dict[str, Any]:
        """For --json and the file."""
        return asdict(self)


def state_file(of: Board) -> Path:
    """Where the state of the last hour is, which the next one compares with."""
    return of.root / STATE


def examine(of: Board, status: Status, diagnosis: Diagnosis, before: Written | None) -> Health:
    """Everything that is known of the board; before: what had been written at an earlier time."""
    findings = [*of_the_doctor(diagnosis), *of_the_pi(of.root)]
    if diagnosis.broken is None:
        findings += [
            Finding(RED, f"status: {problem.partition(':')[0]}", problem, "sudo musicctl status")
            for problem in status.problems
        ]
    findings += of_the_disk(status) + of_the_database(of)
    written = Written(status.at, written_now(of))
    a_day = written_a_day(before, written)
    findings += of_the_wear(a_day)
    findings.sort(key=lambda finding: finding.level != RED)
    return Health(status.at, findings, written, a_day)


def of_the_doctor(diagnosis: Diagnosis) -> list[Finding]:
    """The first broken link, and notes."""
    return [
        Finding(RED if step.state == BROKEN else YELLOW, f"{step.link}: {step.kind}", step.found, step.remedy)
        for step in diagnosis.steps
        if step.state in (BROKEN, NOTE)
    ]


def of_the_pi(root: Path = Path("/")) -> list[Finding]:
    """Its voltage, its temperature, and what the firmware does about them."""
    found = []
    state = pi.throttled(root)
    supply = "use the power supply made for this Pi; vcgencmd get_throttled"
    if state and state.now(pi.UNDER_VOLTAGE):
        found.append(Finding(RED, "under-voltage", "too little voltage now", supply))
    elif state and state.ever(pi.UNDER_VOLTAGE):
        found.append(Finding(YELLOW, "under-voltage", "too little voltage since the start", supply))
    if state and any(state.now(bit) for bit in (pi.CAPPED, pi.THROTTLED, pi.SOFT_LIMIT)):
        command = "vcgencmd get_throttled; vcgencmd measure_temp"
        found.append(Finding(YELLOW, "throttled", "the processor is slowed down", command))
    warm = pi.temperature(root)
    if warm is not None and warm >= HOT:
        level = RED if warm >= TOO_HOT else YELLOW
        found.append(
            Finding(level, "temperature", f"{warm:.0f} °C", "give it air or a fan; vcgencmd measure_temp")
        )
    return found


def of_the_disk(status: Status) -> list[Finding]:
    """In how many days it is full."""
    days = status.counted.growth.full_in_days if status.counted else None
    if days is None or days >= DAYS_LEFT_YELLOW:
        return []
    level = RED if days < DAYS_LEFT_RED else YELLOW
    return [Finding(level, "disk", f"full in {days} days, if all goes on as now", "sudo musicctl status")]


def of_the_database(of: Board) -> list[Finding]:
    """A surge of rejects; nothing where the database does not answer."""
    try:
        with (
            of.settings.postgres.connection(Role.READER, application="musicctl-health") as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute(REJECTS)
            (rejected, read, usual) = cursor.fetchone() or (0, 0, 0.0)
    except (MusicError, psycopg2.Error):
        return []
    found = []
    if rejected >= max(SURGE, SURGE_PART * read) and rejected > SURGE_TIMES * (usual or 0):
        command = "sudo musicctl sql -c 'SELECT reason, count(*) FROM rejected_events GROUP BY 1 ORDER BY 2'"
        surge = f"{rejected:,} of {read:,} records in the last hour, {usual or 0:,.0f} an hour before"
        found.append(Finding(YELLOW, "rejects", surge, command))
    return found


def written_now(of: Board) -> dict[str, int]:
    """Bytes that each service, and "disk" in all, has written since its start."""
    groups = {}
    with contextlib.suppress(MusicError):
        units = [of.systemd.unit(name) for name in of.systemd.installed()]
        groups = {unit.name: unit.group for unit in units if unit.group}
        with contextlib.suppress(EngineError):
            scopes = of.engine.containers().items()
            groups |= {name: f"system.slice/docker-{identity}.scope" for name, identity in scopes}
    found = pi.written_by_groups(groups, of.root)
    disk = pi.written_to_disk(of.settings.paths.data, of.root)
    return found | ({"disk": disk} if disk is not None else {})


def written_a_day(before: Written | None, now: Written) -> dict[str, int]:
    """Bytes a day since `before`; one that has been started anew since counts from its start."""
    if before is None or now.at - before.at < WEAR_AFTER:
        return {}
    days = (now.at - before.at) / timedelta(days=1)
    a_day = {}
    for name, total in now.by.items():
        since = before.by.get(name, 0)
        a_day[name] = int((total - since if total >= since else total) / days)
    return dict(sorted(a_day.items(), key=lambda item: -item[1]))


def of_the_wear(a_day: Mapping[str, int]) -> list[Finding]:
    """What wears the card out in less than a year."""
    if a_day.get("disk", 0) < WEAR_A_DAY:
        return []
    most = next((name for name in a_day if name != "disk"), "")
    found = f"{size(a_day['disk'])} written a day"
    if most:
        found += f", most by {most} ({size(a_day[most])})"
    return [Finding(YELLOW, "wear", found, "sudo musicctl health; put the data on a USB disk")]


def read_state(path: Path) -> dict[str, Any]:
    """The file of the last time; {} where there is none that can be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def written_before(state: Mapping[str, Any]) -> Written | None:
    """What had been written, from `read_state`."""
    try:
        return Written(datetime.fromisoformat(state["written"]["at"]), dict(state["written"]["by"]))
    except (KeyError, TypeError, ValueError):
        return None


def write_state(path: Path, content: Mapping[str, Any]) -> None:
    """Replace the file in one step, so that nobody reads half of it."""
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.part")
    text = json.dumps(content, default=_plain, ensure_ascii=False, indent=2)
    partial.write_text(text + "\n", encoding="utf-8")
    partial.chmod(0o644)
    partial.replace(path)


def _plain(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def banner(health: Health) -> str:
    """What the login shows: the worst first, each with the command; one line where all is well."""
    at = f"{health.at.astimezone(UTC):%F %R} UTC"
    if not health.findings:
        return f"music: all is well ({at})\n"
    lines = [f"music: {len(health.red)} red, {len(health.findings) - len(health.red)} yellow ({at})"]
    for finding in health.findings:
        lines.append(f"  {finding.level.upper():6} {finding.name}: {finding.found}")
        lines.append(f"         {finding.command}")
    return "\n".join(lines) + "\n"


def write_banner(root: Path, health: Health) -> None:
    """Into the folder of pam_motd(8), which the next boot empties."""
    path = root / MOTD
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(banner(health), encoding="utf-8")
    path.chmod(0o644)
