"""`musicctl demo backfill`, and how far it is."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from music_streaming import terminal
from music_streaming.demo.backfill import backfill as send
from music_streaming.lag import Progress
from music_streaming.settings import Settings

# Between two lines of progress where there is no terminal.
SAY_SECONDS = 10


@click.command()
@terminal.as_json
@terminal.dry_run
def backfill(as_json: bool, dry_run: bool) -> None:
    """Send the history of the settings ([producer] history_days), once; safe to repeat when cut off."""
    with _progress(quiet=as_json or dry_run) as report:
        changes = send(Settings.load(), report, dry_run=dry_run)
    terminal.print_changes(changes, as_json=as_json)


@contextlib.contextmanager
def _progress(*, quiet: bool) -> Iterator[Callable[[Progress], None]]:
    """Shows how far a back-fill is: bars on a terminal, else a line now and then, on standard error."""
    if quiet:
        yield lambda _: None
        return
    if not os.isatty(2):
        said = time.monotonic()

        def say(now: Progress) -> None:
            nonlocal said
            if time.monotonic() - said >= SAY_SECONDS:
                said = time.monotonic()
                click.echo(f"{now.stored:,} of about {now.expected:,} plays are in the tables", err=True)

        yield say
        return
    columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Bars(*columns, console=Console(stderr=True)) as bars:
        sent, stored = bars.add_task("in Kafka"), bars.add_task("in the tables")

        def draw(now: Progress) -> None:
            bars.update(sent, completed=now.sent, total=now.expected)
            bars.update(stored, completed=now.stored, total=now.expected)

        yield draw
