"""`musicctl sbom`: what the board is made of."""

from __future__ import annotations

import click

from music_streaming import terminal
from music_streaming.board.sbom import write
from music_streaming.settings import Settings


@click.command()
@terminal.as_json
def sbom(as_json: bool) -> None:
    """Write the software bill of materials (CycloneDX), where images or app have changed."""
    terminal.print_changes(write(Settings.load()), as_json=as_json)
