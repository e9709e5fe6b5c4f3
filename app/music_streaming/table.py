"""The one transaction of a micro-batch. `write` has its steps.

Whatever is read twice (a batch repeated after a crash, two drivers at once, a producer that sends again)
changes nothing the second time: records behind the stored offsets are left out, and the metrics are added up
from the rows that INSERT ... ON CONFLICT DO NOTHING really inserted.
"""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import psycopg2
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from psycopg2 import sql

from music_streaming import metrics, offsets
from music_streaming.event import PLAY_COLUMNS
from music_streaming.rows import REJECTS, split


@dataclass(frozen=True)
class Rules:
    """How far the watermark stays behind, how far ahead an event may be dated, how many rejects are kept."""

    watermark_delay: dt.timedelta = dt.timedelta(minutes=10)
    future_tolerance: dt.timedelta = dt.timedelta(minutes=5)
    rejects_kept: int = 100_000


@dataclass(frozen=True)
class Batch:
    """What one micro-batch read.

    rows: the output of query.plays. expected: for each partition the offset that this reader goes on from.
    read_at: when reading began. ends: for each partition the offset behind the last record that was read,
    be it one that nobody is shown. compacted: whether the topic is (offsets.reach).
    """

    topic: str
    topic_id: str
    rows: pa.Table
    expected: Mapping[int, int]
    read_at: dt.datetime
    ends: Mapping[int, int] = field(default_factory=dict)
    compacted: bool = False


@dataclass(frozen=True)
class Outcome:
    """What a batch changed; all counts 0 where everything had been covered before."""

    records: int = 0
    accepted: int = 0
    duplicates: int = 0
    late: int = 0
    rejected: int = 0
    tombstones: int = 0
    watermark: dt.datetime | None = None
    next_offsets: Mapping[int, int] = field(default_factory=dict)
    gaps: tuple[offsets.Gap, ...] = ()


def prepare_session(connection: Any, statement_seconds: float = 60) -> None:
    """Settings and temporary tables of a connection that is to write batches.

    statement_seconds: after which PostgreSQL cancels a statement; half of it is for waiting for a lock.
    """
    with connection, connection.cursor() as cursor:
        cursor.execute(_SESSION)
        limits = {"statement_timeout": statement_seconds, "lock_timeout": statement_seconds / 2}
        for name, seconds in limits.items():
            cursor.execute("SELECT set_config(%s, %s, false)", (name, f"{seconds * 1000:.0f}ms"))
        cursor.execute(_INCOMING)
        cursor.execute(_INCOMING_REJECTS)


def write(connection: Any, batch: Batch, rules: Rules) -> Outcome:
    """Write a batch in one transaction; the connection must have seen prepare_session.

    0. Before it begins: sort the rows into plays, their flaws, rejects and tombstones (rows.py).
    1. Lock the topic's offsets, and refuse where they are another topic's or behind this reader (offsets.py).
    2. Leave out the records that the offsets cover; where none is left, the offsets alone move, over markers
       and aborted records.
    3. Count the flaws of the plays by field and reason.
    4. Insert the plays. What was really inserted is added to each table of metrics, in the same statement
       (metrics.py), and counted by source.
    5. Insert the rejects, count them by reason, forget the oldest.
    6. Move the watermark, which never goes back.
    7. Move the offsets, note the gaps up to there, and count the offsets that held nothing to be read.
    8. Add to the topic's totals, and tell of the batch in a row of its own.

    TopicRecreatedError or OffsetsMovedBackError where the offsets do not fit; psycopg2.Error as it comes.
    Nothing is written then.
    """
    sorted_rows = split(batch.rows, rules.future_tolerance)
    with connection, connection.cursor() as cursor:
        partitions = {*pc.unique(batch.rows["partition"]).to_pylist(), *batch.ends}
        covered = offsets.lock(cursor, batch.topic, batch.topic_id, partitions, batch.expected)
        plays, flaws, rejects, tombstones = (offsets.uncovered(rows, covered) for rows in sorted_rows)
        records = plays.num_rows + rejects.num_rows + tombstones.num_rows
        reached, gaps = offsets.reach(
            covered, (plays, rejects, tombstones), batch.ends, compacted=batch.compacted
        )
        next_offsets = covered | {partition: end.next_offset for partition, end in reached.items()}
        passed = sum(next_offsets.values()) - sum(covered.values())
        held_none = passed - records - sum(end - start for _, start, end in gaps)
        offsets.count_control(cursor, batch.topic, held_none)
        offsets.move(cursor, batch.topic, batch.topic_id, reached, gaps)
        if not records:
            return Outcome(next_offsets=next_offsets)
        watermark = _watermark(cursor, batch.topic)
        _count_flaws(cursor, flaws)
        accepted, late, newest = _insert_plays(cursor, plays, watermark)
        _insert_rejects(cursor, batch, rejects, rules.rejects_kept)
        if newest is not None:
            moved = newest - rules.watermark_delay
            watermark = moved if watermark is None else max(watermark, moved)
        outcome = Outcome(
            records=records,
            accepted=accepted,
            duplicates=plays.num_rows - accepted,
            late=late,
            rejected=rejects.num_rows,
            tombstones=tombstones.num_rows,
            watermark=watermark,
            next_offsets=next_offsets,
            gaps=gaps,
        )
        _record(cursor, batch, outcome, newest)
    return outcome


