"""The one transaction of a micro-batch: plays, metrics, rejects, totals and the Kafka offsets.

Whatever is read twice (a batch repeated after a crash, two drivers at once, a producer that sends again)
changes nothing the second time: records behind the stored offsets are left out, and the metrics are added up
from the rows that INSERT ... ON CONFLICT DO NOTHING really inserted.
"""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import psycopg2
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from music_streaming import event
from music_streaming.error import MusicError
from music_streaming.event import PLAY_COLUMNS

_TIME = pa.timestamp("us", tz="UTC")
_ARROW = {"integer": pa.int64(), "boolean": pa.bool_(), "time": _TIME}
_WHERE = [("kafka_partition", pa.int32()), ("kafka_offset", pa.int64()), ("kafka_time", _TIME)]
_PLAYS = pa.schema(
    [
        *((field.name, _ARROW.get(field.kind, pa.string())) for field in event.FIELDS),
        ("region", pa.string()),
        *_WHERE,
        ("metric_window", _TIME),
        ("content_window", _TIME),
        ("listener", pa.int64()),
    ]
)
_REJECTS = pa.schema(
    [
        *_WHERE,
        ("reason", pa.string()),
        ("field", pa.string()),
        ("raw_length", pa.int64()),
        ("raw", pa.string()),
    ]
)
_NFC = [field.name for field in event.FIELDS if field.kind in ("text", "name")]


class TopicRecreatedError(MusicError):
    """The topic is another one than the offsets in the database belong to."""


