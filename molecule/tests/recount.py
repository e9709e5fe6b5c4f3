"""Count again, straight from Kafka, and compare with PostgreSQL. Runs on the board, in the app's own Python.

Prints one JSON object: distinct valid event ids in Kafka up to now, the same from PostgreSQL, and what is missing
on either side. Kafka must still hold every record (a young board).
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import sys
import time

from kafka import KafkaConsumer, TopicPartition

from music_streaming import event
from music_streaming.settings import Settings

SECONDS = 120


def from_kafka(settings: Settings) -> tuple[set[str], set[str], dict[int, int]]:
    """Event ids of all valid plays, those of them that may have expired since, and the end offset of each partition when the count began."""
    consumer = KafkaConsumer(
        bootstrap_servers=settings.kafka.bootstrap.split(","), enable_auto_commit=False, group_id=None
    )
    topic = settings.kafka.topic
    parts = [TopicPartition(topic, p) for p in sorted(consumer.partitions_for_topic(topic))]
    consumer.assign(parts)
    ends = consumer.end_offsets(parts)
    consumer.seek_to_beginning(*parts)
    seen: set[str] = set()
    old: set[str] = set()
    horizon = dt.datetime.now(dt.UTC) - dt.timedelta(days=settings.stream.demo_retention_days - 1)
    while any(consumer.position(part) < ends[part] for part in parts):
        for part, records in consumer.poll(timeout_ms=1000).items():
            for record in records:
                if record.offset < ends[part] and record.value is not None:
                    arrival = dt.datetime.fromtimestamp(record.timestamp / 1000, dt.UTC)
                    with contextlib.suppress(event.Rejected):
                        play = event.judge(record.value, arrival)
                        seen.add(play["event_id"])
                        if play["source"] == "demo" and play["event_time"] < horizon:
                            old.add(play["event_id"])
    consumer.close()
    return seen, old, {part.partition: end for part, end in ends.items()}


def from_postgres(settings: Settings, ends: dict[int, int]) -> set[str]:
    """Event ids of the raw rows below the end offsets, once the job has passed them."""
    with contextlib.closing(settings.postgres.connect("superset_reader")) as connection:
        connection.autocommit = True
        cursor = connection.cursor()
        deadline = time.monotonic() + SECONDS
        while True:
            cursor.execute(
                "SELECT partition, next_offset FROM ingest_offsets WHERE topic = %s", (settings.kafka.topic,)
            )
            reached = dict(cursor.fetchall())
            if all(reached.get(partition, 0) >= end for partition, end in ends.items()):
                break
            if time.monotonic() > deadline:
                sys.exit(f"the job is at {reached} after {SECONDS} s, wanted {ends}")
            time.sleep(0.5)
        cursor.execute(
            "SELECT event_id::text FROM stream_events JOIN (SELECT key::int AS p, value::bigint AS e FROM"
            " json_each_text(%s)) ends ON kafka_partition = p AND kafka_offset < e",
            (json.dumps(ends),),
        )
        rows = [row[0] for row in cursor.fetchall()]
        if len(rows) != len(set(rows)):
            sys.exit(f"{len(rows) - len(set(rows))} event ids stand twice in stream_events")
        return set(rows)


settings = Settings.load()
kafka, old, ends = from_kafka(settings)
postgres = from_postgres(settings, ends)
print(
    json.dumps(
        {
            "kafka": len(kafka),
            "postgres": len(postgres),
            "only_kafka": sorted(kafka - postgres - old)[:10],
            "only_postgres": sorted(postgres - kafka)[:10],
        }
    )
)