def _watermark(cursor: Any, topic: str) -> dt.datetime | None:
    cursor.execute("INSERT INTO ingest_state (topic) VALUES (%s) ON CONFLICT DO NOTHING", (topic,))
    cursor.execute("SELECT watermark FROM ingest_state WHERE topic = %s FOR UPDATE", (topic,))
    watermark: dt.datetime | None = cursor.fetchone()[0]
    return watermark


def _insert_plays(
    cursor: Any, plays: pa.Table, watermark: dt.datetime | None
) -> tuple[int, int, dt.datetime | None]:
    """Returns how many were accepted, how many of them are late, and the newest time among them."""
    if not plays.num_rows:
        return 0, 0, None
    demo = plays["event_time"].filter(pc.equal(plays["source"], "demo"))
    days = pc.unique(pc.cast(demo, pa.date32(), safe=False)).to_pylist()
    if days:
        cursor.execute("SELECT make_demo_partitions(%s::date[])", (days,))
    _copy(cursor, "incoming", plays.drop_columns(["kafka_time"]))
    cursor.execute(_INSERT_PLAYS, {"watermark": watermark})
    inserted = {source: (accepted, late, newest) for source, accepted, late, newest in cursor.fetchall()}
    for source in sorted(pc.unique(plays["source"]).to_pylist()):
        offered = pc.sum(pc.equal(plays["source"], source)).as_py()
        accepted, late, newest = inserted.get(source, (0, 0, None))
        cursor.execute(
            "UPDATE ingest_totals SET accepted = accepted + %s, duplicates = duplicates + %s, "
            "late = late + %s, newest_event_time = greatest(newest_event_time, %s), updated_at = now() "
            "WHERE source = %s",
            (accepted, offered - accepted, late, newest, source),
        )
    times = [newest for _, _, newest in inserted.values()]
    return (
        sum(accepted for accepted, _, _ in inserted.values()),
        sum(late for _, late, _ in inserted.values()),
        max(times, default=None),
    )


def _count_flaws(cursor: Any, flaws: pa.Table) -> None:
    counted = flaws.group_by(["field", "reason"]).aggregate([([], "count_all")])
    for count in counted.to_pylist():
        cursor.execute(
            "INSERT INTO ingest_flaw_totals AS t (field, reason, plays) VALUES (%s, %s, %s) "
            "ON CONFLICT (field, reason) DO UPDATE SET plays = t.plays + excluded.plays, updated_at = now()",
            (count["field"], count["reason"], count["count_all"]),
        )


def _insert_rejects(cursor: Any, batch: Batch, rejects: pa.Table, kept: int) -> None:
    if not rejects.num_rows:
        return
    _copy(cursor, "incoming_rejects", rejects)
    # The same offset twice: the broker lost the first record in a power cut.
    cursor.execute(
        "DELETE FROM rejected_events AS r USING incoming_rejects AS i WHERE r.topic_id = %s "
        "AND r.kafka_partition = i.kafka_partition AND r.kafka_offset = i.kafka_offset",
        (batch.topic_id,),
    )
    cursor.execute(
        "INSERT INTO rejected_events (topic_id, kafka_partition, kafka_offset, topic, reason, field, raw, "
        "raw_length, kafka_time) "
        "SELECT %s, kafka_partition, kafka_offset, %s, reason, field, raw, raw_length, kafka_time "
        "FROM incoming_rejects ORDER BY kafka_time, kafka_partition, kafka_offset",
        (batch.topic_id, batch.topic),
    )
    cursor.execute(
        "DELETE FROM rejected_events WHERE serial <= (SELECT max(serial) FROM rejected_events) - %s", (kept,)
    )
    counted = pc.value_counts(rejects["reason"]).to_pylist()
    for count in sorted(counted, key=lambda count: count["values"]):
        cursor.execute(
            "INSERT INTO ingest_reject_totals AS t (reason, rejected) VALUES (%s, %s) ON CONFLICT (reason) "
            "DO UPDATE SET rejected = t.rejected + excluded.rejected, updated_at = now()",
            (count["values"], count["counts"]),
        )


