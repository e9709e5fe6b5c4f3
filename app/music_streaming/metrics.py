"""What is counted: tables x windows x keys x counts, and the SQL that follows. The only place in Python.

files/schema says the same by hand, for readers of SQL; test_contract.py compares the two, and the datasets of
the dashboards with them.

To add a count: one line in COUNTS, one in each table of files/schema and in the datasets.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta

from psycopg2 import sql

# Start of the window that a play falls in -> how, from its event_time and the row f of metrics_folding.
# Windows widen with age: a late play, or one of an old year, goes to the hour or day that is there by now.
WINDOWS = {
    "metric_window": "CASE WHEN event_time >= f.hours_before THEN date_bin('5 minutes', event_time, 'epoch') "
    "WHEN event_time >= f.days_before THEN date_bin('1 hour', event_time, f.hour_origin) "
    "ELSE date_trunc('day', event_time, f.zone) END",
    "content_window": "CASE WHEN event_time >= f.days_before "
    "THEN date_bin('1 hour', event_time, f.hour_origin) "
    "ELSE date_trunc('day', event_time, f.zone) END",
    "hour": "date_bin('1 hour', event_time, f.hour_origin)",
    "day": "date_trunc('day', event_time, f.zone)",
    "month": "date_trunc('month', event_time, f.zone)",
}


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

    @property
    def hash(self) -> str:
        """The column of `prepared()` with the hash of a play's value."""
        return f"{self.of}_hash"


COUNTS = (
    Count("streams"),
    Count("completions", of="completed", flag=True),
    Count("skips", of="skipped", flag=True),
    Count("likes", of="liked", flag=True),
    Count("listened_ms", of="listened_ms"),
    Count("duration_ms", of="duration_ms"),
)
COUNT_NAMES = tuple(count.name for count in COUNTS)
LISTENERS = Sketch("listeners", of="user_id")
# Where a song is no key.
SONGS = Sketch("songs", of="song_id")
# Registers of a sketch, as a power of two: a mean error of 1.6 % per window, 0.4 % over all.
LOG2M = 11


@dataclass(frozen=True)
class Table:
    """A table of metrics or a roll-up. Its key is (start, source, *keys); start is the name of that column.

    window: how the start is made, a key of WINDOWS. width: of a window before it is folded. updated: whether
    there is a column updated_at.
    """

    name: str
    window: str
    keys: tuple[str, ...]
    width: timedelta = timedelta(minutes=5)
    start: str = "window_start"
    counts: tuple[Count, ...] = COUNTS
    sketches: tuple[Sketch, ...] = (LISTENERS, SONGS)
    updated: bool = True

    @property
    def minutes(self) -> int:
        """How long a window is, in minutes."""
        return self.width // timedelta(minutes=1)

    @property
    def key(self) -> tuple[str, ...]:
        """The columns of the primary key."""
        return (self.start, "source", *self.keys)

    @property
    def count_names(self) -> tuple[str, ...]:
        """The names of its counts."""
        return tuple(count.name for count in self.counts)

    @property
    def sketch_names(self) -> tuple[str, ...]:
        """The names of its sketches."""
        return tuple(sketch.name for sketch in self.sketches)


SONG_KEYS = ("song_id", "title", "artist", "genre")
_HOUR = timedelta(hours=1)
_STREAMS = COUNTS[:1]
# The tables as they are written.
TABLES = (
    Table("user_engagement_metrics", "metric_window", ("subscription_type", "age_group")),
    Table("geographic_metrics", "metric_window", ("country", "region")),
    Table("device_usage_metrics", "metric_window", ("device_type", "os")),
    Table("content_performance", "content_window", ("song",), _HOUR, sketches=(LISTENERS,)),
)
# The same as they are read: songs with their texts.
SHOWN = (
    *TABLES[:3],
    Table("content_performance_metrics", "content_window", SONG_KEYS, _HOUR, sketches=(LISTENERS,)),
)
BY_NAME = {table.name: table for table in SHOWN}
ROLL_UPS = (
    Table("genre_metrics", "content_window", ("genre",), _HOUR),
    Table("country_hour_streams", "hour", ("country", "region"), _HOUR, "hour", _STREAMS, (), updated=False),
    Table("song_days", "day", ("song",), timedelta(days=1), "day", _STREAMS, (), updated=False),
    Table("song_months", "month", ("song",), timedelta(days=28), "month", _STREAMS, (), updated=False),
)
TABLE_NAMES = tuple(table.name for table in (*TABLES, *ROLL_UPS))
"""Every table that holds metrics."""


def columns(names: Iterable[str], of: str | None = None) -> sql.Composed:
    """The names as a list for SQL, quoted; each behind `of`, where it is given."""
    return sql.SQL(", ").join(sql.Identifier(of, name) if of else sql.Identifier(name) for name in names)


def sums(counts: Iterable[Count] = COUNTS) -> sql.Composed:
    """What a group of plays adds to each count, for a SELECT from rows with the columns of a play."""
    return sql.SQL(", ").join(
        sql.SQL("{} AS {}").format(_sum(count), sql.Identifier(count.name)) for count in counts
    )


