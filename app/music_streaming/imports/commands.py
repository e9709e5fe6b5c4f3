"""`musicctl import`, how far it is, and `musicctl export`."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from typing import BinaryIO
from zoneinfo import ZoneInfo, available_timezones

import click

from music_streaming import listener as people
from music_streaming import terminal
from music_streaming.imports import exporter, importer
from music_streaming.imports.importer import Reports
from music_streaming.lag import Progress
from music_streaming.settings import Role, Settings

# Between two lines of progress where there is no terminal.
SAY_SECONDS = 10


def _zone(_: click.Context, __: click.Parameter, name: str | None) -> ZoneInfo | None:
    if name is not None and name not in available_timezones():
        raise click.BadParameter(f"found {name!r}, wanted a name such as Europe/Berlin")
    return None if name is None else ZoneInfo(name)


@click.command("import")
@click.argument("path", metavar="FILE|FOLDER|ZIP|-")
@click.option("--listener", metavar="NAME", help="Whose plays these are; needed where there are several.")
@click.option("--timezone", "zone", callback=_zone, metavar="ZONE", help="Of a player's own clock (Rockbox).")
@click.option("--dry-run", is_flag=True, help="Say what would be sent, and send nothing.")
@terminal.as_json
def import_(path: str, *, listener: str | None, zone: ZoneInfo | None, dry_run: bool, as_json: bool) -> None:
    """Add a listening history: an export of a streaming or scrobbling service, told by its content.

    From another computer: ssh pi@BOARD sudo musicctl import - < FILE. To repeat it is safe and adds nothing.
    """
    settings = Settings.load()
    with _progress(quiet=as_json) as reports:
        report = importer.run(
            settings,
            path,
            stdin=sys.stdin.buffer,
            name=listener,
            zone=zone,
            dry_run=dry_run,
            reports=reports,
        )
    if as_json:
        terminal.print_json(report.as_dict())
    else:
        click.echo("\n".join(report.sentences()))


@click.command()
@click.argument("file", type=click.File("wb", atomic=True), default="-")
@click.option("--listener", metavar="NAME", help="Whose plays; needed where there are several.")
def export(file: BinaryIO, *, listener: str | None) -> None:
    """Write the plays of a listener to FILE, or to standard output: ListenBrainz listens, one a line."""
    with Settings.load().postgres.connection(Role.READER, application="musicctl-export") as database:
        who = people.one(database, listener)
        count = exporter.export(database, who.name, file)
    click.echo(f"{count:,} plays of {who.name}", err=True)


@contextlib.contextmanager
def _progress(*, quiet: bool) -> Iterator[Reports]:
    """Bars on a terminal, else a line now and then, on standard error."""
    if quiet:
        yield Reports()
    elif os.isatty(2):
        with _bars() as reports:
            yield reports
    else:
        yield _lines()


@contextlib.contextmanager
def _bars() -> Iterator[Reports]:
    from rich.console import Console  # noqa: PLC0415  not for programs
    from rich.progress import BarColumn, TaskProgressColumn, TimeRemainingColumn  # noqa: PLC0415
    from rich.progress import Progress as Bars  # noqa: PLC0415

    columns = ("{task.description}", BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Bars(*columns, console=Console(stderr=True)) as bars:
        read, sent, stored = (
            bars.add_task(name, total=None) for name in ("read", "in Kafka", "in the tables")
        )

        def draw(now: Progress) -> None:
            bars.update(sent, completed=now.sent, total=now.expected)
            bars.update(stored, completed=now.stored, total=now.expected)

        yield Reports(lambda done, total: bars.update(read, completed=done, total=total), draw)


def _lines() -> Reports:
    said = time.monotonic()

    def say(sentence: str) -> None:
        nonlocal said
        if time.monotonic() - said >= SAY_SECONDS:
            said = time.monotonic()
            click.echo(sentence, err=True)

    return Reports(
        lambda done, total: say(f"read {done:,} of {total:,} bytes"),
        lambda now: say(f"{now.stored:,} of up to {now.expected:,} plays are in the tables"),
    )
