"""`musicctl export`: the way out."""

from __future__ import annotations

from typing import BinaryIO

import click

from music_streaming import listener as people
from music_streaming.imports import exporter
from music_streaming.settings import Role, Settings


@click.command()
@click.argument("file", type=click.File("wb", atomic=True), default="-")
@click.option("--listener", metavar="NAME", help="Whose plays; needed where there are several.")
def export(file: BinaryIO, *, listener: str | None) -> None:
    """Write the plays of a listener to FILE, or to standard output: ListenBrainz listens, one a line."""
    with Settings.load().postgres.connection(Role.READER, application="musicctl-export") as database:
        who = people.one(database, listener)
        count = exporter.export(database, who.name, file)
    click.echo(f"{count:,} plays of {who.name}", err=True)