class OffsetsMovedBackError(MusicError):
    """The database wants earlier records than this reader has: it was restored."""


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
    read_at: when reading began.
    """

    topic: str
    topic_id: str
    rows: pa.Table
    expected: Mapping[int, int]
    read_at: dt.datetime


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
    gaps: tuple[tuple[int, int, int], ...] = ()
    """(partition, from, to) of offsets that hold no record."""


def prepare_session(connection: Any) -> None:
    """Settings and temporary tables of a connection that is to write batches."""
    with connection, connection.cursor() as cursor:
        cursor.execute(_SESSION)


def write(connection: Any, batch: Batch, rules: Rules) -> Outcome:
    """Write a batch in one transaction; the connection must have seen prepare_session.

    TopicRecreatedError or OffsetsMovedBackError where the offsets do not fit; psycopg2.Error as it comes.
    Nothing is written then.
    """
    plays, rejects, tombstones = split(batch.rows, rules.future_tolerance)
    with connection, connection.cursor() as cursor:
        covered = _lock_offsets(cursor, batch)
        plays, rejects, tombstones = (_uncovered(rows, covered) for rows in (plays, rejects, tombstones))
        records = plays.num_rows + rejects.num_rows + tombstones.num_rows
        if not records:
            return Outcome(next_offsets=covered)
        reached, gaps = _reach(covered, (plays, rejects, tombstones))
        watermark = _watermark(cursor, batch.topic)
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
            next_offsets=covered | {partition: offset for partition, (offset, _) in reached.items()},
            gaps=gaps,
        )
        _record(cursor, batch, outcome, reached, newest)
    return outcome


def split(rows: pa.Table, future_tolerance: dt.timedelta) -> tuple[pa.Table, pa.Table, pa.Table]:
    """Plays as stored (one column each), rejects, and tombstones, from the output of query.plays."""
    in_doubt = pc.is_null(rows["play"])
    certain = rows.filter(pc.invert(in_doubt))
    columns = {name: pc.struct_field(certain["play"], name) for name in PLAY_COLUMNS}
    for name in _NFC:
        columns[name] = _nfc(columns[name])
    columns["song_id"] = _song_ids(columns)
    columns |= {"kafka_partition": certain["partition"], "kafka_offset": certain["offset"]}
    columns |= {name: certain[name] for name in _PLAYS.names if name not in columns}
    plays = pa.table(columns).cast(_PLAYS)
    doubtful = rows.filter(in_doubt)
    tombstones = doubtful.filter(pc.is_null(doubtful["value"])).select(["partition", "offset", "kafka_time"])
    tombstones = tombstones.rename_columns([name for name, _ in _WHERE])
    judged, rejects = _judge(doubtful.filter(pc.is_valid(doubtful["value"])), future_tolerance)
    return pa.concat_tables([plays, judged]) if judged.num_rows else plays, rejects, tombstones


def _judge(doubtful: pa.Table, future_tolerance: dt.timedelta) -> tuple[pa.Table, pa.Table]:
    plays, rejects = [], []
    for row in doubtful.drop_columns(["play"]).to_pylist():
        where = {
            "kafka_partition": row["partition"],
            "kafka_offset": row["offset"],
            "kafka_time": row["kafka_time"],
        }
        try:
            play = event.judge(row["value"], row["kafka_time"], future_tolerance)
        except event.Rejected as reject:
            why = {"reason": reject.reason, "field": reject.field, "raw_length": row["value_length"]}
            raw = "\\x" + row["value"][: event.RAW_LIMIT].hex()
            rejects.append(where | why | {"raw": raw})
            continue
        windows = {
            "metric_window": event.window_start(play["event_time"], event.METRIC_WINDOW),
            "content_window": event.window_start(play["event_time"], event.CONTENT_WINDOW),
        }
        plays.append(play | where | windows | {"listener": row["listener"]})
    return pa.Table.from_pylist(plays, _PLAYS), pa.Table.from_pylist(rejects, _REJECTS)


def _nfc(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if pc.all(pc.string_is_ascii(column)).as_py() in (True, None):
        return column
    return pc.utf8_normalize(column, form="NFC")


def _song_ids(columns: dict[str, pa.ChunkedArray]) -> pa.ChunkedArray:
    given = columns["song_id"]
    if not given.null_count:
        return given
    artists, titles = columns["artist"].to_pylist(), columns["title"].to_pylist()
    made: dict[tuple[str, str], str] = {}
    ids = given.to_pylist()
    for row, song in enumerate(zip(artists, titles, strict=True)):
        if ids[row] is None:
            if song not in made:
                made[song] = event.song_id(*song)
            ids[row] = made[song]
    return pa.chunked_array([pa.array(ids, pa.string())])


def _lock_offsets(cursor: Any, batch: Batch) -> dict[int, int]:
    """Lock the topic's offsets, in order, and return them: the next offset of each partition."""
    partitions = sorted(set(pc.unique(batch.rows["partition"]).to_pylist()))
    for partition in partitions:
        cursor.execute(
            "INSERT INTO ingest_offsets (topic, partition, topic_id, next_offset) VALUES (%s, %s, %s, 0) "
            "ON CONFLICT DO NOTHING",
            (batch.topic, partition, batch.topic_id),
        )
    cursor.execute(
        "SELECT partition, topic_id, next_offset FROM ingest_offsets WHERE topic = %s "
        "ORDER BY partition FOR UPDATE",
        (batch.topic,),
    )
    stored = cursor.fetchall()
    others = {topic_id for _, topic_id, _ in stored if topic_id != batch.topic_id}
    if others:
        raise TopicRecreatedError.of(
            f"Topic {batch.topic}",
            found=f"id {batch.topic_id}",
            wanted=f"id {others.pop()}, to which the stored offsets belong",
            remedy="none needed: the job starts again and reads the new topic from its beginning.",
        )
    covered = {partition: next_offset for partition, _, next_offset in stored}
    for partition, expected in batch.expected.items():
        if covered.get(partition, 0) < expected:
            raise OffsetsMovedBackError.of(
                f"Topic {batch.topic}, partition {partition}",
                found=f"next offset {covered.get(partition, 0)} in the database",
                wanted=f"{expected} or more, where this reader is",
                remedy="none needed: the job starts again from the database's offsets.",
            )
    return covered


def _partition_and_offset(rows: pa.Table) -> tuple[Any, Any]:
    return rows["kafka_partition"].to_numpy(), rows["kafka_offset"].to_numpy()


def _uncovered(rows: pa.Table, covered: Mapping[int, int]) -> pa.Table:
    partitions, offsets = _partition_and_offset(rows)
    keep = np.zeros(len(offsets), dtype=bool)
    for partition, next_offset in covered.items():
        keep |= (partitions == partition) & (offsets >= next_offset)
    return rows if keep.all() else rows.filter(pa.array(keep))


