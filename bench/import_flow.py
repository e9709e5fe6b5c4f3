"""How long a history takes from the file to the tables, all parts on this machine, beside live plays.

    PYTHONPATH=app .venv/bin/python bench/import_flow.py [--plays 250000] [--rate 20]

`musicctl import` of a made Spotify export while the demo audience plays. Prints seconds up to the last row,
and how old live plays are when their row is committed: before the import began, and while it ran.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from typing import Any

import click

from import_speed import export
from music_streaming import listener
from music_streaming.testing import wait_for
from music_streaming.testing.postgres import Database
from music_streaming.testing.trial.services import Flow, flow

WARM_SECONDS = 180
AGES = """
SELECT count(*), percentile_cont(ARRAY[0.5, 0.99])
    WITHIN GROUP (ORDER BY extract(epoch FROM b.committed_at - e.event_time))
FROM stream_events e JOIN ingest_batches b ON b.ingested_at = e.ingested_at
WHERE e.source = 'demo' AND e.event_time BETWEEN %s AND %s
"""


def ages(database: Database, since: Any, until: Any) -> str:
    """Number, median and 99th percentile of the age of live plays when they were committed."""
    ((count, percentiles),) = database.rows(AGES, (since, until))
    median, most = percentiles or (0, 0)
    return f"{count:,} live plays, age {median:.1f} s (median), {most:.1f} s (99th percentile)"


def tell_ages(database: Database, quiet: Any, begun: Any, ended: Any) -> None:
    """Print the ages before and during what was measured, and what else the machine had to do."""
    print(f"before it: {ages(database, quiet, begun)}")
    print(f"meanwhile: {ages(database, begun, ended)}")
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


def warm_up(parts: Flow) -> None:
    """Wait for the first rows, then half a minute: the first batches are those of a cold JVM."""
    wait_for(lambda: parts.database.value("SELECT count(*) FROM stream_events"), bool, WARM_SECONDS)
    time.sleep(30)


def measure(parts: Flow, count: int) -> None:
    database = parts.database
    with contextlib.closing(database.connect("music_owner")) as connection:
        listener.add(connection, listener.Listener("Ada"))
    warm_up(parts)
    quiet = database.value("SELECT now()")
    time.sleep(60)
    file = parts.settings.paths.data / "history.json"
    file.write_bytes(export(count).getvalue())
    begun, clock = database.value("SELECT now()"), time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "music_streaming.cli", "import", str(file)],
        env=os.environ | parts.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    seconds, ended = time.perf_counter() - clock, database.value("SELECT now()")
    if done.returncode:
        raise SystemExit(done.stderr)
    stored = database.value("SELECT count(*) FROM stream_events WHERE source = 'import'")
    print(done.stdout.splitlines()[-1])
    print(f"{stored:,} plays in the tables after {seconds:.0f} s: {stored / seconds:,.0f} a second")
    tell_ages(database, quiet, begun, ended)


@click.command(help=__doc__)
@click.option("--plays", default=250_000, show_default=True)
@click.option("--rate", default=20.0, show_default=True, help="Live plays a second.")
def main(plays: int, rate: float) -> None:
    with flow(rate, print) as parts:
        measure(parts, plays)
        sys.exit(parts.validate())


if __name__ == "__main__":
    main()
