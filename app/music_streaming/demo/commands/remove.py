"""`musicctl demo remove`: the demo's plays out of the database."""

from __future__ import annotations

import click

from music_streaming.demo.commands.service import PRODUCER, systemctl
from music_streaming.demo.removal import remove as delete_plays
from music_streaming.settings import Settings


@click.command()
@click.confirmation_option(prompt="Remove every play of the demo, its history too?", help="Do not ask.")
def remove() -> None:
    """Delete every play of the demo, raw and metrics; real plays stay.

    Stops the producer first. What was rejected or came twice stays counted: that says something of records,
    not of plays.
    """
    systemctl("stop", PRODUCER)
    click.echo(f"stopped {PRODUCER}")
    click.echo(f"removed {delete_plays(Settings.load()):,} plays of the demo")
    click.echo(
        "It begins anew with `musicctl demo start`, the next boot, or site.yml; "
        "pipeline_producer_enabled: false in the inventory keeps it away."
    )
