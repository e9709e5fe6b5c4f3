"""Three years of plays on one card: size per table, seconds of the proof, of charts, of folding and expiry.

    make bench-year [PLAYS=50000000]

PostgreSQL makes the plays; the SQL of a batch's transaction adds them, ten days at a time, to the windows
that three years of folding would have left; housekeeping proves them. Wanted: `musicctl validate` within
30 s, each chart within 1 s (95th percentile, warm) and 3 s (nothing in memory; takes root), and every
equality at the end. My listening, which reads the plays themselves, has a database with those of a household.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import psycopg2
from psycopg2 import sql
from rich.console import Console
from rich.progress import track
from rich.table import Table

import figures
from chart_sql import FOLDER, Board, Chart, charts, database_options
from dashboards import AS_ON_A_BOARD, ROLES, ROOT, make_database
from music_streaming import metrics
from music_streaming.board.validate import validate
from music_streaming.retention import Ages, housekeep
from music_streaming.settings import PathSettings, PostgresSettings, Settings
from music_streaming.testing.postgres import Postgres, throw_away_cluster

DATABASE, HOUSEHOLD = "music_year", "music_household"
HOUSEHOLD_PLAYS = 160  # a day: four people
STEP = 10  # days
VALIDATE_LIMIT, CHART_LIMIT, COLD_LIMIT = 30.0, 1.0, 3.0  # seconds
SPANS = {"day": 1, "month": 30, "year": 365}
_PLAYS = Path(__file__).with_name("year_plays.sql")
_STEP = sql.SQL(
    "(SELECT * FROM stream_events WHERE source = 'scrobble' AND event_time >= %(since)s "
    "AND event_time < %(since)s + %(days)s * interval '1 day')"
)
_DEMO_DAY = Path(__file__).with_name("dashboards_day.sql")
_ACCEPTED = """
UPDATE ingest_totals t SET newest_event_time = now(),
    accepted = (SELECT coalesce(sum(p.accepted), 0) FROM ingest_periods p WHERE p.source = t.source)
"""
_SIZES = """
SELECT c.relname, sum(pg_total_relation_size(p.relid)), sum(pg_relation_size(p.relid)),
       sum((SELECT reltuples FROM pg_class WHERE oid = p.relid AND relkind = 'r'))
FROM pg_class c CROSS JOIN LATERAL (
    SELECT relid FROM pg_partition_tree(c.oid) UNION SELECT c.oid) p (relid)
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
GROUP BY 1 HAVING sum(pg_total_relation_size(p.relid)) > 1e6 ORDER BY 2 DESC
"""


def fill(server: str, database: str, plays: int, days: int) -> float:
    """Add `plays` plays of the last `days` days; returns the plays a second."""
    today = dt.datetime.now(dt.UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    began = time.perf_counter()
    with contextlib.closing(psycopg2.connect(server, dbname=database)) as connection:
        cursor = connection.cursor()
        cursor.execute(
            "SET ROLE music_owner; SET jit = off; SET hll.force_groupagg = on; SET work_mem = '64MB'"
        )
        for left in track(range(days, 0, -STEP), "plays", console=Console(stderr=True)):
            length = min(STEP, left)
            step = {"since": today - dt.timedelta(days=left), "days": length, "plays": plays * length // days}
            cursor.execute(_PLAYS.read_text(encoding="utf-8"), step)
            for statement in metrics.stored_plays(_STEP):
                cursor.execute(statement, step)
            connection.commit()
        cursor.execute(_ACCEPTED)
        cursor.execute("INSERT INTO ingest_state (topic, watermark) VALUES ('stream_events', now())")
        connection.commit()
        connection.autocommit = True
        cursor.execute("VACUUM ANALYZE")
    return plays / (time.perf_counter() - began)


def add_demo(server: str, days: int, plays_a_day: int) -> None:
    """Generated plays of the last days, up to the end of yesterday, so that the oldest can expire."""
    today = dt.datetime.now(dt.UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    with contextlib.closing(psycopg2.connect(server, dbname=DATABASE)) as connection:
        cursor = connection.cursor()
        cursor.execute("SET ROLE music_owner; SET jit = off; SET hll.force_groupagg = on")
        for day in (today - dt.timedelta(days=n) for n in range(days, 0, -1)):
            parameters = {"day": day, "plays": plays_a_day}
            cursor.execute("SELECT make_demo_partitions(%s::date[])", ([day.date()],))
            text = _DEMO_DAY.read_text(encoding="utf-8").replace("'scrobble' ELSE", "'demo' ELSE")
            cursor.execute(text, parameters)
            of_day = sql.SQL(
                "(SELECT * FROM stream_events WHERE source = 'demo' AND event_time >= %(day)s "
                "AND event_time < %(day)s + interval '1 day')"
            )
            for statement in metrics.stored_plays(of_day):
                cursor.execute(statement, parameters)
        cursor.execute(_ACCEPTED)
        connection.commit()


@contextlib.contextmanager
def timed(found: dict[str, float], what: str) -> Iterator[None]:
    """Note how many seconds the block takes."""
    began = time.perf_counter()
    yield
    found[what] = time.perf_counter() - began


def keep_house(server: str, found: dict[str, float]) -> None:
    """One round of each kind as the job does it, and a day's share of it."""
    with contextlib.closing(psycopg2.connect(server, dbname=DATABASE, user="music_writer")) as connection:
        with timed(found, "prove three years, once (s)"):
            done = housekeep(connection, Ages(demo_retention_days=3650))
            while done.counted:
                done = housekeep(connection, Ages(demo_retention_days=3650))
        with timed(found, "fold one day to hours, one to days (s)"):
            folded = housekeep(
                connection, Ages(demo_retention_days=3650, fold_hours_days=13, fold_days_days=89)
            )
        found["days folded"] = folded.folded_days
        with timed(found, "expire one day of demo plays (s)"):
            expired = housekeep(connection, Ages(13, 13, 89)).expired
        found["demo plays expired"] = float(expired or 0)
        with timed(found, "a round with nothing to do (s)"):
            housekeep(connection, Ages(13, 13, 89))


