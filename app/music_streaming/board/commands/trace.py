"""`musicctl trace`: one record followed, link by link."""

from __future__ import annotations

from typing import Any

import click
from rich.table import Table
from rich.text import Text

from music_streaming import terminal
from music_streaming.board.trace import BrokenLinkError, Step
from music_streaming.board.trace import trace as follow
from music_streaming.settings import Settings


@click.command()
@terminal.as_json
@click.option("--seconds", type=click.FloatRange(min=1), default=60.0, help="Most that each link may take.")
def trace(as_json: bool, seconds: float) -> None:
    """Follow one record through the flow and name the first broken link."""
    broken: BrokenLinkError | None = None
    try:
        steps = follow(Settings.load(), seconds=seconds)
    except BrokenLinkError as error:
        steps, broken = error.after, error
    if as_json:
        content: dict[str, Any] = {"ok": broken is None, "steps": [_row(step) for step in steps]}
        if broken:
            content |= {"broken": broken.link, "unit": broken.unit, "error": str(broken)}
        terminal.print_json(content)
        raise SystemExit(0 if broken is None else 1)
    if steps:
        _show(steps)
    if broken:
        click.echo(broken.journal(), err=True)
        raise click.ClickException(str(broken))


def _row(step: Step) -> dict[str, Any]:
    return {"link": step.link, "seen": step.seen, "milliseconds": round(step.seconds * 1000)}


def _show(steps: list[Step]) -> None:
    table = Table("link", "seen", "ms")
    for step in steps:
        table.add_row(Text(step.link), Text(step.seen), f"{step.seconds * 1000:.0f}")
    terminal.console().print(table)
