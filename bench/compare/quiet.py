"""What the product costs while little happens: CPU, and bytes written, by service and process.

    PYTHONPATH=app:bench .venv/bin/python -m compare.quiet [--rate 0.4] [--minutes 15] [--trigger 0.8]

The job, Kafka and PostgreSQL as in `make bench`, and the producer at a rate of plays. Bytes are those of
/proc/PID/io: pages made dirty, each as often as it was. What the file system's own journal adds is not in
them, nor what an SD card's controller makes of them.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from compare import measure
from compare.contenders import BY_NAME, TOPIC, Place
from compare.plays import PARTITIONS
from compare.run import Process
from compare.services import Services, services
from music_streaming.broker import admin
from music_streaming.testing import wait_for
from music_streaming.testing.postgres import Database
from music_streaming.topic import Topic, apply_topics

START_SECONDS = 900
DAY = 86_400
_WAL = "SELECT wal_bytes, wal_records, wal_fpi, wal_write, wal_sync FROM pg_stat_wal"
_PLAYS = "SELECT coalesce(sum(accepted), 0), count(*) FROM ingest_batches"


def processes(services: Services, job: int, producer: int) -> dict[str, measure.Use]:
    """What each process of the flow has used: named by service and, of PostgreSQL and Spark, by its part."""
    found: dict[str, measure.Use] = {}
    roots = {
        "job": job,
        "producer": producer,
        "kafka": services.broker.pid,
        "postgres": services.postgres.pid,
    }
    for service, root in roots.items():
        for pid in measure.descendants(root):
            command = measure.command(pid)
            name = f"{service}: {_part(service, command)}"
            found[name] = found.get(name, measure.Use()) + measure.alone(pid)
    return found


def _part(service: str, command: str) -> str:
    if service == "postgres":
        # "postgres: music_writer music_1234 127.0.0.1(5) idle", "postgres: checkpointer"
        words = command.removeprefix("postgres: ").split()
        return words[0] if command.startswith("postgres: ") else "server"
    for part in ("Master", "Worker", "CoarseGrainedExecutorBackend", "SparkSubmit"):
        if f".{part}" in command:
            return part
    return "python" if service in ("job", "producer") else "server"


def counters(database: Database) -> dict[str, float]:
    """PostgreSQL's own counters, and the plays and batches so far."""
    names = ("wal_bytes", "wal_records", "wal_fpi", "wal_write", "wal_sync")
    found = dict(zip(names, map(float, database.rows(_WAL, role="postgres")[0]), strict=True))
    return found | dict(zip(("plays", "batches"), map(float, database.rows(_PLAYS)[0]), strict=True))


def report(before: Any, after: Any, seconds: float) -> dict[str, Any]:
    """Differences, a day's worth of them, and per play."""
    (uses, counts), (later, more) = before, after
    plays = more["plays"] - counts["plays"]
    rows = {}
    for name, use in later.items():
        then = uses.get(name, measure.Use())
        rows[name] = {
            "cpu_percent": round((use.cpu - then.cpu) / seconds * 100, 2),
            "written_mb": round(use.written - then.written, 3),
            "gb_a_day": round((use.written - then.written) / seconds * DAY / 1000, 3),
            "bytes_per_play": round((use.written - then.written) * 1e6 / plays) if plays else None,
        }
    return {
        "seconds": round(seconds),
        "counters": {name: more[name] - counts[name] for name in more},
        "processes": rows,
    }


def show(found: dict[str, Any]) -> Table:
    """The report, the largest writer first."""
    made = Table(
        "process", "CPU, % of a core", "written, MB", "GB a day", "bytes/play", title=str(found["counters"])
    )
    rows = sorted(found["processes"].items(), key=lambda row: -row[1]["written_mb"])
    for name, row in rows:
        made.add_row(name, *map(str, row.values()))
    total = [
        sum(row[key] or 0 for _, row in rows)
        for key in ("cpu_percent", "written_mb", "gb_a_day", "bytes_per_play")
    ]
    made.add_row("all", *(f"{value:.2f}" for value in total))
    return made


@click.command(help=__doc__)
@click.option("--rate", default=0.4, show_default=True, help="Plays a second.")
@click.option("--minutes", default=15.0, show_default=True)
@click.option("--trigger", default=0.8, show_default=True, help="Seconds between batches, at least.")
@click.option("--settle", default=90, show_default=True, help="Seconds before the first look.")
@click.option("--json", "path", type=Path, help="Where to note the report.")
def main(rate: float, minutes: float, trigger: float, settle: int, path: Path | None) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    console = Console(width=150)
    with services() as at_work, at_work.database(product=True) as database, contextlib.ExitStack() as left:
        with admin(at_work.broker.bootstrap) as client:
            apply_topics(client, [Topic(TOPIC, PARTITIONS, {"message.timestamp.type": "LogAppendTime"})])
        folder = Path(tempfile.mkdtemp(dir=at_work.folder))
        contender = BY_NAME["ours"]
        environment = contender.environment(Place(at_work, database, folder, TOPIC, 0))
        environment |= {
            "MUSIC_SPARK__TRIGGER_SECONDS": str(trigger),
            "MUSIC_PRODUCER__PACE": "rate",
            "MUSIC_PRODUCER__RATE": str(rate),
        }
        place = Place(at_work, database, folder, TOPIC, 0)
        job = Process(place, replace(contender, environment=lambda _: environment))
        job.start()
        left.callback(job.end, signal.SIGTERM)
        with (folder / "producer.log").open("wb") as output:
            producer = subprocess.Popen(
                [sys.executable, "-m", "music_streaming.demo.producer"],
                env=os.environ | environment, stdout=output, stderr=output,
            )  # fmt: skip
        left.callback(producer.wait, 30)
        left.callback(producer.terminate)
        if not wait_for(lambda: counters(database)["plays"], bool, START_SECONDS, every=2):
            console.print(job.said[-3000:], (folder / "producer.log").read_text()[-2000:])
            raise SystemExit("Found no play stored, wanted one.")
        time.sleep(settle)
        looks = []
        for wait in (minutes * 60, 0):
            looks.append((processes(at_work, job.pid, producer.pid), counters(database)))
            time.sleep(wait)
        found = report(looks[0], looks[1], minutes * 60)
        found |= {"rate": rate, "trigger": trigger}
        if path:
            path.write_text(json.dumps(found, indent=2) + "\n")
        console.print(show(found))


if __name__ == "__main__":
    main()
