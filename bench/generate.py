"""How fast plays are generated, and how much memory that takes: one core, no Kafka.

    PYTHONPATH=app .venv/bin/python bench/generate.py [--listeners 2000] [--days 14] [--records 500000]

Wanted: at least 10,000 plays a second of history, a world within 3 s, flat memory of a live stream.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Iterable
from datetime import datetime
from itertools import islice

import click
from rich.console import Console
from rich.table import Table

from music_streaming.demo.expected import ExpectedMetrics
from music_streaming.demo.live import live
from music_streaming.demo.world import World, floor_hour

DAY_MS = 86_400_000


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@click.command(help=__doc__)
@click.option("--listeners", default=2_000, show_default=True)
@click.option("--days", default=14, show_default=True)
@click.option("--records", default=500_000, show_default=True, help="Of each live stream.")
@click.option("--start", type=click.DateTime(), default="2026-11-09", show_default=True)
def main(listeners: int, days: int, records: int, start: datetime) -> None:
    table = Table("what", "count", "seconds", "per second", "peak memory, MB")

    def measure(name: str, sizes: Iterable[int]) -> None:
        begun, done = time.perf_counter(), 0
        for size in sizes:
            done += size
        taken = time.perf_counter() - begun
        table.add_row(name, f"{done:,}", f"{taken:.2f}", f"{done / taken:,.0f}", f"{peak_mb():.0f}")

    begun = time.perf_counter()
    world = World(listeners=listeners)
    table.add_row("build the world", "", f"{time.perf_counter() - begun:.2f}", "", f"{peak_mb():.0f}")
    start_ms = floor_hour(int(start.timestamp() * 1000))
    end_ms = start_ms + days * DAY_MS
    measure("history", (len(block) for block in world.history(start_ms, end_ms)))
    for rate in (20, 1_000, 5_000):
        measure(f"live, {rate} a second", (1 for _ in islice(live(world, end_ms, rate=rate), records)))
    measure("live, paced by the model", (1 for _ in islice(live(world, end_ms), records)))
    expected = ExpectedMetrics(world)
    measure(
        "history with its expected metrics",
        (len(block) for block in world.history(start_ms, end_ms, recorder=expected)),
    )
    measure(
        "rows of expected metrics",
        (1 for name in ("geographic_metrics", "content_performance_metrics") for _ in expected.rows(name)),
    )
    Console().print(table)


if __name__ == "__main__":
    main()
