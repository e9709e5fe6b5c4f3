"""What is shown of the flow: numbers of one snapshot of the database, and how far Kafka is ahead."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from music_streaming.broker import admin, end_offsets
from music_streaming.settings import Role, Settings

TOP = 10
RATE_SECONDS = 10
TOP_SONGS = (
    "SELECT title, artist, sum(streams)::bigint FROM content_performance_metrics"
    " GROUP BY song_id, title, artist ORDER BY 3 DESC, 1, 2 LIMIT %s"
)
SUMS = (
    "SELECT sum(present + expired)::bigint, sum(user_engagement)::bigint, sum(geographic)::bigint,"
    " sum(device_usage)::bigint, sum(content_performance)::bigint, bool_and(exact) FROM ingest_exactness"
)


@dataclass(frozen=True)
class Song:
    """Of the songs played most."""

    title: str
    artist: str
    streams: int


@dataclass(frozen=True)
class Numbers:
    """One look; `sums` of streams by metric table, each equal to `accepted` when exact."""

    per_second: float
    accepted: int
    duplicates: int
    late: int
    rejected: int
    listeners: int
    waiting: int
    last_commit: dt.datetime | None
    sums: dict[str, int]
    exact: bool
    songs: list[Song]

    def line(self) -> str:
        """In one line, for what is no terminal."""
        exact = "exact" if self.exact else f"NOT EXACT {self.sums}"
        return (
            f"{self.per_second:.0f} streams/s, {self.accepted:,} accepted, {self.waiting:,} waiting, "
            f"{self.late:,} late, {self.duplicates:,} duplicates, {self.rejected:,} rejected; {exact}"
        )


def look(settings: Settings) -> Numbers:
    """Ask Kafka and PostgreSQL once; psycopg2.Error and KafkaError as they come."""
    with admin(settings.kafka.bootstrap) as client:
        ends = end_offsets(client, settings.kafka.topic)
    with settings.postgres.connection(Role.READER, application="try") as connection:
        connection.set_session(isolation_level="REPEATABLE READ", readonly=True)
        with connection.cursor() as cursor:

            def rows(sql: str, *parameters: object) -> list[tuple[Any, ...]]:
                cursor.execute(sql, parameters)
                return cursor.fetchall()

            ((recent, last_commit),) = rows(
                "SELECT coalesce(sum(accepted) FILTER"
                " (WHERE committed_at > now() - make_interval(secs => %s)), 0)::bigint,"
                " max(committed_at) FROM ingest_batches",
                RATE_SECONDS,
            )
            ((accepted, duplicates, late),) = rows(
                "SELECT sum(accepted)::bigint, sum(duplicates)::bigint, sum(late)::bigint FROM ingest_totals"
            )
            ((rejected,),) = rows("SELECT coalesce(sum(rejected), 0)::bigint FROM ingest_reject_totals")
            ((*sums, exact),) = rows(SUMS)
            ((listeners,),) = rows(
                "SELECT coalesce(round(hll_cardinality(hll_union_agg(listeners))), 0)::bigint"
                " FROM geographic_metrics WHERE window_start > now() - interval '10 minutes'"
            )
            songs = rows(TOP_SONGS, TOP)
            covered = dict(
                rows(
                    "SELECT partition, next_offset FROM ingest_offsets WHERE topic = %s", settings.kafka.topic
                )
            )
    names = ("raw plays", "user engagement", "geography", "devices", "content")
    return Numbers(
        per_second=recent / RATE_SECONDS,
        accepted=accepted,
        duplicates=duplicates,
        late=late,
        rejected=rejected,
        listeners=listeners,
        waiting=sum(max(end - covered.get(partition, 0), 0) for partition, end in ends.items()),
        last_commit=last_commit,
        sums=dict(zip(names, sums, strict=True)),
        exact=exact,
        songs=[Song(*row) for row in songs],
    )


def picture(numbers: Numbers) -> Group:
    """For a terminal."""
    flow = Table("", "", title="Flow", title_justify="left", show_header=False, min_width=44)
    flow.add_row("streams a second", f"{numbers.per_second:.1f}")
    flow.add_row("plays accepted", f"{numbers.accepted:,}")
    flow.add_row("records waiting in Kafka", f"{numbers.waiting:,}")
    flow.add_row("listeners, last 10 minutes", f"{numbers.listeners:,}")
    flow.add_row(
        "late, duplicates, rejected", f"{numbers.late:,}, {numbers.duplicates:,}, {numbers.rejected:,}"
    )
    style = "bold green" if numbers.exact else "bold red"
    exact = Table("", "streams", title="Exactness", title_justify="left", min_width=44)
    exact.columns[1].justify = "right"
    for name, streams in numbers.sums.items():
        exact.add_row(name, f"{streams:,}")
    exact.add_row("", Text("all equal" if numbers.exact else "NOT EQUAL", style=style))
    songs = Table("top songs", "artist", "streams")
    songs.columns[2].justify = "right"
    for song in numbers.songs:
        songs.add_row(Text(song.title), Text(song.artist), f"{song.streams:,}")
    both = Table.grid(padding=(0, 2))
    both.add_row(Group(flow, exact), songs)
    return Group(
        Text(
            "music-streaming, the flow without a board; Superset is no part of it (make up). Ctrl-C ends it."
        ),
        both,
    )
