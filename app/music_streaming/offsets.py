"""Kafka's offsets, which live with the data: where reading starts, what is covered, what is missing.

For each partition of a topic ingest_offsets holds the next offset, written in the transaction of the batch.

Not every offset holds a record to be read: a transaction's commit or abort marker takes one, and each record
of an aborted transaction. So in a log that is not compacted an offset that nothing was read of is no loss.
Loss shows at the log's start, which retention moves, and as a log that ends earlier than it did.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from psycopg2 import sql

from music_streaming.error import MusicError

if TYPE_CHECKING:
    from music_streaming.broker import TopicState


class TopicRecreatedError(MusicError):
    """The stored offsets belong to another topic of the same name."""


class OffsetsMovedBackError(MusicError):
    """The database wants earlier records than this reader has: it was restored."""


@dataclass(frozen=True)
class Stored:
    """Offsets as stored: next offset of each partition, and when Kafka appended the newest one read."""

    topic_id: str
    next_offsets: Mapping[int, int]
    newest_kafka_times: Mapping[int, dt.datetime]


@dataclass(frozen=True)
class Reach:
    """How far a batch covers one partition: the next offset, and when Kafka appended its newest record.

    No time where it holds none but control and aborted records, which nobody is shown.
    """

    next_offset: int
    newest_kafka_time: dt.datetime | None


Gap = tuple[int, int, int]
"""(partition, from, to) of offsets that hold no record."""


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


def starting_offsets(
    stored: Stored | None, kafka: TopicState, later: Mapping[int, int | None]
) -> dict[int, int]:
    """Where reading starts in each partition.

    stored: what PostgreSQL remembers. later: the first offset that nobody has read (broker.first_unread).
    After a power cut the broker may have lost its newest records and given their offsets to others. Going
    back too far is harmless: plays are known by their event_id.
    """
    if stored is None or stored.topic_id != kafka.topic_id:
        return dict(kafka.first)
    starts = {}
    for partition, first in kafka.first.items():
        known = stored.next_offsets.get(partition, first)
        end = kafka.end[partition]
        after = later.get(partition)
        starts[partition] = max(first, min(known, end, end if after is None else after))
    return starts


def set_offsets(
    connection: Any, topic: str, topic_id: str, before: Stored | None, offsets: Mapping[int, int]
) -> dict[int, int]:
    """Store where reading starts, with a gap row for what is skipped by it, and for a log that was shortened.

    before: what was stored (stored_offsets); OffsetsMovedBackError if that is no longer so. Returns the next
    offset that was stored of each partition whose log was shortened: what it held from there on is gone.
    """
    with connection, connection.cursor() as cursor:
        then = {(before.topic_id, p): offset for p, offset in before.next_offsets.items()} if before else {}
        now = {(topic_id, partition): offset for partition, topic_id, offset in _locked(cursor, topic)}
        if now != then:
            raise OffsetsMovedBackError.of(
                f"Topic {topic}",
                found="offsets changed by another reader",
                wanted="the ones just read",
                remedy="none needed: the job starts again.",
            )
        old = before.next_offsets if before and before.topic_id == topic_id else {}
        if before and before.topic_id != topic_id:
            # How many records the old topic still held cannot be found out any more.
            for partition, offset in before.next_offsets.items():
                _record_gap(cursor, topic, before.topic_id, (partition, offset, None), "topic_recreated")
            cursor.execute("DELETE FROM ingest_offsets WHERE topic = %s", (topic,))
        for partition, offset in sorted(offsets.items()):
            known = old.get(partition, 0)
            if offset > known:
                _record_gap(cursor, topic, topic_id, (partition, known, offset), "retention")
            elif offset < known:
                # Where the old log ended is not known any more.
                cause = "shortened" if offset else "began_anew"
                _record_gap(cursor, topic, topic_id, (partition, known, None), cause)
                # The offsets are given, and counted, a second time.
                _count(cursor, topic, "rewound", known - offset)
            cursor.execute(
                "INSERT INTO ingest_offsets (topic, partition, topic_id, next_offset) "
                "VALUES (%s, %s, %s, %s) ON CONFLICT (topic, partition) DO UPDATE "
                "SET next_offset = excluded.next_offset, updated_at = now()",
                (topic, partition, topic_id, offset),
            )
    return {partition: known for partition, known in old.items() if offsets.get(partition, known) < known}


def lock(
    cursor: Any, topic: str, topic_id: str, partitions: Collection[int], expected: Mapping[int, int]
) -> dict[int, int]:
    """Lock the topic's offsets, in order, until the transaction ends; returns the next one of each partition.

    partitions: those that the batch has records of. expected: the offsets that its reader went on from.
    TopicRecreatedError where they are another topic's, OffsetsMovedBackError where the database is behind.
    """
    for partition in sorted(partitions):
        cursor.execute(
            "INSERT INTO ingest_offsets (topic, partition, topic_id, next_offset) VALUES (%s, %s, %s, 0) "
            "ON CONFLICT DO NOTHING",
            (topic, partition, topic_id),
        )
    stored = _locked(cursor, topic)
    others = {stored_id for _, stored_id, _ in stored if stored_id != topic_id}
    if others:
        raise TopicRecreatedError.of(
            f"Topic {topic}",
            found=f"id {topic_id}",
            wanted=f"id {others.pop()}, to which the stored offsets belong",
            remedy="none needed: the job starts again and reads the new topic from its beginning.",
        )
    covered = {partition: next_offset for partition, _, next_offset in stored}
    for partition, wanted in expected.items():
        if covered.get(partition, 0) < wanted:
            raise OffsetsMovedBackError.of(
                f"Topic {topic}, partition {partition}",
                found=f"next offset {covered.get(partition, 0)} in the database",
                wanted=f"{wanted} or more, where this reader is",
                remedy="none needed: the job starts again from the database's offsets.",
            )
    return covered


def _locked(cursor: Any, topic: str) -> list[tuple[int, str, int]]:
    cursor.execute(
        "SELECT partition, topic_id, next_offset FROM ingest_offsets WHERE topic = %s "
        "ORDER BY partition FOR UPDATE",
        (topic,),
    )
    rows: list[tuple[int, str, int]] = cursor.fetchall()
    return rows


def uncovered(rows: pa.Table, covered: Mapping[int, int]) -> pa.Table:
    """The rows (kafka_partition, kafka_offset) that no earlier batch has written."""
    partitions, offsets = _partition_and_offset(rows)
    keep = np.zeros(len(offsets), dtype=bool)
    for partition, next_offset in covered.items():
        keep |= (partitions == partition) & (offsets >= next_offset)
    return rows if keep.all() else rows.filter(pa.array(keep))


def reach(
    covered: Mapping[int, int], tables: Sequence[pa.Table], ends: Mapping[int, int], *, compacted: bool
) -> tuple[dict[int, Reach], tuple[Gap, ...]]:
    """How far a batch covers each partition, and the gaps between `covered` and there.

    tables: the rows not yet covered. ends: the offset up to which the reader has read each partition, beyond
    the last row where markers or aborted records follow. compacted: Kafka keeps the last record of a key
    alone, so that an offset without a row may have held a play; otherwise it never did, and is no gap.
    """
    pairs = [_partition_and_offset(rows) for rows in tables]
    partitions = np.concatenate([pair[0] for pair in pairs])
    offsets = np.concatenate([pair[1] for pair in pairs])
    times = np.concatenate([rows["kafka_time"].to_numpy() for rows in tables])
    reached = {p: Reach(end, None) for p, end in ends.items() if end > covered[p]}
    gaps: list[Gap] = []
    for partition in np.unique(partitions).tolist():
        mine = partitions == partition
        order = np.argsort(offsets[mine])
        seen = np.concatenate([[covered[partition] - 1], offsets[mine][order]])
        for before in np.flatnonzero(np.diff(seen) > 1) if compacted else ():
            gaps.append((partition, int(seen[before]) + 1, int(seen[before + 1])))
        newest = times[mine][order[-1]].astype("datetime64[us]").item().replace(tzinfo=dt.UTC)
        reached[partition] = Reach(max(int(seen[-1]) + 1, ends.get(partition, 0)), newest)
    return reached, tuple(gaps)


def _partition_and_offset(rows: pa.Table) -> tuple[Any, Any]:
    return rows["kafka_partition"].to_numpy(), rows["kafka_offset"].to_numpy()


def move(cursor: Any, topic: str, topic_id: str, reached: Mapping[int, Reach], gaps: Sequence[Gap]) -> None:
    """Store how far reading has come, and the gaps on the way."""
    for partition, end in sorted(reached.items()):
        cursor.execute(
            "UPDATE ingest_offsets SET next_offset = %s, "
            "newest_kafka_time = coalesce(%s, newest_kafka_time), updated_at = now() "
            "WHERE topic = %s AND partition = %s",
            (end.next_offset, end.newest_kafka_time, topic, partition),
        )
    for gap in gaps:
        _record_gap(cursor, topic, topic_id, gap, "hole")


def count_control(cursor: Any, topic: str, offsets: int) -> None:
    """Count offsets of markers and aborted records."""
    if offsets:
        _count(cursor, topic, "control", offsets)


def _count(cursor: Any, topic: str, column: str, offsets: int) -> None:
    cursor.execute(
        sql.SQL(
            "INSERT INTO ingest_state AS s (topic, {0}) VALUES (%s, %s) "
            "ON CONFLICT (topic) DO UPDATE SET {0} = s.{0} + excluded.{0}"
        ).format(sql.Identifier(column)),
        (topic, offsets),
    )


def _record_gap(cursor: Any, topic: str, topic_id: str, gap: tuple[int, int, int | None], cause: str) -> None:
    cursor.execute(
        "INSERT INTO ingest_gaps (topic, topic_id, partition, from_offset, to_offset, cause) "
        "VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
        (topic, topic_id, *gap, cause),
    )