def _record(cursor: Any, batch: Batch, outcome: Outcome, newest: dt.datetime | None) -> None:
    counts = {
        "topic": batch.topic,
        "records": outcome.records,
        "accepted": outcome.accepted,
        "duplicates": outcome.duplicates,
        "late": outcome.late,
        "rejected": outcome.rejected,
        "tombstones": outcome.tombstones,
        "watermark": outcome.watermark,
        "newest": newest,
        "read_at": batch.read_at,
    }
    cursor.execute(
        "UPDATE ingest_state SET watermark = %(watermark)s, records = records + %(records)s, "
        "accepted = accepted + %(accepted)s, duplicates = duplicates + %(duplicates)s, "
        "rejected = rejected + %(rejected)s, tombstones = tombstones + %(tombstones)s, updated_at = now() "
        "WHERE topic = %(topic)s",
        counts,
    )
    cursor.execute(
        "INSERT INTO ingest_batches (topic, records, accepted, duplicates, late, rejected, tombstones, "
        "watermark, newest_event_time, read_at, committed_at) "
        "VALUES (%(topic)s, %(records)s, %(accepted)s, %(duplicates)s, %(late)s, %(rejected)s, "
        "%(tombstones)s, %(watermark)s, %(newest)s, %(read_at)s, clock_timestamp())",
        counts,
    )


def _copy(cursor: Any, table: str, rows: pa.Table) -> None:
    sink = pa.BufferOutputStream()
    pyarrow.csv.write_csv(rows, sink, pyarrow.csv.WriteOptions(include_header=False))
    statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT csv)").format(
        sql.Identifier(table), metrics.columns(rows.column_names)
    )
    cursor.copy_expert(statement, pa.BufferReader(sink.getvalue()), 1 << 20)


def housekeep(connection: Any, demo_retention_days: int, batches_kept_days: int) -> int | None:
    """Let generated plays expire and forget old batches; returns how many plays expired.

    None where a long query of a reader stood in the way: try again later.
    """
    with connection, connection.cursor() as cursor:
        cursor.execute(
            "DELETE FROM ingest_batches WHERE committed_at < now() - make_interval(days => %s)",
            (batches_kept_days,),
        )
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute("SELECT expire_demo_events(%s)", (demo_retention_days,))
            expired: int = cursor.fetchone()[0]
            return expired
    except (psycopg2.errors.LockNotAvailable, psycopg2.errors.DeadlockDetected):
        return None


# jit: its compilation costs more than the statements. hll.force_groupagg: a hash aggregate would hold one
# sketch of 128 KiB for each song of the batch at once.
_SESSION = """
SET jit = off;
SET work_mem = '32MB';
SET hll.force_groupagg = on;
SET idle_in_transaction_session_timeout = '60s';
"""

_STORED = (*PLAY_COLUMNS, "kafka_partition", "kafka_offset")
# What is copied of a play: what is stored, and the starts of its windows. Types are those of the tables that
# the rows go to.
_INCOMING = sql.SQL(
    "CREATE TEMPORARY TABLE IF NOT EXISTS incoming ON COMMIT DELETE ROWS AS "
    "SELECT {stored}, {windows} FROM stream_events WITH NO DATA"
).format(
    stored=metrics.columns(_STORED),
    windows=sql.SQL(", ").join(
        sql.SQL("NULL::timestamptz AS {}").format(sql.Identifier(name)) for name in metrics.WINDOWS
    ),
)
_INCOMING_REJECTS = sql.SQL(
    "CREATE TEMPORARY TABLE IF NOT EXISTS incoming_rejects ON COMMIT DELETE ROWS AS "
    "SELECT {} FROM rejected_events WITH NO DATA"
).format(metrics.columns(REJECTS.names))

_INSERT_PLAYS = sql.SQL("""
WITH inserted AS (
    INSERT INTO stream_events ({stored}, late)
    SELECT {stored}, coalesce(event_time < %(watermark)s::timestamptz, false)
    FROM incoming
    ON CONFLICT DO NOTHING
    RETURNING kafka_partition, kafka_offset, late
), fresh AS MATERIALIZED (
    SELECT i.*, n.late FROM inserted AS n JOIN incoming AS i USING (kafka_partition, kafka_offset)
), {added}
SELECT source, count(*), count(*) FILTER (WHERE late), max(event_time) FROM fresh GROUP BY source
""").format(
    stored=metrics.columns(_STORED),
    added=sql.SQL(", ").join(
        sql.SQL("{} AS ({})").format(sql.Identifier(f"{metric.name}_added"), metrics.add(metric, "fresh"))
        for metric in metrics.TABLES
    ),
)