def _reach(
    covered: Mapping[int, int], tables: tuple[pa.Table, ...]
) -> tuple[dict[int, tuple[int, dt.datetime]], tuple[tuple[int, int, int], ...]]:
    """How far each partition is covered now (next offset, newest Kafka time), and the holes in between."""
    pairs = [_partition_and_offset(rows) for rows in tables]
    partitions = np.concatenate([pair[0] for pair in pairs])
    offsets = np.concatenate([pair[1] for pair in pairs])
    times = np.concatenate([rows["kafka_time"].to_numpy() for rows in tables])
    reached: dict[int, tuple[int, dt.datetime]] = {}
    gaps: list[tuple[int, int, int]] = []
    for partition in np.unique(partitions).tolist():
        mine = partitions == partition
        seen = np.concatenate([[covered[partition] - 1], np.sort(offsets[mine])])
        for before in np.flatnonzero(np.diff(seen) > 1):
            gaps.append((partition, int(seen[before]) + 1, int(seen[before + 1])))
        newest = times[mine].max().astype("datetime64[us]").item().replace(tzinfo=dt.UTC)
        reached[partition] = (int(seen[-1]) + 1, newest)
    return reached, tuple(gaps)


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


def _record(
    cursor: Any,
    batch: Batch,
    outcome: Outcome,
    reached: Mapping[int, tuple[int, dt.datetime]],
    newest: dt.datetime | None,
) -> None:
    for partition, (next_offset, newest_kafka_time) in sorted(reached.items()):
        cursor.execute(
            "UPDATE ingest_offsets SET next_offset = %s, "
            "newest_kafka_time = greatest(newest_kafka_time, %s), updated_at = now() "
            "WHERE topic = %s AND partition = %s",
            (next_offset, newest_kafka_time, batch.topic, partition),
        )
    for partition, start, end in outcome.gaps:
        cursor.execute(_RECORD_GAP, (batch.topic, batch.topic_id, partition, start, end, "hole"))
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


_RECORD_GAP = (
    "INSERT INTO ingest_gaps (topic, topic_id, partition, from_offset, to_offset, cause) "
    "VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING"
)


def _copy(cursor: Any, table: str, rows: pa.Table) -> None:
    sink = pa.BufferOutputStream()
    pyarrow.csv.write_csv(rows, sink, pyarrow.csv.WriteOptions(include_header=False))
    names = ", ".join(rows.column_names)
    source = pa.BufferReader(sink.getvalue())
    cursor.copy_expert(f"COPY {table} ({names}) FROM STDIN (FORMAT csv)", source, 1 << 20)


@dataclass(frozen=True)
class Stored:
    """Offsets as stored: next offset of each partition, and the newest Kafka time seen in it."""

    topic_id: str
    next_offsets: Mapping[int, int]
    newest_kafka_times: Mapping[int, dt.datetime]


def stored_offsets(connection: Any, topic: str) -> Stored | None:
    """What the database remembers of a topic; None before its first batch."""
    with connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT topic_id, partition, next_offset, newest_kafka_time FROM ingest_offsets "
            "WHERE topic = %s ORDER BY partition",
            (topic,),
        )
        rows = cursor.fetchall()
    if not rows:
        return None
    return Stored(
        topic_id=rows[0][0],
        next_offsets={partition: next_offset for _, partition, next_offset, _ in rows},
        newest_kafka_times={partition: newest for _, partition, _, newest in rows if newest is not None},
    )


