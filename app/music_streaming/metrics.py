"""What is counted: tables x windows x keys x counts, and the SQL that follows. The only place in Python.

files/schema says the same by hand, for readers of SQL; test_contract.py compares the two, and the datasets of
the dashboards with them.

To add a count: one line in COUNTS, one in each table of files/schema and in the datasets.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta

from psycopg2 import sql

# Column of incoming rows with the start of the play's window -> how long such a window is. Counted from 1970
# in UTC.
WINDOWS = {"metric_window": timedelta(minutes=5), "content_window": timedelta(hours=1)}


@dataclass(frozen=True)
class Count:
    """An additive bigint column.

    of: the play's column that it is made from. None: every play counts one. A flag: plays in which it is
    true. Else the sum, to which a play without a value adds nothing.
    """

    name: str
    of: str | None = None
    flag: bool = False


@dataclass(frozen=True)
class Sketch:
    """A mergeable set (hll) of the distinct values of a play's text column. PostgreSQL makes the hashes."""

    name: str
    of: str


@dataclass(frozen=True)
class Table:
    """A table of metrics. Its key is (window_start, source, *keys).

    window: the column of incoming rows with the start of the window, a key of WINDOWS.
    """

    name: str
    window: str
    keys: tuple[str, ...]

    @property
    def width(self) -> timedelta:
        """How long a window is."""
        return WINDOWS[self.window]

    @property
    def minutes(self) -> int:
        """The same in minutes."""
        return self.width // timedelta(minutes=1)


@dataclass(frozen=True)
class RollUp:
    """A coarser table, which triggers of files/schema keep equal to the sums of another one, `of`.

    Its key is (start, source, *keys); grain is what date_trunc cuts the start of a window to.
    """

    name: str
    of: str
    start: str
    grain: str
    keys: tuple[str, ...]
    counts: tuple[str, ...]
    sketches: tuple[str, ...]


COUNTS = (
    Count("streams"),
    Count("completions", of="completed", flag=True),
    Count("skips", of="skipped", flag=True),
    Count("likes", of="liked", flag=True),
    Count("listened_ms", of="listened_ms"),
    Count("duration_ms", of="duration_ms"),
)
SKETCHES = (Sketch("listeners", of="user_id"),)
COUNT_NAMES = tuple(count.name for count in COUNTS)
SKETCH_NAMES = tuple(sketch.name for sketch in SKETCHES)
# Registers of a sketch, as a power of two: a mean error of 1.6 % per window, 0.4 % over all.
LOG2M = 11

TABLES = (
    Table("user_engagement_metrics", "metric_window", ("subscription_type", "age_group")),
    Table("geographic_metrics", "metric_window", ("country", "region")),
    Table("device_usage_metrics", "metric_window", ("device_type", "os")),
    Table("content_performance_metrics", "content_window", ("song_id", "title", "artist", "genre")),
)
BY_NAME = {table.name: table for table in TABLES}
ROLL_UPS = (
    RollUp(
        "song_day_streams",
        of="content_performance_metrics",
        start="day",
        grain="day",
        keys=("song_id", "title", "artist", "genre"),
        counts=("streams",),
        sketches=(),
    ),
    RollUp(
        "genre_metrics",
        of="content_performance_metrics",
        start="window_start",
        grain="hour",
        keys=("genre",),
        counts=COUNT_NAMES,
        sketches=SKETCH_NAMES,
    ),
)
TABLE_NAMES = (*BY_NAME, *(roll_up.name for roll_up in ROLL_UPS))
"""Every table that holds metrics."""


def columns(names: Iterable[str], of: str | None = None) -> sql.Composed:
    """The names as a list for SQL, quoted; each behind `of`, where it is given."""
    return sql.SQL(", ").join(sql.Identifier(of, name) if of else sql.Identifier(name) for name in names)


def sums() -> sql.Composed:
    """What a group of plays adds to each count, for a SELECT from rows with the columns of a play."""
    return sql.SQL(", ").join(
        sql.SQL("{} AS {}").format(_sum(count), sql.Identifier(count.name)) for count in COUNTS
    )


def _sum(count: Count) -> sql.Composable:
    if count.of is None:
        return sql.SQL("count(*)")
    template = "count(*) FILTER (WHERE {})" if count.flag else "coalesce(sum({}), 0)::bigint"
    return sql.SQL(template).format(sql.Identifier(count.of))


def start_of_window(table: Table) -> sql.Composed:
    """The start of the window that a stored play falls in."""
    return sql.SQL("date_bin({}, event_time, 'epoch')").format(sql.Literal(table.width))


def add(table: Table, plays: str) -> sql.Composed:
    """INSERT that adds the plays of relation `plays`, rows as the job's, to the table.

    In the order of the key, so that two transactions lock the same rows in the same order.
    """
    return _add(table, sql.Identifier(plays), sql.Identifier(table.window))


def add_stored(table: Table, plays: sql.Composable) -> sql.Composed:
    """The same for relation `plays` of rows as stream_events has them: for tests and measurements."""
    return _add(table, plays, start_of_window(table))


def _add(table: Table, plays: sql.Composable, window: sql.Composable) -> sql.Composed:
    key = columns(("source", *table.keys))
    added = [sql.SQL("{0} = t.{0} + excluded.{0}").format(sql.Identifier(name)) for name in COUNT_NAMES]
    added += [sql.SQL("{0} = t.{0} || excluded.{0}").format(sql.Identifier(name)) for name in SKETCH_NAMES]
    sketches = [
        sql.SQL("hll_add_agg(hll_hash_text({}), {})").format(sql.Identifier(sketch.of), sql.Literal(LOG2M))
        for sketch in SKETCHES
    ]
    return sql.SQL("""
        INSERT INTO {table} AS t (window_start, {key}, {names})
        SELECT {window}, {key}, {sums}
        FROM {plays} GROUP BY {window}, {key} ORDER BY {window}, {key}
        ON CONFLICT (window_start, {key}) DO UPDATE SET {added}, updated_at = now()""").format(
        table=sql.Identifier(table.name),
        key=key,
        names=columns((*COUNT_NAMES, *SKETCH_NAMES)),
        window=window,
        sums=sql.SQL(", ").join([*map(_sum, COUNTS), *sketches]),
        plays=plays,
        added=sql.SQL(", ").join(added),
    )
