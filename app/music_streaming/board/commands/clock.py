"""`musicctl clock`: whether the clock is right, and the plays that are dated ahead of it."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime

import click

from music_streaming import clock as board_clock
from music_streaming import terminal
from music_streaming.board.ahead import ahead, beyond
from music_streaming.board.ahead import remove as remove_plays
from music_streaming.error import MusicError
from music_streaming.settings import Settings


@click.command()
@terminal.as_json
@click.option("--remove", is_flag=True, help="Delete the plays that are dated ahead, raw and metrics.")
def clock(as_json: bool, remove: bool) -> None:
    """Is the clock right, and which plays are dated ahead of it?

    A clock that was ahead has left them: each play counts as it is dated. Listed are those of the next whole
    hour and later. --remove asks for a clock that is right, since by one that is behind good plays are ahead.
    """
    settings = Settings.load()
    right = board_clock.synchronised(trusted=settings.stream.clock_trusted)
    since = beyond(settings, datetime.now(UTC))
    found = ahead(settings, since)
    if remove:
        if not right:
            raise MusicError.of(
                "Clock",
                found="a clock that no time server keeps right",
                wanted="one that is right",
                remedy="timedatectl; or pipeline_clock_trusted: true in the inventory, and site.yml",
            )
        removed = remove_plays(settings, since)
        terminal.print_changes([f"removed {removed:,} plays"] if removed else [], as_json=as_json)
        return
    if as_json:
        plays = [asdict(one) for one in found]
        terminal.print_json({"synchronised": right, "beyond": since, "plays": plays})
        return
    click.echo("synchronised" if right else "not synchronised")
    for one in found:
        click.echo(f"{one.source}: {one.plays:,} plays from {one.first:%F %T} to {one.last:%F %T} UTC")
    click.echo(
        "musicctl clock --remove deletes them" if found else f"no play is dated beyond {since:%F %T} UTC"
    )
