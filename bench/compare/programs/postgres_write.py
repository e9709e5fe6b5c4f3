"""A limit: what the product's transaction takes, without Kafka and Spark, one batch after the other."""

from __future__ import annotations

import datetime as dt
import itertools
import os
import time
from typing import Any

import psycopg2
import pyarrow as pa

from compare.plays import generate
from music_streaming import event, table

TOPIC, TOPIC_ID = "plays", "bench"
BATCH = int(os.environ["BENCH_BATCH"])
NOW = dt.datetime(2026, 11, 2, tzinfo=dt.UTC)


def sent(value: Any) -> str | None:
    """A value as Spark hands it over: the text that JSON has for it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return None if value is None else str(value)


def batch_of(plays: list[dict[str, Any]], first: int) -> pa.Table:
    """The plays as query.plays gives them, as records of one partition."""
    columns = []
    for field in event.FIELDS:
        values = [play.get(field.name) for play in plays]
        if field.kind == "time":
            times = [dt.datetime.fromisoformat(value) for value in values if value]
            columns.append(pa.array(times, pa.timestamp("us", tz="UTC")))
        else:
            columns.append(pa.array(map(sent, values), pa.string()))
    count = len(plays)
    return pa.table(
        {
            "partition": pa.array([0] * count, pa.int32()),
            "offset": pa.array(range(first, first + count), pa.int64()),
            "kafka_time": pa.array([NOW] * count, pa.timestamp("us", tz="UTC")),
            "fields": pa.StructArray.from_arrays(columns, list(event.FIELD_NAMES)),
            "value": pa.nulls(count, pa.binary()),
            "value_length": pa.array([0] * count, pa.int32()),
        }
    )


def main() -> None:
    connection = psycopg2.connect(os.environ["BENCH_DSN"])
    with connection, connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO ingest_offsets (topic, partition, topic_id, next_offset) VALUES (%s, 0, %s, 0)",
            (TOPIC, TOPIC_ID),
        )
    table.prepare_session(connection)
    source, at, taken = generate(int(os.environ["BENCH_PLAYS"])), 0, 0.0
    while plays := list(itertools.islice(source, BATCH)):
        rows = batch_of(plays, at)
        # Making them is no part of what is measured.
        begun = time.time()
        table.write(connection, table.Batch(TOPIC, TOPIC_ID, rows, {0: at}, NOW), table.Rules())
        taken += time.time() - begun
        at += len(plays)
    ended = time.time()
    print("FIRST", ended - taken, flush=True)
    print("LAST", ended, flush=True)


if __name__ == "__main__":
    main()
