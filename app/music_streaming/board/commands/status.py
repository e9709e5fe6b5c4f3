"""`musicctl status`: the board on one page."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import click
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from music_streaming import terminal
from music_streaming.board.growth import Growth
from music_streaming.board.status import Counted, Status, age, collect, size
from music_streaming.settings import Settings


@click.command()
@terminal.as_json
def status(as_json: bool) -> None:
    """Units, lag, freshness, totals and disk; exit code 1 when something is wrong."""
    settings = Settings.load()
    found = collect(settings)
    if as_json:
        terminal.print_json(found.to_dict())
    else:
        show(found, settings, terminal.console())
    raise SystemExit(0 if found.healthy else 1)


def show(status: Status, settings: Settings, console: Console) -> None:
    """Print `status` for people."""
    parts: list[Any] = [_units_table(status)]
    if status.counted:
        parts.append(_totals_table(status.counted, status.at))
        parts.append(_flow_table(status, status.counted, ZoneInfo(settings.display_time_zone)))
    if status.folders:
        parts.append(_disk_table(status))
    if status.counted:
        parts += _growth(status.counted.growth)
    if status.healthy:
        parts.append(Text("healthy", style="bold green"))
    else:
        parts.append(Text("degraded", style="bold red"))
        parts += [Text(f"- {problem}") for problem in status.problems]
    console.print(Group(*parts))


def _units_table(status: Status) -> Table:
    table = Table("unit", "state", "restarts", "since (UTC)", "", title="Units", title_justify="left")
    for unit in status.units:
        style = "green" if unit.active == "active" else ("yellow" if unit.ok else "red")
        state = Text(f"{unit.active} ({unit.sub})", style=style)
        table.add_row(unit.name, state, str(unit.restarts), unit.since, Text(unit.text))
    return table


def _totals_table(counts: Counted, now: datetime) -> Table:
    table = Table("source", title="Plays", title_justify="left")
    for name in ("accepted", "duplicates", "late", "expired", "newest"):
        table.add_column(name, justify="right")
    for total in counts.totals:
        numbers = (total.accepted, total.duplicates, total.late, total.expired)
        newest = f"{age(total.newest_event_time, now)} ago" if total.newest_event_time else "-"
        table.add_row(total.source, *(f"{number:,}" for number in numbers), newest)
    return table


def _flow_table(status: Status, counts: Counted, zone: ZoneInfo) -> Table:
    rejected = ", ".join(f"{reason} {number:,}" for reason, number in counts.rejected.items())
    table = Table("", "", title="Flow", title_justify="left", show_header=False)
    table.add_row("records waiting in Kafka", "unknown" if status.lag is None else f"{status.lag:,}")
    table.add_row(
        "last commit", f"{age(counts.last_commit, status.at)} ago" if counts.last_commit else "never"
    )
    table.add_row("plays in the last minute", f"{counts.events_last_minute:,}")
    table.add_row(
        "windows final up to", f"{counts.watermark.astimezone(zone):%F %T %Z}" if counts.watermark else "-"
    )
    if not status.clock_synchronised:
        table.add_row("clock", "not synchronised: nothing is deleted for its age, nor drawn back")
    if counts.batch_limit:
        limit = counts.batch_limit
        smaller = f" of {limit.most:,}: {limit.why}" if limit.why else ""
        table.add_row("records in a batch, at most", f"{limit.records:,}{smaller}")
    table.add_row("rejected", rejected or "none")
    table.add_row("lost before they were read", f"{counts.lost_records:,}")
    backup = counts.newest_backup
    table.add_row(
        "newest backup",
        f"{age(backup.taken_at, status.at)} ago, {size(backup.size)}"
        f"{'' if backup.secrets else ', without secrets'}: {backup.file}"
        if backup
        else "none: sudo musicctl backup",
    )
    return table


def _growth(growth: Growth) -> list[Any]:
    table = Table("part", title="Growth", title_justify="left")
    for name in ("size", "at most", "a day"):
        table.add_column(name, justify="right")
    for part in growth.parts:
        most = size(part.most) if part.most is not None else "-"
        sign = "-" if (part.a_day or 0) < 0 else "+"
        a_day = f"{sign}{size(abs(part.a_day))}" if part.a_day is not None else "-"
        table.add_row(part.name, size(part.size), most, a_day)
    return [*([table] if growth.parts else []), Text(f"disk: {growth}")]


def _disk_table(status: Status) -> Table:
    table = Table("folder", title="Disk", title_justify="left")
    table.add_column("used", justify="right")
    for folder in status.folders:
        table.add_row(folder.path, size(folder.used))
    if status.free_bytes is not None:
        table.add_row("free", size(status.free_bytes), end_section=True)
    return table
