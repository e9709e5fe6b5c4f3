"""The one transaction of a micro-batch. `write` has its steps.

Whatever is read twice (a batch repeated after a crash, two drivers at once, a producer that sends again)
changes nothing the second time: records behind the stored offsets are left out, and the metrics are added up
from the rows that INSERT ... ON CONFLICT DO NOTHING really inserted.
"""

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from psycopg2 import sql

from music_streaming import metrics, offsets, same_play
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
        _make_ready(cursor)
        limits = {"statement_timeout": statement_seconds, "lock_timeout": statement_seconds / 2}
        for name, seconds in limits.items():
            cursor.execute("SELECT set_config(%s, %s, false)", (name, f"{seconds * 1000:.0f}ms"))


def _make_ready(cursor: Any) -> None:
    cursor.execute(_SESSION)
    cursor.execute(_INCOMING)
    cursor.execute(_INCOMING_REJECTS)


def write(connection: Any, batch: Batch, rules: Rules) -> Outcome:
    """Write a batch in one transaction; the connection must have seen prepare_session.

    0. Before it begins: sort the rows into plays, their flaws, rejects and tombstones (rows.py).
    1. Lock the topic's offsets, and refuse where they are another topic's or behind this reader (offsets.py).
    2. Leave out the records that the offsets cover. Move the offsets, note the gaps up to there, and count
       the offsets that held nothing to be read; where no record is left, that is all.
    3. Count the flaws of the plays by field and reason.
    4. Insert the plays. What was really inserted is added to each table of metrics, in the same statement
       (metrics.py), and counted by source.
    5. Insert the rejects, count them by reason, forget the oldest.
    6. Move the watermark, which never goes back.
    7. Add to the topic's totals, and tell of the batch in a row of its own.

    TopicRecreatedError or OffsetsMovedBackError where the offsets do not fit; psycopg2.Error as it comes.
    Nothing is written then.
    """
    sorted_rows = split(batch.rows, rules.future_tolerance)
    with connection, connection.cursor() as cursor:
        partitions = {*pc.unique(batch.rows["partition"]).to_pylist(), *batch.ends}
        covered = offsets.lock(cursor, batch.topic, batch.topic_id, partitions, batch.expected)
        plays, flaws, rejects, tombstones = (offsets.uncovered(rows, covered) for rows in sorted_rows)
        records = plays.num_rows + rejects.num_rows + tombstones.num_rows
        next_offsets, gaps = _move_offsets(cursor, batch, covered, (plays, rejects, tombstones))
        if not records:
            return Outcome(next_offsets=next_offsets)
        watermark = _watermark(cursor, batch.topic)
        _count_flaws(cursor, flaws)
        accepted, late, newest = _insert_plays(cursor, plays, watermark)
        _insert_rejects(cursor, batch, rejects, rules.rejects_kept)
        outcome = Outcome(
            records=records,
            accepted=accepted,
            duplicates=plays.num_rows - accepted,
            late=late,
            rejected=rejects.num_rows,
            tombstones=tombstones.num_rows,
            watermark=_moved(watermark, newest, rules),
            next_offsets=next_offsets,
            gaps=gaps,
        )
        _record(cursor, batch, outcome, newest)
    return outcome


def _move_offsets(
    cursor: Any, batch: Batch, covered: Mapping[int, int], tables: Sequence[pa.Table]
) -> tuple[dict[int, int], tuple[offsets.Gap, ...]]:
    """Returns each partition's next offset, and the gaps up to there."""
    reached, gaps = offsets.reach(covered, tables, batch.ends, compacted=batch.compacted)
    next_offsets = {**covered} | {partition: end.next_offset for partition, end in reached.items()}
    passed = sum(next_offsets.values()) - sum(covered.values())
    held = sum(rows.num_rows for rows in tables) + sum(end - start for _, start, end in gaps)
    offsets.count_control(cursor, batch.topic, passed - held)
    offsets.move(cursor, batch.topic, batch.topic_id, reached, gaps)
    return next_offsets, gaps


def judge_again(connection: Any, topic: str, rules: Rules, now: dt.datetime) -> Outcome:
    """Judge rejects again that were in the future and are so no more.

    What is a play then was rejected and is accepted: it counts once, by its event_id. The oldest few thousand
    in a call, in one transaction. psycopg2.Error as it comes.
    """
    due = {"topic": topic, "until": now + rules.future_tolerance, "most": 5_000}
    with connection, connection.cursor() as cursor:
        cursor.execute(_DUE, due | {"most": 1})
        if not cursor.fetchall():
            return Outcome()
        cursor.execute("SET LOCAL lock_timeout = '5s'")
        _make_ready(cursor)
        watermark = _watermark(cursor, topic)
        # Once more, as another driver may have been quicker.
        cursor.execute(_DUE, due)
        found = cursor.fetchall()
        if not found:
            return Outcome()
        topic_ids, serials, partitions, numbers, raws = zip(*found, strict=True)
        batch = Batch(topic, topic_ids[0], _arriving(partitions, numbers, raws, now), {}, now)
        plays, flaws, rejects, _ = split(batch.rows, rules.future_tolerance)
        cursor.execute("DELETE FROM rejected_events WHERE serial = ANY(%s)", (list(serials),))
        cursor.execute(
            "UPDATE ingest_reject_totals SET rejected = rejected - %s, updated_at = now() "
            "WHERE reason = 'in_future'",
            (len(found),),
        )
        # By another reason, should the contract have changed.
        _insert_rejects(cursor, batch, rejects, rules.rejects_kept)
        _count_flaws(cursor, flaws)
        accepted, late, newest = _insert_plays(cursor, plays, watermark)
        outcome = Outcome(
            accepted=accepted,
            duplicates=plays.num_rows - accepted,
            late=late,
            rejected=-plays.num_rows,
            watermark=_moved(watermark, newest, rules),
        )
        _record(cursor, batch, outcome, newest)
    return outcome


