"""`musicctl demo remove`: the demo's plays out of the database."""

from __future__ import annotations

import click

from music_streaming.demo.commands.service import PRODUCER, is_running, systemctl
from music_streaming.demo.removal import remove as delete_plays
from music_streaming.settings import Settings


@click.command()
@click.confirmation_option(prompt="Remove every play of the demo, its history too?", help="Do not ask.")
def remove() -> None:
    """Delete every play of the demo, raw and metrics; real plays stay.

    Stops the producer first, and starts it again if they cannot be deleted. What was rejected or came twice
    stays counted: that says something of records, not of plays.
    """
    was_running = is_running()
    systemctl("stop", PRODUCER)
    click.echo(f"stopped {PRODUCER}")
    try:
        removed = delete_plays(Settings.load())
    except BaseException:
        if was_running:
            systemctl("start", PRODUCER)
            click.echo(f"started {PRODUCER} again, as its plays are not removed", err=True)
        raise
    click.echo(f"removed {removed:,} plays of the demo")
    click.echo(
        "It begins anew with `musicctl demo start`, the next boot, or site.yml; "
        "pipeline_producer_enabled: false in the inventory keeps it away."
    )
