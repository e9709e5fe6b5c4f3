"""What Spark read, as rows to be written: plays, flaws, rejects and tombstones.

Spark hands over the fields of most records as text, of the others the bytes. A field has few different values
in a batch: each is read once, as event.py says, and shared by the rows that have it.
"""

import datetime as dt
from collections.abc import Callable
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from music_streaming import event
from music_streaming.country import region_of

_TIME = pa.timestamp("us", tz="UTC")
_ARROW = {"integer": pa.int64(), "boolean": pa.bool_(), "time": _TIME}
_POSITION = {"kafka_partition": pa.int32(), "kafka_offset": pa.int64(), "kafka_time": _TIME}
TOMBSTONES = pa.schema(_POSITION)
PLAYS = pa.schema(
    {
        **{field.name: _ARROW.get(field.kind, pa.string()) for field in event.FIELDS},
        "region": pa.string(),
        **_POSITION,
    }
)
FLAWS = pa.schema({**_POSITION, "field": pa.string(), "reason": pa.string()})
REJECTS = pa.schema(
    {
        **_POSITION,
        "reason": pa.string(),
        "field": pa.string(),
        "due": _TIME,
        "raw_length": pa.int64(),
        "raw": pa.string(),
    }
)


class Rows(NamedTuple):
    """Tables of the schemas above. Each record is one row of plays, rejects or tombstones; a play has a row
    of flaws for each field that was sent and is stored as unknown."""

    plays: pa.Table
    flaws: pa.Table
    rejects: pa.Table
    tombstones: pa.Table


def split(rows: pa.Table, future_tolerance: dt.timedelta) -> Rows:
    """The output of query.plays, sorted out."""
    rows = rows.rename_columns({"partition": "kafka_partition", "offset": "kafka_offset"})
    slow = rows.filter(pc.is_null(rows["fields"]))
    tombstones = slow.filter(pc.is_null(slow["value"])).select(TOMBSTONES.names).cast(TOMBSTONES)
    plays, flaws, rejects = _slow(slow.filter(pc.is_valid(slow["value"])), future_tolerance)
    if len(rows) > len(slow):  # of tables without rows Arrow would write bytes of its own into the CSV
        others, more_flaws = _fast(rows.filter(pc.is_valid(rows["fields"])))
        plays = pa.concat_tables([others, plays]) if plays.num_rows else others
        flaws = pa.concat_tables([flaws, more_flaws])
    return Rows(plays, flaws, rejects, tombstones)


def _fast(rows: pa.Table) -> tuple[pa.Table, pa.Table]:
    position = rows.select(list(_POSITION))
    fields = rows["fields"].combine_chunks()
    columns: dict[str, pa.Array] = {}
    flaws = []
    for field in event.FIELDS:
        sent = pc.struct_field(fields, field.name)
        if field.kind in ("time", "uuid"):  # good, or the record would be on the slow path
            columns[field.name] = sent
            continue
        columns[field.name], reasons = _plain(field, sent) or _read(field, sent)
        if reasons is not None:
            flaws.append(_flaws(position, field.name, reasons))
    columns["song_id"] = _song_ids(columns)
    columns["completed"] = pc.coalesce(columns["completed"], _completed(columns))
    columns["region"] = _map(columns["country"], region_of, pa.string())
    columns |= {name: position[name] for name in position.column_names}
    plays = pa.table({name: columns[name] for name in PLAYS.names}).cast(PLAYS)
    return plays, pa.concat_tables([FLAWS.empty_table(), *flaws])


def _plain(field: event.Field, sent: pa.Array) -> tuple[pa.Array, None] | None:
    """The same for a column of many different values, all of which are usual; None where one is not."""
    usual = {"id": rf"^[!-~]{{1,{field.limit}}}$", "integer": r"^[0-9]{1,9}$"}.get(field.kind)
    if usual is None or not pc.all(pc.match_substring_regex(sent, usual), min_count=0).as_py():
        return None
    if field.kind == "id":
        return sent, None
    numbers = sent.cast(pa.int64())
    least = pc.min(numbers).as_py()
    return (numbers, None) if least is None or least >= event.INTEGERS[field.name] else None


def _read(field: event.Field, sent: pa.Array) -> tuple[pa.Array, pa.Array | None]:
    """What is stored of a field, and why not where something was sent; None where nothing is left out."""
    encoded = sent.dictionary_encode()
    readings = [event.read(field, text) for text in encoded.dictionary.to_pylist()]
    stored = pa.array([reading.stored for reading in readings], _ARROW.get(field.kind, pa.string()))
    column = stored.take(encoded.indices)
    if field.default is not None:
        column = column.fill_null(field.default)
    if not any(reading.reason for reading in readings):
        return column, None
    return column, pa.array([reading.reason for reading in readings], pa.string()).take(encoded.indices)


def _map(column: pa.Array, of: Callable[[Any], Any], kind: pa.DataType) -> pa.Array:
    encoded = column.dictionary_encode()
    return pa.array([of(value) for value in encoded.dictionary.to_pylist()], kind).take(encoded.indices)


def _flaws(position: pa.Table, field: str, reasons: pa.Array) -> pa.Table:
    flawed = position.append_column("reason", reasons).filter(pc.is_valid(reasons))
    names = pa.array([field] * flawed.num_rows, pa.string())
    return flawed.append_column("field", names).select(FLAWS.names).cast(FLAWS)


def _song_ids(columns: dict[str, pa.Array]) -> pa.Array:
    given = columns["song_id"]
    if not given.null_count:
        return given
    songs = pa.StructArray.from_arrays([columns["artist"], columns["title"]], ["artist", "title"])
    made: dict[tuple[str, str], str] = {}
    ids = given.to_pylist()
    for row, song in enumerate(songs.to_pylist()):
        if ids[row] is None:
            key = (song["artist"], song["title"])
            if key not in made:
                made[key] = event.song_id(*key)
            ids[row] = made[key]
    return pa.array(ids, pa.string())


def _completed(columns: dict[str, pa.Array]) -> pa.Array:
    heard = pc.multiply(columns["listened_ms"], 10)
    return pc.greater_equal(heard, pc.multiply(columns["duration_ms"], 9))


def _slow(rows: pa.Table, future_tolerance: dt.timedelta) -> tuple[pa.Table, pa.Table, pa.Table]:
    plays, flaws, rejects = [], [], []
    for row in rows.drop_columns(["fields"]).to_pylist():
        position = {name: row[name] for name in _POSITION}
        try:
            parsed = event.parse_event(row["value"], row["kafka_time"], future_tolerance)
        except event.Rejected as reject:
            why = {"reason": reject.reason, "field": reject.field, "raw_length": row["value_length"]}
            # Of a longer one not all is kept.
            why["due"] = reject.due if row["value_length"] <= event.RAW_LIMIT else None
            rejects.append(position | why | {"raw": "\\x" + row["value"][: event.RAW_LIMIT].hex()})
            continue
        flaws += [position | flaw._asdict() for flaw in parsed.flaws]
        plays.append(parsed.play | position)
    return (
        pa.Table.from_pylist(plays, PLAYS),
        pa.Table.from_pylist(flaws, FLAWS),
        pa.Table.from_pylist(rejects, REJECTS),
    )
