"""How long each chart's query takes with 10 million plays of 28 days stored: 95th percentile, in seconds.

    PYTHONPATH=app .venv/bin/python bench/dashboards.py

Measured is PostgreSQL's part, read as Superset reads: same role, same settings of the session. What makes it
fast: primary keys that begin with window_start, two roll-ups for content, a block range index by
arrival for "Live", and partitions by day (files/schema).
"""

from __future__ import annotations

import contextlib
import datetime as dt
import sys
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import psycopg2
from psycopg2 import sql
from rich.console import Console
from rich.table import Table

import figures
from chart_sql import FOLDER, Board, charts, database_options
from music_streaming import metrics
from music_streaming.schema import migrate
from music_streaming.testing.postgres import throw_away_cluster

ROOT = Path(__file__).parents[1]
DATABASE = "music_bench"
ROLES = ("music_owner", "music_writer", "music_scrobble", "superset_reader")
LIMIT = 1.0  # seconds
ZONE = "Europe/Berlin"
# What roles/postgres sets and a plan depends on.
AS_ON_A_BOARD = "-c random_page_cost=1.1 -c effective_cache_size=1GB -c work_mem=16MB"

_PLAYS = Path(__file__).with_name("dashboards_day.sql")
_DAY = sql.SQL(
    "(SELECT * FROM stream_events WHERE event_time >= %(day)s AND event_time < %(day)s + interval '1 day')"
)
# A batch a second for the last day, in which its plays were stored.
_BATCHES = """
INSERT INTO ingest_batches (topic, records, accepted, duplicates, late, rejected, tombstones, watermark,
                            newest_event_time, read_at, ingested_at, committed_at)
SELECT 'stream_events', 4, 4, 0, 0, 0, 0, at, at, at - interval '500 ms', at, at + interval '100 ms'
FROM generate_series(date_trunc('second', now()) - interval '1 day', now(), interval '1 second') AS at
"""


def make_database(server: str, name: str) -> None:
    """The roles and the empty database `name` with the product's schema."""
    with contextlib.closing(psycopg2.connect(server)) as admin:
        admin.autocommit = True
        cursor = admin.cursor()
        for role in ROLES:
            cursor.execute("SELECT FROM pg_roles WHERE rolname = %s", (role,))
            if not cursor.rowcount:
                cursor.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(role)))
        cursor.execute(f"CREATE DATABASE {name} OWNER music_owner TEMPLATE template0")
    with contextlib.closing(psycopg2.connect(server, dbname=name)) as connection:
        connection.cursor().execute("CREATE EXTENSION hll; SET ROLE music_owner")
        connection.commit()
        migrate(connection, ROOT / "files" / "schema")


def fill(server: str, plays: int, days: int) -> None:
    """Make the database DATABASE with `plays` plays over the last `days` days."""
    make_database(server, DATABASE)
    with contextlib.closing(psycopg2.connect(server, dbname=DATABASE)) as connection:
        cursor = connection.cursor()
        cursor.execute("SET ROLE music_owner")
        today = dt.datetime.now(dt.UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        for day in (today - dt.timedelta(days=days - n) for n in range(days + 1)):
            parameters = {"day": day, "plays": plays // days}
            cursor.execute("SELECT make_demo_partitions(%s::date[])", ([day.date()],))
            cursor.execute(_PLAYS.read_text(encoding="utf-8"), parameters)
            for statement in metrics.stored_plays(_DAY):
                cursor.execute(statement, parameters)
            connection.commit()
            print(f"filled {day:%Y-%m-%d}", file=sys.stderr)
        cursor.execute(_BATCHES)
        connection.commit()
        connection.autocommit = True
        cursor.execute("VACUUM ANALYZE")


def measure(server: str, repeats: int) -> dict[str, float]:
    """Seconds of each chart's query, 95th percentile of `repeats`, at 28 days (Live and health: one hour)."""
    found = {}
    options = f"{AS_ON_A_BOARD} {database_options(FOLDER, ZONE)}"
    with contextlib.closing(
        psycopg2.connect(server, dbname=DATABASE, user="superset_reader", options=options)
    ) as connection:
        connection.autocommit = True
        cursor = connection.cursor()
        for chart in charts():
            recent = chart.path.split("/")[0] in ("live", "health")
            span = dt.timedelta(hours=1) if recent else dt.timedelta(days=28)
            seconds = []
            for _ in range(repeats):
                now = dt.datetime.now(dt.UTC)
                began = time.perf_counter()
                cursor.execute(chart.sql(Board(now - span, now, zone=ZONE)))
                cursor.fetchall()
                seconds.append(time.perf_counter() - began)
            found[chart.path] = float(np.percentile(seconds, 95))
    return found


@click.command()
@click.option("--server", help="DSN of a superuser; the database is kept there.")
@click.option("--plays", default=10_000_000, show_default=True)
@click.option("--days", default=28, show_default=True)
@click.option("--repeats", default=20, show_default=True)
def main(server: str | None, plays: int, days: int, repeats: int) -> None:
    """Fill a database, ask every chart's query, print a table; exit code 1 if one takes over a second."""
    with contextlib.nullcontext() if server else throw_away_cluster() as own:
        dsn = own.dsn("postgres", "postgres") if own else str(server)
        if not _exists(dsn):
            fill(dsn, plays, days)
        found = measure(dsn, repeats)
    table = Table("chart", "p95, s", "")
    for path, seconds in sorted(found.items(), key=lambda item: -item[1]):
        table.add_row(path, f"{seconds:.3f}", "ok" if seconds <= LIMIT else "missed")
    Console().print(table)
    slowest = max(found.values())
    figures.add(f"slowest chart, p95, {plays / 1e6:g} million plays", slowest, "s", at_most=LIMIT)
    sys.exit(slowest > LIMIT)


def _exists(server: str) -> Any:
    with contextlib.closing(psycopg2.connect(server)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT FROM pg_database WHERE datname = %s", (DATABASE,))
        return cursor.rowcount


if __name__ == "__main__":
    main()
