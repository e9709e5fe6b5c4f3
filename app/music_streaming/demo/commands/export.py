"""`musicctl demo export`: a data set for anybody."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import BinaryIO

import click

from music_streaming.demo.arrivals import CLEAN
from music_streaming.demo.records import write_jsonl
from music_streaming.demo.world import World


@click.command()
@click.argument("file", type=click.File("wb", atomic=True), default="-")
@click.option("--from", "start", type=click.DateTime(), required=True, help="First hour, UTC.")
@click.option("--until", "end", type=click.DateTime(), required=True, help="Hour behind the last, UTC.")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=42, show_default=True)
@click.option("--listeners", type=click.IntRange(1, 1_000_000), default=2_000, show_default=True)
@click.option("--to", type=click.Choice(["jsonl"]), expose_value=False, help="JSON, one play a line.")
def export(file: BinaryIO, start: datetime, end: datetime, seed: int, listeners: int) -> None:
    """Write a generated data set to FILE, or to standard output; needs no board.

    The same options and version give the same bytes, on any day and machine.
    """
    start_ms, end_ms = (int(moment.replace(tzinfo=UTC).timestamp() * 1000) for moment in (start, end))
    if start_ms >= end_ms or start_ms % 3_600_000 or end_ms % 3_600_000:
        raise click.UsageError("wanted whole hours, --from before --until")
    write_jsonl(file, World(seed=seed, listeners=listeners).history(start_ms, end_ms, CLEAN))
