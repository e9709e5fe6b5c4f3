"""What the Spark programs share: the session, the stream of Kafka records, and the plays in it."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from pyspark.sql import SparkSession
from pyspark.sql import functions as sf
from pyspark.sql import types as st

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

BATCH = os.environ["BENCH_BATCH"]
TEXT, NUMBER, FLAG = st.StringType(), st.LongType(), st.BooleanType()
KINDS = {
    "event_time": st.TimestampType(),
    "duration_ms": NUMBER,
    "listened_ms": NUMBER,
    "skipped": FLAG,
    "liked": FLAG,
    "completed": FLAG,
}
SCHEMA = st.StructType(
    [st.StructField(name, KINDS.get(name, TEXT)) for name in os.environ["BENCH_FIELDS"].split(",")]
)
_STREAMING = "org.apache.spark.sql.execution.streaming"
# For a machine of two cores; the defaults are for a cluster.
SETTINGS = {
    "spark.master": "local[2]",
    "spark.driver.memory": "1g",
    "spark.driver.extraJavaOptions": "-XX:+UseSerialGC",
    "spark.sql.shuffle.partitions": "2",
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.streaming.stateStore.providerClass": f"{_STREAMING}.state.RocksDBStateStoreProvider",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
}


def session() -> SparkSession:
    """A session in this process, with the settings above."""
    builder = SparkSession.builder.appName("peer")
    for key, value in SETTINGS.items():
        builder = builder.config(key, value)
    made = builder.getOrCreate()
    made.sparkContext.setLogLevel("ERROR")
    return made


def records(spark: SparkSession, topics: str) -> DataFrame:
    """The stream of the topics' records, from their first one on."""
    return (
        spark.readStream.format("kafka")
        .option("kafka.bootstrap.servers", os.environ["BENCH_BOOTSTRAP"])
        .option("subscribe", topics)
        .option("startingOffsets", "earliest")
        .option("maxOffsetsPerTrigger", BATCH)
        .load()
    )


def plays(stream: DataFrame) -> DataFrame:
    """The plays that the records hold: a column for each field."""
    options = {"timestampFormat": "yyyy-MM-dd'T'HH:mm:ss.SSSX"}
    event = sf.from_json(sf.col("value").cast("string"), SCHEMA, options).alias("event")
    return stream.select(event).select("event.*")


def mark(name: str) -> None:
    """Tell the bench the time: FIRST as the query starts, LAST after the last commit."""
    print(name, time.time(), flush=True)
