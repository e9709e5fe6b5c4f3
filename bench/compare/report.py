"""Results as one table and as JSON: medians of the runs, with what they were run on."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.table import Table

from compare.contenders import BATCH, BY_NAME
from compare.run import Result
from compare.services import PROPERTIES, SETTINGS, Services

COLUMNS = (
    "contender",
    "plays/s",
    "time, ours = 1",
    "CPU s/million",
    "of it PostgreSQL",
    "peak PSS, MB",
    "WAL, bytes/play",
    "written, bytes/play",
    "result",
)


def conditions(services: Services, plays: int, size: float, runs: int) -> dict[str, Any]:
    """Machine, versions and sizes of this run of the bench."""
    with services.postgres.connect("postgres", "postgres") as connection:
        cursor = connection.cursor()
        cursor.execute("SHOW server_version")
        postgres = cursor.fetchone()[0].split()[0]
    java = subprocess.run(["java", "-version"], capture_output=True, text=True, check=False).stderr
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {memory / 2**30:.0f} GiB, "
        f"Linux {platform.release()}",
        "plays": plays,
        "bytes_per_play": round(size, 1),
        "runs": runs,
        "batch": BATCH,
        "postgresql": postgres,
        "postgresql_settings": SETTINGS,
        "kafka": _kafka(),
        "kafka_properties": PROPERTIES,
        "pyspark": version("pyspark"),
        "java": java.splitlines()[0] if java else "",
        "python": platform.python_version(),
        "load_at_start": os.getloadavg()[0],
    }


def _kafka() -> str:
    from music_streaming.testing.broker import jars  # noqa: PLC0415

    (name,) = (path.stem for path in jars().glob("kafka-server-[0-9]*.jar"))
    return name.rpartition("-")[2]


def table(results: Sequence[Result], missing: dict[str, str]) -> Table:
    """A line for each contender: medians; ratios are those of neighbouring runs."""
    made = Table(*COLUMNS)
    ours = [result for result in results if result.contender == "ours"]
    for name in dict.fromkeys(result.contender for result in results):
        mine = [result for result in results if result.contender == name]
        good = [result for result in mine if result.seconds and not result.failed]
        if not good:
            made.add_row(
                name, *[""] * 7, mine[0].failed.splitlines()[0][:80] if mine[0].failed else "no time"
            )
            continue
        pairs = [a.seconds / b.seconds for a, b in zip(mine, ours, strict=False) if a.seconds and b.seconds]
        made.add_row(
            name,
            f"{_median(good, lambda result: result.per_second):,.0f}",
            f"{statistics.median(pairs):.2f}" if pairs else "",
            f"{_median(good, lambda result: result.cpu_per_million):.0f}",
            f"{_median(good, lambda result: result.cpu['postgres'] / result.plays * 1e6):.0f}",
            f"{_median(good, lambda result: result.pss):.0f}",
            f"{_median(good, lambda result: result.wal / result.plays):.0f}",
            f"{_median(good, lambda result: sum(result.written.values()) / result.plays * 1e6):.0f}",
            _verdict(mine),
        )
    for name, why in missing.items():
        made.add_row(name, *[""] * 7, f"not set up: {why}")
    made.caption = "\n".join(
        f"{name}: {BY_NAME[name].what}" for name in dict.fromkeys(result.contender for result in results)
    )
    return made


def _median(results: Sequence[Result], of: Callable[[Result], float]) -> float:
    return statistics.median(map(of, results))


def _verdict(results: Sequence[Result]) -> str:
    if not results[0].holds and not results[0].failed:
        return "nothing stored"
    wrong = [result for result in results if not result.exact]
    if not wrong:
        return "exact"
    return wrong[0].failed.splitlines()[0][:80] if wrong[0].failed else f"wrong: {wrong[0].holds}"


def save(path: Path, found: dict[str, Any], results: Sequence[Result], missing: dict[str, str]) -> None:
    """Write all of it, every single run included, as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"conditions": found, "not_set_up": missing, "runs": [result.as_dict() for result in results]}
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