def _arriving(
    partitions: Sequence[int], numbers: Sequence[int], raws: Sequence[Any], now: dt.datetime
) -> pa.Table:
    """Kept records as query.plays would read them if they came now; raws: their bytes."""
    values = [bytes(raw) for raw in raws]
    return pa.table(
        {
            "partition": pa.array(partitions, pa.int32()),
            "offset": pa.array(numbers, pa.int64()),
            "kafka_time": pa.array([now] * len(values), pa.timestamp("us", tz="UTC")),
            "fields": pa.nulls(len(values)),
            "value": pa.array(values, pa.binary()),
            "value_length": pa.array(map(len, values), pa.int64()),
        }
    )


def _moved(watermark: dt.datetime | None, newest: dt.datetime | None, rules: Rules) -> dt.datetime | None:
    if newest is None:
        return watermark
    moved = newest - rules.watermark_delay
    return moved if watermark is None else max(watermark, moved)


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
    # Windows are not folded while plays are being added to them (retention.py).
    cursor.execute("SELECT pg_advisory_xact_lock_shared(hashtext('metrics_folding'))")
    if days:
        cursor.execute("SELECT make_demo_partitions(%s::date[])", (days,))
    _copy(cursor, "incoming", same_play.without(cursor, plays).drop_columns(["kafka_time"]))
    cursor.execute(_INSERT_SONGS)
    cursor.execute(_INSERT_PLAYS, {"watermark": watermark, "offered": plays.num_rows})
    cursor.execute(_ADD_PLAYS, {"watermark": watermark})
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
        "INSERT INTO rejected_events (topic_id, kafka_partition, kafka_offset, topic, reason, field, due, "
        "raw, raw_length, kafka_time) "
        "SELECT %s, kafka_partition, kafka_offset, %s, reason, field, due, raw, raw_length, kafka_time "
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


# jit: its compilation costs more than the statements. hll.force_groupagg: a hash aggregate would hold one
# sketch of 128 KiB for each song of the batch at once. temp_buffers: room for `incoming`, which else goes to
# files and back.
_SESSION = """
SET jit = off;
SET work_mem = '32MB';
SET temp_buffers = '24MB';
SET hll.force_groupagg = on;
SET idle_in_transaction_session_timeout = '60s';
"""

_STORED = (*PLAY_COLUMNS, "kafka_partition", "kafka_offset")
# Types are those of the table that the rows go to.
_INCOMING = sql.SQL(
    "CREATE TEMPORARY TABLE IF NOT EXISTS incoming ON COMMIT DELETE ROWS AS "
    "SELECT {stored} FROM stream_events WITH NO DATA"
).format(stored=metrics.columns(_STORED))
_INCOMING_REJECTS = sql.SQL(
    "CREATE TEMPORARY TABLE IF NOT EXISTS incoming_rejects ON COMMIT DELETE ROWS AS "
    "SELECT {} FROM rejected_events WITH NO DATA"
).format(metrics.columns(REJECTS.names))

# Of one topic id, whose offsets tell the records apart.
_DUE = """
SELECT topic_id, serial, kafka_partition, kafka_offset, raw
FROM rejected_events
WHERE topic = %(topic)s AND due <= %(until)s AND topic_id = (
    SELECT topic_id FROM rejected_events WHERE topic = %(topic)s AND due <= %(until)s ORDER BY due LIMIT 1)
ORDER BY due, serial LIMIT %(most)s
"""

_INSERT_SONGS = metrics.add_songs(sql.Identifier("incoming"))
_LATE = sql.SQL("coalesce(event_time < %(watermark)s::timestamptz, false)")
# What was really inserted stays in `incoming`. Mostly that is all of it, and no row is looked at again.
_INSERT_PLAYS = sql.SQL("""
WITH inserted AS (
    INSERT INTO stream_events ({stored}, late)
    SELECT {stored}, {late} FROM incoming
    ON CONFLICT DO NOTHING
    RETURNING kafka_partition, kafka_offset
)
DELETE FROM incoming AS i
WHERE (SELECT count(*) FROM inserted) < %(offered)s AND NOT EXISTS (
    SELECT FROM inserted AS n
    WHERE (n.kafka_partition, n.kafka_offset) = (i.kafka_partition, i.kafka_offset))
""").format(stored=metrics.columns(_STORED), late=_LATE)
_ADD_PLAYS = sql.SQL("""
WITH fresh AS MATERIALIZED (
    SELECT {late} AS late, {prepared}
    FROM incoming AS p JOIN songs AS s USING ({songs}) CROSS JOIN metrics_folding AS f
), {added}
SELECT source, count(*), count(*) FILTER (WHERE late), max(event_time) FROM fresh GROUP BY source
""").format(
    late=_LATE,
    prepared=metrics.prepared(),
    songs=metrics.columns(metrics.SONG_KEYS),
    added=metrics.add_everywhere(sql.Identifier("fresh")),
)
