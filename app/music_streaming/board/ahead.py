"""Plays that are dated ahead of the clock: what there is of them, and how they go."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from psycopg2 import sql

from music_streaming.metrics import ROLL_UPS, TABLES
from music_streaming.settings import Role, Settings

# Windows of the metrics begin with an hour at the latest, so only whole hours can be taken out of them.
HOUR = timedelta(hours=1)


@dataclass(frozen=True)
class Ahead:
    """Plays of one source that are dated ahead of the clock, and the times of the first and last of them."""

    source: str
    plays: int
    first: datetime
    last: datetime


def beyond(settings: Settings, now: datetime) -> datetime:
    """The whole hour from which on no play should be dated yet."""
    tolerated = now.astimezone(UTC) + timedelta(seconds=settings.stream.future_tolerance_seconds)
    return tolerated.replace(minute=0, second=0, microsecond=0) + HOUR


def ahead(settings: Settings, since: datetime) -> list[Ahead]:
    """Plays dated `since` or later, by source; psycopg2.Error as it comes."""
    with (
        settings.postgres.connection(Role.READER, application="musicctl-clock") as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute(
            "SELECT source, count(*), min(event_time), max(event_time) FROM stream_events "
            "WHERE event_time >= %s GROUP BY source ORDER BY source",
            (since,),
        )
        return [Ahead(*row) for row in cursor.fetchall()]


def remove(settings: Settings, since: datetime) -> int:
    """Delete the plays dated `since`, a whole hour, or later, raw and metrics; returns how many they were."""
    with settings.postgres.connection(Role.OWNER, application="musicctl-clock") as connection:
        return delete_rows(connection, since, settings.stream.watermark_delay_seconds)


def delete_rows(connection: Any, since: datetime, watermark_delay_seconds: int) -> int:
    """As `remove`, in one transaction, as music_owner.

    Whole windows go, so that their sketches forget who listened; nobody else is in a window of the future.
    """
    with connection, connection.cursor() as cursor:
        cursor.execute("SET LOCAL lock_timeout = '60s'")
        # Every batch begins with these rows: the job waits there, and one at work is waited for.
        cursor.execute("LOCK TABLE ingest_offsets IN EXCLUSIVE MODE")
        # Windows are not folded meanwhile, and an hour is one of the display time zone.
        cursor.execute("SELECT pg_advisory_xact_lock(hashtext('metrics_folding'))")
        cursor.execute(_WHOLE_HOUR, (since,))
        since = cursor.fetchone()[0]
        cursor.execute(_DELETE_PLAYS, (since,))
        removed = {source: (plays, late) for source, plays, late in cursor.fetchall()}
        # Days and months hold earlier plays, too; all other windows of the future are no longer than an hour.
        longer = [table for table in ROLL_UPS if table.window in {"day", "month"}]
        for table in longer:
            names = {
                "table": sql.Identifier(table.name),
                "start": sql.Identifier(table.start),
                "grain": sql.Literal(table.window),
            }
            cursor.execute(_SUBTRACT.format(**names), (since,))
            cursor.execute(sql.SQL("DELETE FROM {table} WHERE streams <= 0").format(**names))
        windows = [(table.name, table.start) for table in (*TABLES, *ROLL_UPS) if table not in longer]
        for name, start in (*windows, ("ingest_periods", "starts")):
            delete = sql.SQL("DELETE FROM {} WHERE {} >= %s")
            cursor.execute(delete.format(sql.Identifier(name), sql.Identifier(start)), (since,))
        for source, (plays, late) in removed.items():
            cursor.execute(
                "UPDATE ingest_totals SET accepted = accepted - %(plays)s, removed = removed + %(plays)s, "
                "late = late - %(late)s, updated_at = now() WHERE source = %(source)s",
                {"plays": plays, "late": late, "source": source},
            )
        cursor.execute(
            "SELECT draw_back_times(%s, make_interval(secs => %s))",
            (since - timedelta(microseconds=1), watermark_delay_seconds),
        )
    return sum(plays for plays, _ in removed.values())


_DELETE_PLAYS = """
WITH gone AS (DELETE FROM stream_events WHERE event_time >= %s RETURNING source, late)
SELECT source, count(*), count(*) FILTER (WHERE late) FROM gone GROUP BY source
"""

_WHOLE_HOUR = """
SELECT date_bin('1 hour', %s::timestamptz - interval '1 microsecond', hour_origin) + interval '1 hour'
FROM metrics_folding
"""
_SUBTRACT = sql.SQL("""
UPDATE {table} AS t SET streams = t.streams - gone.streams
FROM (
    SELECT date_trunc({grain}, window_start, zone) AS start, source, song, sum(streams) AS streams
    FROM content_performance CROSS JOIN metrics_folding WHERE window_start >= %s
    GROUP BY 1, 2, 3
) AS gone
WHERE (t.{start}, t.source, t.song) = (gone.start, gone.source, gone.song)
""")
