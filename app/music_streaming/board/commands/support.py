"""`musicctl support`: one archive for whoever helps, without secrets."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import click

from music_streaming import terminal
from music_streaming.board.commands.doctor import examine
from music_streaming.board.machine import Board
from music_streaming.board.status import collect
from music_streaming.board.support import write
from music_streaming.settings import Settings


@click.command()
@terminal.as_json
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path), default=Path())
def support(as_json: bool, folder: Path) -> None:
    """Write one archive for whoever helps into FOLDER, without secrets; look into it before you send it.

    Versions, status, doctor, units, settings, and the last 500 lines of each service's journal. Passwords and
    tokens are left out, wherever they stand; names of listeners and addresses of the network are in it.
    """
    settings = Settings.load()
    path = write(
        Board(settings),
        folder,
        datetime.now(UTC),
        status=lambda: collect(settings).to_dict(),
        diagnosis=lambda: examine().to_dict(),
        tell=lambda name: click.echo(name, err=True) if not as_json else None,
    )
    if as_json:
        terminal.print_json({"path": str(path.resolve()), "bytes": path.stat().st_size})
    else:
        click.echo(f"{path} ({path.stat().st_size:,} bytes)")
