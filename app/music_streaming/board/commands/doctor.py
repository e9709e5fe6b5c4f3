"""`musicctl doctor`: the first broken link of the board, and the way back."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from music_streaming import terminal
from music_streaming.board import doctor as walk
from music_streaming.board.breakages import BOARD, Broken
from music_streaming.board.doctor import BROKEN, NOTE, OK, Diagnosis, Step
from music_streaming.board.machine import Board
from music_streaming.setting_files import SettingsError
from music_streaming.settings import Settings

STYLES = {OK: "green", NOTE: "yellow", BROKEN: "bold red"}


@click.command()
@terminal.as_json
@click.option("--fix", is_flag=True, help="Mend what is safe: start units, free caches, make the topic, ...")
def doctor(as_json: bool, fix: bool) -> None:
    """Name the first broken link from the board to its network, and how to mend it.

    Found, wanted, the service's last journal lines, and the remedy; exit code 1 when a link is broken.
    --fix starts and enables units, frees caches where the disk is full, makes a missing topic, has due
    rejects judged again, and loads the firewall's rules. Without sudo it says which links it could not see.
    """
    found = examine(fix=fix, tell=lambda text: click.echo(f"mending {text}", err=True))
    if as_json:
        terminal.print_json(found.to_dict())
    else:
        show(found, terminal.console())
    # A question that nobody answered may still be open in a thread.
    sys.stdout.flush()
    raise SystemExit(0 if found.broken is None else 1)


def examine(
    links: Iterable[str] = (), *, fix: bool = False, tell: Callable[[str], None] = lambda _: None
) -> Diagnosis:
    """As `walk.examine`, for the board's own settings; unreadable ones are its first broken link."""
    try:
        settings = Settings.load()
    except SettingsError as error:
        broken = Broken("settings", str(error))
        return Diagnosis([Step(BOARD, BROKEN, broken.found, broken.wanted, broken.remedy, broken.kind)])
    return walk.examine(Board(settings), links, fix=fix, tell=tell)


def show(found: Diagnosis, console: Console) -> None:
    """Print a diagnosis for people."""
    table = Table("link", "", "found")
    for step in found.steps:
        what = "; ".join([*step.mended, step.found])
        table.add_row(step.link, Text(step.state, style=STYLES.get(step.state, "yellow")), Text(what))
    console.print(table)
    for step in found.steps:
        if step.state == NOTE:
            console.print(Text(f"{step.link}: wanted {step.wanted}. Remedy: {step.remedy}", style="yellow"))
    broken = found.broken
    if broken is None:
        console.print(Text("every link that was looked at holds", style="bold green"))
        return
    console.print(Text(f"broken: {broken.link}", style="bold red"))
    console.print(Text(f"found {broken.found}\nwanted {broken.wanted}"))
    if broken.journal:
        console.print(Text(f"journal of {broken.unit}:"))
        console.print(Text("\n".join(f"  {line}" for line in broken.journal)))
    console.print(Text(f"remedy: {broken.remedy}", style="bold"))
    if broken.mendable and not broken.mended:
        console.print(Text(f"sudo musicctl doctor --fix will {broken.mendable}"))
