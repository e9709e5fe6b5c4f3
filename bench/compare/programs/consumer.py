"""What the hand-written consumers share: reading batches from Kafka, and one transaction for each.

Exactly once, as the product: the offsets lie beside the plays, are read at the start, and move in the
transaction that they belong to.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator

import psycopg
from confluent_kafka import Consumer, TopicPartition

FIELDS = os.environ["BENCH_FIELDS"].split(",")
COLUMNS = ",".join(FIELDS)
BATCH = int(os.environ["BENCH_BATCH"])
# Kind of a metric -> minutes of its window, and its keys.
METRICS = {
    1: (5, "subscription_type", "age_group"),
    2: (60, "song_id", "genre"),
    3: (5, "country", "source"),
    4: (5, "device_type", "os"),
}
_STAGE_PLAYS = "CREATE TEMPORARY TABLE new_plays (LIKE raw) ON COMMIT DROP"
_STAGE_METRICS = """
CREATE TEMPORARY TABLE new_metrics (
    kind int, window_start timestamptz, k1 text, k2 text, plays bigint, skips bigint, likes bigint,
    listened_ms bigint, duration_ms bigint, listeners text) ON COMMIT DROP"""
_ADD_METRICS = """
INSERT INTO metrics AS m
SELECT kind, window_start, k1, k2, plays, skips, likes, listened_ms, duration_ms,
       (SELECT hll_add_agg(hll_hash_text(one), 11) FROM unnest(string_to_array(listeners, ' ')) AS one)
FROM new_metrics ORDER BY 1, 2, 3, 4
ON CONFLICT (kind, window_start, k1, k2) DO UPDATE SET
    plays = m.plays + excluded.plays, skips = m.skips + excluded.skips, likes = m.likes + excluded.likes,
    listened_ms = m.listened_ms + excluded.listened_ms, duration_ms = m.duration_ms + excluded.duration_ms,
    listeners = m.listeners || excluded.listeners"""
_MOVE = """
INSERT INTO offsets VALUES (%s, %s)
ON CONFLICT (partition) DO UPDATE SET next_offset = excluded.next_offset"""


class Flow:
    """The topic from where the database stands, and the way back."""

    def __init__(self) -> None:
        self.database = psycopg.connect(os.environ["BENCH_DSN"])
        self._consumer = Consumer(
            {
                "bootstrap.servers": os.environ["BENCH_BOOTSTRAP"],
                "group.id": "peer",
                "enable.auto.commit": False,
                "fetch.max.bytes": 16 << 20,
                "max.partition.fetch.bytes": 4 << 20,
                "queued.max.messages.kbytes": 65_536,
            }
        )
        topic = os.environ["BENCH_TOPIC"]
        self.offsets = dict.fromkeys(range(int(os.environ["BENCH_PARTITIONS"])), 0)
        self.offsets |= dict(self.database.execute("SELECT partition, next_offset FROM offsets").fetchall())
        self.database.commit()
        self._consumer.assign([TopicPartition(topic, *place) for place in self.offsets.items()])
        self._ends = {
            number: self._consumer.get_watermark_offsets(TopicPartition(topic, number))[1]
            for number in self.offsets
        }

    def batches(self) -> Iterator[tuple[list[bytes], dict[int, int]]]:
        """The records that are there, BATCH at a time, and where each batch ends in each partition."""
        at = dict(self.offsets)
        left = sum(self._ends.values()) - sum(at.values())
        while left:
            values: list[bytes] = []
            while len(values) < min(BATCH, left):
                for message in self._consumer.consume(min(10_000, min(BATCH, left) - len(values)), 1.0):
                    values.append(message.value())
                    at[message.partition()] = message.offset() + 1
            left -= len(values)
            yield values, dict(at)

    def write(self, copy: str, plays: bytes, metrics: Iterable[bytes], ends: dict[int, int]) -> None:
        """One batch in one transaction. copy: the format of both, for COPY."""
        with self.database.transaction(), self.database.cursor() as cursor:
            cursor.execute(_STAGE_PLAYS)
            with cursor.copy(f"COPY new_plays ({COLUMNS}) FROM STDIN {copy}") as sink:
                sink.write(plays)
            cursor.execute("INSERT INTO raw SELECT * FROM new_plays ON CONFLICT DO NOTHING")
            cursor.execute(_STAGE_METRICS)
            with cursor.copy(f"COPY new_metrics FROM STDIN {copy}") as sink:
                for part in metrics:
                    sink.write(part)
            cursor.execute(_ADD_METRICS)
            cursor.executemany(_MOVE, list(ends.items()))


def run(work: Callable[[Flow], None]) -> None:
    """Do the work, and tell the bench when it began and ended."""
    flow = Flow()
    print("FIRST", time.time(), flush=True)
    work(flow)
    print("LAST", time.time(), flush=True)
