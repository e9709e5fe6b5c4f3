"""What becomes of records: through Spark's query and rows.split, as the job reads them."""

import datetime as dt
import json
from typing import Any, NamedTuple

from pyspark.sql import SparkSession

from music_streaming.query import plays
from music_streaming.rows import split

NOW = dt.datetime(2026, 11, 25, 12, 0, tzinfo=dt.UTC)
RECORDS = "value binary, partition int, offset bigint, timestamp timestamp, timestampType int"
GOOD: dict[str, Any] = {
    "event_id": "0f8fad5b-d9cb-469f-a165-70867728950e",
    "event_time": "2026-11-25T11:58:59.123Z",
    "source": "demo",
    "user_id": "u1",
    "title": "Song",
    "artist": "Artist",
}


class Found(NamedTuple):
    """What became of one record: the stored play and its flaws, or why it is none; fast if Spark read its fields."""

    reason: str | None = None
    field: str | None = None
    raw: bytes | None = None
    raw_length: int | None = None
    play: dict[str, Any] | None = None
    flaws: dict[str, str] | None = None
    fast: bool = False


def found_of(spark: SparkSession, values: list[Any]) -> list[Found]:
    """What becomes of values (bytes, None, or an event to encode), in order; the broker got all of them NOW."""
    encoded = [
        value if value is None or isinstance(value, bytes) else json.dumps(value, ensure_ascii=False).encode()
        for value in values
    ]
    rows = [(value, 0, offset, NOW, 1) for offset, value in enumerate(encoded)]
    read = plays(spark.createDataFrame(rows, RECORDS)).toArrow()
    offsets = read["offset"].to_pylist()
    assert sorted(offsets) == list(range(len(values)))
    fast = {o for o, field in zip(offsets, read["fields"].is_valid().to_pylist(), strict=True) if field}
    accepted, flaws, rejects, tombstones = (part.to_pylist() for part in split(read, dt.timedelta(minutes=5)))
    left_out: dict[int, dict[str, str]] = {}
    for row in flaws:
        left_out.setdefault(row["kafka_offset"], {})[row["field"]] = row["reason"]
    found = {
        (at := row["kafka_offset"]): Found(play=row, flaws=left_out.get(at, {}), fast=at in fast)
        for row in accepted
    }
    for row in rejects:
        raw = bytes.fromhex(row["raw"].removeprefix("\\x"))
        found[row["kafka_offset"]] = Found(row["reason"], row["field"], raw, row["raw_length"])
    for row in tombstones:
        found[row["kafka_offset"]] = Found("tombstone")
    return [found[offset] for offset in range(len(values))]


def good(**changes: Any) -> dict[str, Any]:
    """GOOD with changes; a value of ... takes the field out."""
    return {name: value for name, value in {**GOOD, **changes}.items() if value is not ...}


def encoded(**changes: Any) -> bytes:
    return json.dumps(good(**changes)).encode()