def measure_charts(server: str, repeats: int, own: Postgres | None = None) -> dict[str, dict[str, float]]:
    """95th percentile of each chart's query for a day, a month, a year; Live and health for an hour.

    With a server of its own each query is asked by a new server and with nothing of its files in memory.
    """
    found: dict[str, dict[str, float]] = {}
    for chart in charts():
        recent = chart.path.split("/")[0] in ("live", "health")
        for name, days in {"hour": 1 / 24}.items() if recent else SPANS.items():
            seconds = []
            for _ in range(repeats):
                if own:
                    forget(own)
                seconds.append(ask(server, chart, days))
            found.setdefault(chart.path, {})[name] = float(np.percentile(seconds, 95))
    return found


def ask(server: str, chart: Chart, days: float) -> float:
    """Seconds of one query of a chart, in a session that has asked for something else before."""
    options = f"{AS_ON_A_BOARD} {database_options(FOLDER)}"
    database = HOUSEHOLD if chart.path.startswith("mine/") else DATABASE
    with contextlib.closing(
        psycopg2.connect(server, dbname=database, user="superset_reader", options=options)
    ) as connection:
        connection.autocommit = True
        cursor = connection.cursor()
        cursor.execute("SELECT count(*) FROM countries")
        now = dt.datetime.now(dt.UTC)
        began = time.perf_counter()
        cursor.execute(chart.sql(Board(now - dt.timedelta(days=days), now)))
        cursor.fetchall()
        return time.perf_counter() - began


def forget(own: Postgres) -> None:
    """Take all that was read out of the memory of server and kernel."""
    own.stop("fast")
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3", encoding="ascii")
    own.start()


