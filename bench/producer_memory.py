"""Memory of the live producer over an hour at 5,000 plays a second, on a real broker: does it stay flat?

    .venv/bin/python bench/producer_memory.py [--minutes 60] [--rate 5000]

Wanted: after a minute the last quarter takes at most 5 % more than the first, and the rate is
held within 2 %. Exit code 1 when not. Kafka keeps no more than 64 MB of what is sent.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import mean

import click
from rich.console import Console
from rich.table import Table

PROJECT = Path(__file__).parents[1]
sys.path.insert(0, str(PROJECT / "app"))

from music_streaming.settings import KafkaSettings, PathSettings, Settings  # noqa: E402
from music_streaming.testing.broker import Broker  # noqa: E402
from music_streaming.topic import ensure_topics  # noqa: E402

TOPIC = "bench"
# Catalogue, caches and buffers fill.
SETTLE_SECONDS = 60


def rss_mb(pid: int) -> float:
    """Memory of a process in MB; 0 when it is gone."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    except FileNotFoundError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE") / 1024**2


@click.command(help=__doc__)
@click.option("--minutes", default=60.0, show_default=True)
@click.option("--rate", default=5_000.0, show_default=True)
def main(minutes: float, rate: float) -> None:
    with tempfile.TemporaryDirectory(prefix="music-bench-") as folder:
        broker = Broker(Path(folder))
        broker.start()
        try:
            samples, sent, seconds = _run(broker, minutes * 60, rate)
        finally:
            broker.kill()
    quarter = max(1, len(samples) // 4)
    first, last = mean(samples[:quarter]), mean(samples[-quarter:])
    table = Table("figure", "wanted", "got")
    table.add_row("memory, first quarter, MB", "", f"{first:.1f}")
    table.add_row("memory, last quarter, MB", f"at most {first * 1.05:.1f}", f"{last:.1f}")
    table.add_row("memory, most, MB", "", f"{max(samples):.1f}")
    table.add_row("plays a second", f"{rate:,.0f} +- 2 %", f"{sent / seconds:,.1f}")
    Console().print(table)
    sys.exit(last > first * 1.05 or abs(sent / seconds / rate - 1) > 0.02)


def _run(broker: Broker, seconds: float, rate: float) -> tuple[list[float], int, float]:
    """Samples of memory in MB, one a second; records sent, and in how many seconds."""
    limits = {"retention_bytes": 8 * 1024**2, "segment_bytes": 8 * 1024**2}
    kafka = KafkaSettings(bootstrap=broker.bootstrap, topic=TOPIC, **limits)
    ensure_topics(Settings(kafka=kafka, paths=PathSettings(files=PROJECT / "files")))
    environment = os.environ | {
        "PYTHONPATH": str(PROJECT / "app"),
        "MUSIC_KAFKA__BOOTSTRAP": broker.bootstrap,
        "MUSIC_KAFKA__TOPIC": TOPIC,
        "MUSIC_PATHS__FILES": str(PROJECT / "files"),
    }
    command = [sys.executable, "-m", "music_streaming.demo.producer", "--rate", str(rate)]
    samples: list[float] = []
    with subprocess.Popen(command, env=environment) as producer:
        try:
            time.sleep(min(SETTLE_SECONDS, seconds / 4))
            begun, before = time.monotonic(), broker.count(TOPIC)
            while time.monotonic() - begun < seconds and producer.poll() is None:
                time.sleep(1)
                samples.append(rss_mb(producer.pid))
            sent, taken = broker.count(TOPIC) - before, time.monotonic() - begun
        finally:
            producer.terminate()
    return samples, sent, taken


if __name__ == "__main__":
    main()
