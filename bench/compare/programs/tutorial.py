"""The job as tutorials write it, tuned: a query for each table, a watermark of 10 minutes, append, JDBC.

Append mode shows a window once a later play has moved the watermark past it. So a closing play follows in a
topic of its own: without it the last windows would be missing for ever.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

from kafka import KafkaProducer
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as sf
from spark_session import mark, plays, records, session

from music_streaming.broker import admin
from music_streaming.topic import Topic, apply_topics

CLOSING = os.environ["BENCH_TOPIC"] + "_closing"
# One table after another: its window, and what it is grouped by.
TABLES = {
    "m_engagement": ("5 minutes", "subscription_type", "age_group"),
    "m_content": ("1 hour", "song_id", "genre"),
    "m_geography": ("5 minutes", "country", "source"),
    "m_device": ("5 minutes", "device_type", "os"),
}


def append(table: str) -> Callable[[DataFrame, int], None]:
    """A writer that appends a batch to the table."""
    properties = {"driver": "org.postgresql.Driver", "user": "postgres", "reWriteBatchedInserts": "true"}

    def write(batch: DataFrame, _number: int) -> None:
        batch.write.jdbc(os.environ["BENCH_JDBC"], table, mode="append", properties=properties)

    return write


def added(flag: str) -> Column:
    """How often the flag is true."""
    return sf.sum(sf.col(flag).cast("int"))


def run(spark: SparkSession) -> None:
    """Read all that is there, through one query for each table."""
    topics = f"{os.environ['BENCH_TOPIC']},{CLOSING}"
    stream = plays(records(spark, topics)).withWatermark("event_time", "10 minutes")
    frames = {"raw": stream}
    for table, (width, *keys) in TABLES.items():
        frames[table] = (
            stream.groupBy(sf.window("event_time", width).alias("window"), *keys)
            .agg(
                sf.count("*").alias("plays"),
                added("skipped").alias("skips"),
                added("liked").alias("likes"),
                sf.sum("listened_ms").alias("listened_ms"),
                sf.sum("duration_ms").alias("duration_ms"),
                sf.approx_count_distinct("user_id").alias("listeners"),
            )
            .select(sf.col("window.start").alias("window_start"), "*")
            .drop("window")
        )
    queries = [
        frame.writeStream.outputMode("append")
        .foreachBatch(append(table))
        .option("checkpointLocation", str(Path(os.environ["BENCH_FOLDER"], table)))
        .trigger(availableNow=True)
        .start()
        for table, frame in frames.items()
    ]
    for query in queries:
        query.awaitTermination()


def close() -> None:
    """Send the closing play."""
    play = {"event_id": "closing", "event_time": "2026-11-02T12:00:00.000Z", "source": "import"}
    producer = KafkaProducer(bootstrap_servers=os.environ["BENCH_BOOTSTRAP"])
    texts = ("song_id", "genre", "country", "device_type", "os", "subscription_type", "age_group")
    value = json.dumps(play | dict.fromkeys(texts, "closing")).encode()
    producer.send(CLOSING, value=value)
    producer.flush()
    producer.close()


def main() -> None:
    with admin(os.environ["BENCH_BOOTSTRAP"]) as client:
        apply_topics(client, [Topic(CLOSING, 1, {})])
    spark = session()
    mark("FIRST")
    run(spark)
    close()
    run(spark)
    mark("LAST")


if __name__ == "__main__":
    main()