def set_offsets(
    connection: Any, topic: str, topic_id: str, before: Stored | None, offsets: Mapping[int, int]
) -> None:
    """Store where reading starts, with a gap row for what is skipped by it.

    before: what was stored (stored_offsets); OffsetsMovedBackError if that is no longer so.
    """
    with connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT topic_id, partition, next_offset FROM ingest_offsets WHERE topic = %s "
            "ORDER BY partition FOR UPDATE",
            (topic,),
        )
        now = {(row[0], row[1]): row[2] for row in cursor.fetchall()}
        then = {(before.topic_id, p): offset for p, offset in before.next_offsets.items()} if before else {}
        if now != then:
            raise OffsetsMovedBackError.of(
                f"Topic {topic}",
                found="offsets changed by another reader",
                wanted="the ones just read",
                remedy="none needed: the job starts again.",
            )
        old = before.next_offsets if before and before.topic_id == topic_id else {}
        if before and before.topic_id != topic_id:
            # How many records the old topic still held is not to be known any more.
            for partition, offset in before.next_offsets.items():
                lost = (topic, before.topic_id, partition, offset, None, "topic_recreated")
                cursor.execute(_RECORD_GAP, lost)
            cursor.execute("DELETE FROM ingest_offsets WHERE topic = %s", (topic,))
        for partition, offset in sorted(offsets.items()):
            if offset > old.get(partition, 0):
                gap = (topic, topic_id, partition, old.get(partition, 0), offset, "retention")
                cursor.execute(_RECORD_GAP, gap)
            cursor.execute(
                "INSERT INTO ingest_offsets (topic, partition, topic_id, next_offset) "
                "VALUES (%s, %s, %s, %s) ON CONFLICT (topic, partition) DO UPDATE "
                "SET next_offset = excluded.next_offset, updated_at = now()",
                (topic, partition, topic_id, offset),
            )


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
SET statement_timeout = '10min';
SET lock_timeout = '60s';
SET idle_in_transaction_session_timeout = '60s';
CREATE TEMPORARY TABLE IF NOT EXISTS incoming (
    event_id uuid, event_time timestamptz, source text, user_id text, session_id text, song_id text,
    title text, artist text, album text, genre text, duration_ms bigint, listened_ms bigint, skipped boolean,
    liked boolean, completed boolean, subscription_type text, age_group text, country text, region text,
    device_type text, os text, player text, reason_start text, reason_end text,
    kafka_partition integer, kafka_offset bigint,
    metric_window timestamptz, content_window timestamptz, listener bigint
) ON COMMIT DELETE ROWS;
CREATE TEMPORARY TABLE IF NOT EXISTS incoming_rejects (
    kafka_partition integer, kafka_offset bigint, reason text, field text, raw_length bigint,
    kafka_time timestamptz, raw bytea
) ON COMMIT DELETE ROWS;
"""

# Table, window, keys.
METRICS = (
    ("user_engagement_metrics", "metric_window", ("subscription_type", "age_group")),
    ("geographic_metrics", "metric_window", ("country", "region")),
    ("device_usage_metrics", "metric_window", ("device_type", "os")),
    ("content_performance_metrics", "content_window", ("song_id", "title", "artist", "genre")),
)
_COUNTS = ("streams", "completions", "skips", "likes", "listened_ms", "duration_ms")


def _add_up(table: str, window: str, keys: tuple[str, ...]) -> str:
    # Ordered, so that two transactions lock the same rows in the same order.
    key = ", ".join(keys)
    added = ", ".join(f"{name} = t.{name} + excluded.{name}" for name in _COUNTS)
    return f"""
    {table}_added AS (
        INSERT INTO {table} AS t (window_start, source, {key}, {", ".join(_COUNTS)}, listeners)
        SELECT {window}, source, {key}, count(*), count(*) FILTER (WHERE completed),
               count(*) FILTER (WHERE skipped), count(*) FILTER (WHERE liked),
               coalesce(sum(listened_ms), 0), coalesce(sum(duration_ms), 0),
               hll_add_agg(listener::hll_hashval, 11)
        FROM fresh GROUP BY {window}, source, {key} ORDER BY {window}, source, {key}
        ON CONFLICT (window_start, source, {key}) DO UPDATE
        SET {added}, listeners = t.listeners || excluded.listeners, updated_at = now()
    )"""


_INSERT_PLAYS = f"""
WITH inserted AS (
    INSERT INTO stream_events ({", ".join(PLAY_COLUMNS)}, late, kafka_partition, kafka_offset)
    SELECT {", ".join(PLAY_COLUMNS)}, coalesce(event_time < %(watermark)s::timestamptz, false),
           kafka_partition, kafka_offset
    FROM incoming
    ON CONFLICT DO NOTHING
    RETURNING kafka_partition, kafka_offset, late
), fresh AS MATERIALIZED (
    SELECT i.*, n.late FROM inserted AS n JOIN incoming AS i USING (kafka_partition, kafka_offset)
), {", ".join(_add_up(*metric) for metric in METRICS)}
SELECT source, count(*), count(*) FILTER (WHERE late), max(event_time) FROM fresh GROUP BY source
"""