def measure(server: str, found: dict[str, float]) -> tuple[bool, list[tuple[Any, ...]]]:
    """Whether everything is exact, and the sizes."""
    dsn = psycopg2.extensions.parse_dsn(server)
    with tempfile.TemporaryDirectory() as folder:
        for role in ROLES:
            Path(folder, f"postgres_{role}").write_text(role, encoding="utf-8")
        settings = Settings(
            postgres=PostgresSettings(
                host=dsn["host"], port=int(dsn["port"]), database=DATABASE, secrets_dir=Path(folder)
            ),
            paths=PathSettings(files=ROOT / "files"),
        )
        with timed(found, "musicctl validate (s)"):
            sample = validate(settings)
        with timed(found, "musicctl validate --full (s)"):
            everything = validate(settings, full=True)
    wrong = [
        check
        for check in (*sample.checks, *everything.checks)
        # There was no topic: its totals are empty.
        if not check.ok and ": by source = by topic" not in check.name
    ]
    for check in wrong:
        click.echo(f"{check.name}: found {check.found}, wanted {check.wanted}", err=True)
    with contextlib.closing(psycopg2.connect(server, dbname=DATABASE, user="superset_reader")) as connection:
        cursor = connection.cursor()
        with timed(found, "the tile's query (s)"):
            cursor.execute("SELECT source, accepted, exact FROM ingest_exactness_recent")
            exact = all(row[2] for row in cursor.fetchall())
        cursor.execute(_SIZES)
        return exact and not wrong, cursor.fetchall()


@click.command(help=__doc__)
@click.option("--server", help="DSN of a superuser; the database is kept there.")
@click.option("--plays", default=50_000_000, show_default=True)
@click.option("--days", default=1095, show_default=True)
@click.option("--demo", default=35_000, show_default=True, help="Generated plays a day, of 14 days.")
@click.option("--repeats", default=5, show_default=True)
def main(server: str | None, plays: int, days: int, demo: int, repeats: int) -> None:
    """Fill, keep house, measure, print; exit code 1 where something is not exact or takes too long."""
    found: dict[str, float] = {}
    with contextlib.nullcontext() if server else throw_away_cluster() as own:
        dsn = own.dsn("postgres", "postgres") if own else str(server)
        make_database(dsn, DATABASE)
        found["plays added a second"] = fill(dsn, DATABASE, plays, days)
        make_database(dsn, HOUSEHOLD)
        fill(dsn, HOUSEHOLD, HOUSEHOLD_PLAYS * days, days)
        add_demo(dsn, 14, demo)
        keep_house(dsn, found)
        exact, sizes = measure(dsn, found)
        of_charts = measure_charts(dsn, repeats)
        cold = measure_charts(dsn, 1, own) if own else {}
    show(found, sizes, plays, days)
    show_charts("chart, p95 in s", of_charts)
    slowest = _slowest(of_charts)
    if cold:
        show_charts("chart, nothing in memory, s", cold)
        figures.add(
            f"slowest chart, nothing in memory, {plays / 1e6:g} million plays of {days} days",
            _slowest(cold),
            "s",
            at_most=COLD_LIMIT,
        )
    figures.add(
        f"slowest chart, p95, {plays / 1e6:g} million plays of {days} days", slowest, "s", at_most=CHART_LIMIT
    )
    seconds = found["musicctl validate (s)"]
    figures.add(f"musicctl validate, {plays / 1e6:g} million plays", seconds, "s", at_most=VALIDATE_LIMIT)
    click.echo("every number is exact" if exact else "NOT EXACT")
    sys.exit(not exact or slowest > CHART_LIMIT or seconds > VALIDATE_LIMIT)


def _slowest(of_charts: dict[str, dict[str, float]]) -> float:
    return max(value for spans in of_charts.values() for value in spans.values())


def show(found: dict[str, float], sizes: list[tuple[Any, ...]], plays: int, days: int) -> None:
    """Print the sizes and the single figures."""
    console = Console(width=140)
    table = Table("table", "MB", "heap, MB", "rows", "bytes a row", "MB a day")
    for name, total, heap, rows in sizes:
        a_row = f"{float(total) / rows:.0f}" if rows else ""
        a_day = f"{float(total) / days / 1e6:.2f}"
        table.add_row(
            name, f"{float(total) / 1e6:.0f}", f"{float(heap) / 1e6:.0f}", f"{rows or 0:,.0f}", a_row, a_day
        )
    console.print(table)
    table = Table(f"{plays:,} plays, {days} days", "")
    for name, value in found.items():
        table.add_row(name, f"{value:,.2f}")
    console.print(table)


def show_charts(title: str, of_charts: dict[str, dict[str, float]]) -> None:
    """Print seconds by chart and span, the slowest first."""
    table = Table(title, *SPANS, "hour")
    for path, spans in sorted(of_charts.items(), key=lambda item: -max(item[1].values())):
        table.add_row(path, *(f"{spans[name]:.3f}" if name in spans else "" for name in (*SPANS, "hour")))
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
