"""`musicctl demo`, a file for each subject."""

from __future__ import annotations

import click

from music_streaming.terminal import Lazy, LazyGroup

COMMANDS = {
    "start": Lazy(f"{__name__}.service:start", "Start the service."),
    "stop": Lazy(f"{__name__}.service:stop", "Stop it until `start` or the next boot."),
    "rate": Lazy(
        f"{__name__}.service:rate",
        "Play PER_SECOND plays a second, or by the model as people would, from now on.",
    ),
    "backfill": Lazy(
        f"{__name__}.backfill:backfill",
        "Send the history of the settings ([producer] history_days), once; safe to repeat when cut off.",
    ),
    "remove": Lazy(
        f"{__name__}.remove:remove", "Delete every play of the demo, raw and metrics; real plays stay."
    ),
    "export": Lazy(
        f"{__name__}.export:export",
        "Write a generated data set to FILE, or to standard output; needs no board.",
    ),
}


@click.group(cls=LazyGroup, lazy=COMMANDS)
def demo() -> None:
    """The demo audience: generated plays of the service music-producer."""
