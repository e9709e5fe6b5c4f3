"""How long plays take from the broker's clock to the committed row. Runs on the board, in the app's own Python.

A play is reported when it ends, so its event_time says nothing about the way through the appliance: the time of
Kafka's append does. Argument: seconds to look back. Prints one JSON object; times in seconds.
"""

from __future__ import annotations

import json
import sys
import time

import numpy as np
from kafka import TopicPartition

from music_streaming.broker import reader, topic_state
from music_streaming.settings import Role, Settings
from on_board import records

settings = Settings.load()
seconds = float(sys.argv[1])
# The newest few seconds may still be on their way.
until = time.time() - 10
since = until - seconds

topic = settings.kafka.topic
ends = topic_state(settings.kafka.bootstrap, topic).end
with reader(settings.kafka.bootstrap) as consumer:
    asked = {TopicPartition(topic, partition): int(since * 1000) for partition in ends}
    found = consumer.offsets_for_times(asked)
starts = {part.partition: at.offset if at else ends[part.partition] for part, at in found.items()}
appended = {
    (record.partition, record.offset): record.timestamp / 1000 for record in records(settings, starts, ends)
}
appended = {key: at for key, at in appended.items() if at <= until}

with (
    settings.postgres.connection(Role.READER) as connection,
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