def _sum(count: Count) -> sql.Composable:
    if count.of is None:
        return sql.SQL("count(*)")
    template = "count(*) FILTER (WHERE {})" if count.flag else "coalesce(sum({}), 0)::bigint"
    return sql.SQL(template).format(sql.Identifier(count.of))


def prepared() -> sql.Composed:
    """What `add` needs of plays p beside their songs s and metrics_folding AS f.

    The starts of all windows and the hashes for sketches are so made once for a play, and not once for each
    table; nothing else of it is carried along.
    """
    of = [count.of for count in COUNTS if count.of]
    keys = [key for table in (*TABLES, *ROLL_UPS) for key in table.keys if key != "song"]
    made = [columns(dict.fromkeys(["event_time", "source", *keys, *of])), sql.SQL("s.song")]
    made += [sql.SQL(f"{how} AS {{}}").format(sql.Identifier(name)) for name, how in WINDOWS.items()]
    made += [
        sql.SQL("hll_hash_text({}) AS {}").format(sql.Identifier(sketch.of), sql.Identifier(sketch.hash))
        for sketch in (LISTENERS, SONGS)
    ]
    return sql.SQL(", ").join(made)


def add_songs(plays: sql.Composable) -> sql.Composed:
    """INSERT of the songs of relation `plays` that are not known yet."""
    return sql.SQL(
        "INSERT INTO songs ({key}) SELECT DISTINCT {key} FROM {plays} AS p "
        "WHERE NOT EXISTS (SELECT FROM songs AS s WHERE (s.song_id, s.title, s.artist, s.genre) "
        "= (p.song_id, p.title, p.artist, p.genre)) ORDER BY {key} ON CONFLICT DO NOTHING"
    ).format(key=columns(SONG_KEYS), plays=plays)


def add(table: Table, plays: sql.Composable) -> sql.Composed:
    """INSERT that adds the plays of a relation to the table; its columns are those of `prepared()`.

    In the order of the key, so that two transactions lock the same rows in the same order.
    """
    counts, sketches = table.count_names, table.sketch_names
    added = [sql.SQL("{0} = t.{0} + excluded.{0}").format(sql.Identifier(name)) for name in counts]
    added += [sql.SQL("{0} = t.{0} || excluded.{0}").format(sql.Identifier(name)) for name in sketches]
    added += [sql.Composed([sql.SQL("updated_at = now()")])] if table.updated else []
    made = [
        sql.SQL("hll_add_agg({}, {})").format(sql.Identifier(sketch.hash), sql.Literal(LOG2M))
        for sketch in table.sketches
    ]
    return sql.SQL("""
        INSERT INTO {table} AS t ({key}, {names})
        SELECT {group}, {sums} FROM {plays} GROUP BY {group} ORDER BY {group}
        ON CONFLICT ({key}) DO UPDATE SET {added}""").format(
        table=sql.Identifier(table.name),
        key=columns(table.key),
        names=columns((*counts, *sketches)),
        group=columns((table.window, "source", *table.keys)),
        sums=sql.SQL(", ").join([*map(_sum, table.counts), *made]),
        plays=plays,
        added=sql.SQL(", ").join(added),
    )


def open_periods(plays: sql.Composable) -> sql.Composed:
    """INSERT that adds such plays to ingest_periods: the hours and days of content_performance."""
    return sql.SQL("""
        INSERT INTO ingest_periods AS t (starts, source, ends, accepted)
        SELECT content_window, source,
               CASE WHEN content_window < f.days_before
                    THEN date_trunc('day', content_window + interval '25 hours', f.zone)
                    ELSE content_window + interval '1 hour' END, count(*)
        FROM {plays} CROSS JOIN metrics_folding AS f GROUP BY 1, 2, 3 ORDER BY 1, 2
        ON CONFLICT (starts, source)
        DO UPDATE SET accepted = t.accepted + excluded.accepted, open = true""").format(plays=plays)


def add_everywhere(plays: sql.Composable) -> sql.Composed:
    """The CTEs that add such plays to each table of metrics, each roll-up and the periods."""
    parts = [(table.name, add(table, plays)) for table in (*TABLES, *ROLL_UPS)]
    parts.append(("ingest_periods", open_periods(plays)))
    return sql.SQL(", ").join(
        sql.SQL("{} AS ({})").format(sql.Identifier(f"{name}_added"), statement) for name, statement in parts
    )


def stored_plays(plays: sql.Composable) -> Iterator[sql.Composed]:
    """Statements that add plays of a relation like stream_events to all: for tests and benches."""
    yield add_songs(plays)
    yield sql.SQL(
        "WITH stored AS MATERIALIZED (SELECT {prepared} "
        "FROM {plays} AS p JOIN songs AS s USING ({key}) CROSS JOIN metrics_folding AS f), {added} "
        "SELECT count(*) FROM stored"
    ).format(
        prepared=prepared(),
        plays=plays,
        key=columns(SONG_KEYS),
        added=add_everywhere(sql.Identifier("stored")),
    )
