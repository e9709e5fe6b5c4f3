"""How long plays take from the broker's clock to the committed row. Runs on the board, in the app's own Python.

A play is reported when it ends, so its event_time says nothing about the way through the appliance: the time of
Kafka's append does. Argument: seconds to look back. Prints one JSON object; times in seconds.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time

import numpy as np
from kafka import KafkaConsumer, TopicPartition

from music_streaming.settings import Settings

settings = Settings.load()
seconds = float(sys.argv[1])
# The newest few seconds may still be on their way.
until = time.time() - 10
since = until - seconds

consumer = KafkaConsumer(
    bootstrap_servers=settings.kafka.bootstrap.split(","), enable_auto_commit=False, group_id=None
)
topic = settings.kafka.topic
parts = [TopicPartition(topic, p) for p in sorted(consumer.partitions_for_topic(topic))]
consumer.assign(parts)
ends = consumer.end_offsets(parts)
for part, found in consumer.offsets_for_times(dict.fromkeys(parts, int(since * 1000))).items():
    consumer.seek(part, found.offset if found else ends[part])
appended: dict[tuple[int, int], float] = {}
while any(consumer.position(part) < ends[part] for part in parts):
    for part, records in consumer.poll(timeout_ms=1000).items():
        appended |= {(part.partition, r.offset): r.timestamp / 1000 for r in records}
appended = {key: at for key, at in appended.items() if at <= until}

with (
    contextlib.closing(settings.postgres.connect("superset_reader")) as connection,
    connection.cursor() as cursor,
):
    cursor.execute(
        "SELECT kafka_partition, kafka_offset, extract(epoch FROM b.committed_at)::float8 FROM stream_events e"
        " JOIN ingest_batches b USING (ingested_at)"
        " WHERE b.committed_at > now() - make_interval(secs => %s) AND e.event_time > now() - interval '20 days'",
        (seconds + 60,),
    )
    committed = {(partition, offset): at for partition, offset, at in cursor.fetchall()}

waits = np.array([committed[key] - at for key, at in appended.items() if key in committed])
median, p99 = np.percentile(waits, [50, 99]).tolist() if len(waits) else (float("nan"), float("nan"))
print(json.dumps({"plays": len(waits), "records": len(appended), "median": median, "p99": p99}))
