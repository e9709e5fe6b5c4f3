"""Statistics as ListenBrainz words them: of a listener from the plays, of all from the metric tables."""

from __future__ import annotations

import calendar
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from music_streaming.event import song_id
from music_streaming.scrobble.plays import RefusedError

RANGES = (
    "week", "month", "quarter", "half_yearly", "year", "all_time", "this_week", "this_month", "this_year",
)  # fmt: skip
MOST = 1_000
_OWN = "source IN ('scrobble', 'import') AND user_id = %(listener)s"
_WITHIN = "event_time >= %(since)s AND event_time < %(until)s"

# Entity -> columns that make one, and what ListenBrainz calls the first two.
ENTITIES = {
    "artists": (("artist",), ("artist_name",)),
    "releases": (("album", "artist"), ("release_name", "artist_name")),
    "recordings": (("title", "artist", "album"), ("track_name", "artist_name", "release_name")),
}


@dataclass(frozen=True)
class Span:
    """A range of time by its name, [since, until), and how its activity is cut (date_trunc's word)."""

    name: str
    since: datetime
    until: datetime
    grain: str


def span_of(name: str, now: datetime, first: datetime | None) -> Span:
    """The span that ListenBrainz means by `name`, in the zone of `now`; first: of the plays, for all_time."""
    if name not in RANGES:
        raise RefusedError(f"range: found {name!r:.40}, wanted one of {', '.join(RANGES)}")
    day = now.replace(hour=0, minute=0, second=0, microsecond=0)
    week, month = day - timedelta(days=day.weekday()), day.replace(day=1)
    year = month.replace(month=1)
    quarter = month.replace(month=(month.month - 1) // 3 * 3 + 1)
    half = month.replace(month=1 if month.month < 7 else 7)
    spans = {
        "this_week": (week, now, "day"),
        "this_month": (month, now, "day"),
        "this_year": (year, now, "month"),
        "week": (week - timedelta(days=7), week, "day"),
        "month": (_months(month, -1), month, "day"),
        "quarter": (_months(quarter, -3), quarter, "day"),
        "half_yearly": (_months(half, -6), half, "month"),
        "year": (_months(year, -12), year, "month"),
        "all_time": (first or year, now, "year"),
    }
    since, until, grain = spans[name]
    return Span(name, since, until + timedelta(seconds=1) if until == now else until, grain)


def _months(moment: datetime, count: int) -> datetime:
    months = moment.year * 12 + moment.month - 1 + count
    return moment.replace(year=months // 12, month=months % 12 + 1)


def top(
    cursor: Any, listener: str, entity: str, span: Span, *, count: int, offset: int
) -> tuple[int, list[dict[str, Any]]]:
    """How many different ones there are, and a page of them, the most played first."""
    columns, names = ENTITIES[entity]
    if entity == "recordings":
        # The same song from two albums is one.
        made, by = "title, artist, mode() WITHIN GROUP (ORDER BY album)", "title, artist"
    else:
        made = by = ", ".join(columns)
    present = "album IS NOT NULL" if entity == "releases" else "true"
    cursor.execute(
        f"SELECT {made}, count(*), count(*) OVER () FROM stream_events "  # noqa: S608  columns of ENTITIES
        f"WHERE {_OWN} AND {_WITHIN} AND {present} GROUP BY {by} ORDER BY count(*) DESC, {by} "
        "LIMIT %(count)s OFFSET %(offset)s",
        {"listener": listener, "since": span.since, "until": span.until, "count": count, "offset": offset},
    )
    rows = cursor.fetchall()
    page = [
        dict(zip(names, row[:-2], strict=True)) | {"listen_count": row[-2]} | _ids(entity, row)
        for row in rows
    ]
    return (rows[0][-1] if rows else 0), page


def _ids(entity: str, row: tuple[Any, ...]) -> dict[str, Any]:
    if entity == "artists":
        return {"artist_mbid": None}
    if entity == "releases":
        return {"release_mbid": None, "artist_mbids": []}
    return {"recording_mbid": None, "artist_mbids": [], "recording_msid": song_id(row[1], row[0])}


def listening_activity(cursor: Any, listener: str | None, span: Span) -> list[dict[str, Any]]:
    """Plays in each part of the span; listener None: of the household, from the metrics."""
    zone = span.since.tzinfo
    table, moment, plays = "stream_events", "event_time", "count(*)"
    whose = _OWN
    if listener is None:
        table, moment, plays = "user_engagement_metrics", "window_start", "sum(streams)::bigint"
        whose = "source IN ('scrobble', 'import')"
    cursor.execute(
        f"SELECT date_trunc(%(grain)s, {moment}, %(zone)s), {plays} FROM {table} "  # noqa: S608  names of above
        f"WHERE {whose} AND {moment} >= %(since)s AND {moment} < %(until)s GROUP BY 1 ORDER BY 1",
        {
            "grain": span.grain,
            "zone": str(zone),
            "since": span.since,
            "until": span.until,
            "listener": listener,
        },
    )
    counted = {start.astimezone(zone): count for start, count in cursor.fetchall()}
    return [
        {
            "from_ts": int(start.timestamp()),
            "to_ts": int(end.timestamp()) - 1,
            "time_range": _label(start, span.grain),
            "listen_count": counted.get(start, 0),
        }
        for start, end in _parts(span)
    ]


def _parts(span: Span) -> list[tuple[datetime, datetime]]:
    start = span.since.replace(hour=0, minute=0, second=0, microsecond=0)
    if span.grain in ("month", "year"):
        start = start.replace(day=1)
    if span.grain == "year":
        start = start.replace(month=1)
    parts = []
    while start < span.until:
        end = (
            start + timedelta(days=1)
            if span.grain == "day"
            else _months(start, 12 if span.grain == "year" else 1)
        )
        parts.append((start, end))
        start = end
    return parts


def _label(start: datetime, grain: str) -> str:
    return start.strftime({"day": "%A %d %B %Y", "month": "%B %Y", "year": "%Y"}[grain])


def daily_activity(cursor: Any, listener: str, span: Span) -> dict[str, list[dict[str, int]]]:
    """Plays by weekday and hour, on the clock of the span's zone."""
    cursor.execute(
        "SELECT extract(isodow FROM local)::int, extract(hour FROM local)::int, count(*) FROM ("  # noqa: S608  constants
        f"SELECT event_time AT TIME ZONE %(zone)s AS local FROM stream_events WHERE {_OWN} AND {_WITHIN}"
        ") AS t GROUP BY 1, 2",
        {"zone": str(span.since.tzinfo), "listener": listener, "since": span.since, "until": span.until},
    )
    counted = {(day, hour): count for day, hour, count in cursor.fetchall()}
    return {
        calendar.day_name[day]: [
            {"hour": hour, "listen_count": counted.get((day + 1, hour), 0)} for hour in range(24)
        ]
        for day in range(7)
    }


def household(cursor: Any, entity: str, span: Span, *, count: int, offset: int) -> list[dict[str, Any]]:
    """The artists or songs that are played most by all listeners, from the days of the metrics."""
    columns, names = ["artist"], ["artist_name"]
    if entity == "recordings":
        columns, names = ["title", *columns], ["track_name", *names]
    by = ", ".join(columns)
    cursor.execute(
        f"SELECT {by}, sum(streams)::bigint FROM song_day_streams "  # noqa: S608  columns of above
        "WHERE source IN ('scrobble', 'import') AND day >= %(since)s AND day < %(until)s "
        f"GROUP BY {by} HAVING sum(streams) > 0 ORDER BY sum(streams) DESC, {by} "
        "LIMIT %(count)s OFFSET %(offset)s",
        {"since": span.since, "until": span.until, "count": count, "offset": offset},
    )
    return [dict(zip(names, row[:-1], strict=True)) | {"listen_count": row[-1]} for row in cursor.fetchall()]


def local_now(zone: str, now: datetime) -> datetime:
    """`now` on the clock of the zone."""
    return now.astimezone(ZoneInfo(zone))
