"""The metric tables against what a generated history must have made of them."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

from psycopg2 import sql

from music_streaming import metrics
from music_streaming.demo.expected import Comparison, compare, read_header
from music_streaming.error import MusicError
from music_streaming.settings import Settings
from music_streaming.snapshot import snapshot


def compare_tables(settings: Settings, path: Path) -> Comparison:
    """Compare the tables with the file of expected metrics at `path` (music_streaming.demo.expected).

    Live plays that fall into the history's windows (those of phones that were offline, or begun before its
    end) are told by their event_ids and subtracted; listeners are then not compared in their rows, for
    a sketch forgets nobody. So only windows whose raw plays are there and that are not folded are compared:
    MusicError where there are none.
    """
    hours = [datetime.fromisoformat(hour) for hour in read_header(path)["hours"]]
    with snapshot(settings, "musicctl-validate") as seen:
        # Before, plays have expired or windows are folded.
        kept = seen.row(
            "SELECT greatest(first_day::timestamp AT TIME ZONE 'UTC', hours_before) AS since "
            "FROM demo_first_day, metrics_folding"
        )["since"]
        if hours and hours[-1] < kept:
            raise MusicError.of(
                "Expected metrics",
                found=f"a history up to {hours[-1]:%F %H:%M}, of which every play has expired",
                wanted=f"one that goes beyond {kept:%F %H:%M} UTC",
                remedy="none needed: musicctl validate without --expected checks what is there",
            )
        # An hour of the display time zone may begin before the hour of UTC.
        span = (
            {"since": max(hours[0] - timedelta(hours=1), kept), "until": hours[-1] + timedelta(hours=1)}
            if hours
            else {}
        )
        return compare(path, lambda table: seen.stream(_of_history(metrics.BY_NAME[table]), span), since=kept)


def _of_history(table: metrics.Table) -> sql.Composed:
    """Demo rows of `table` between since and until, less what plays added that are not of a history."""
    key = metrics.columns(table.keys)
    return sql.SQL("""
    SELECT window_start, m.source, {of_table}, {counts},
           CASE WHEN l.streams IS NULL THEN hll_cardinality(m.listeners) END AS listeners
    FROM {table} AS m
    LEFT JOIN (
        SELECT {window} AS window_start, {key}, {sums}
        FROM stream_events CROSS JOIN metrics_folding AS f
        WHERE source = 'demo' AND event_time >= %(since)s AND event_time < %(until)s
          -- A history's ids are of version 8, live ones of version 4.
          AND substr(event_id::text, 15, 1) <> '8'
        GROUP BY 1, {key}
    ) AS l USING (window_start, {key})
    WHERE m.source = 'demo' AND window_start >= %(since)s AND window_start < %(until)s
      AND m.streams > coalesce(l.streams, 0)
    ORDER BY window_start""").format(
        of_table=metrics.columns(table.keys, of="m"),
        counts=sql.SQL(", ").join(
            sql.SQL("m.{0} - coalesce(l.{0}, 0) AS {0}").format(sql.Identifier(name))
            for name in metrics.COUNT_NAMES
        ),
        table=sql.Identifier(table.name),
        window=sql.SQL(metrics.WINDOWS[table.window]),
        key=key,
        sums=metrics.sums(),
    )
