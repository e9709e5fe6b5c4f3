"""What Spark read, as rows to be written: plays, rejects and tombstones.

The query has checked and normalised most plays; what it was not certain of comes as bytes, and event.judge
says here what it is.
"""

import datetime as dt

import pyarrow as pa
import pyarrow.compute as pc

from music_streaming import event
from music_streaming.event import PLAY_COLUMNS
from music_streaming.metrics import SKETCHES, WINDOWS

_TIME = pa.timestamp("us", tz="UTC")
_ARROW = {"integer": pa.int64(), "boolean": pa.bool_(), "time": _TIME}
_POSITION = {"kafka_partition": pa.int32(), "kafka_offset": pa.int64(), "kafka_time": _TIME}
TOMBSTONES = pa.schema(_POSITION)
PLAYS = pa.schema(
    {
        **{field.name: _ARROW.get(field.kind, pa.string()) for field in event.FIELDS},
        "region": pa.string(),
        **_POSITION,
        **dict.fromkeys(WINDOWS, _TIME),
        **{sketch.hashed: pa.int64() for sketch in SKETCHES},
    }
)
REJECTS = pa.schema(
    {
        **_POSITION,
        "reason": pa.string(),
        "field": pa.string(),
        "raw_length": pa.int64(),
        "raw": pa.string(),
    }
)
_NFC = [field.name for field in event.FIELDS if field.kind in ("text", "name")]


def split(rows: pa.Table, future_tolerance: dt.timedelta) -> tuple[pa.Table, pa.Table, pa.Table]:
    """The output of query.plays as PLAYS, REJECTS and TOMBSTONES: each record in one of them."""
    unread = rows.filter(pc.is_null(rows["play"]))
    plays = _as_stored(rows.filter(pc.is_valid(rows["play"])))
    tombstones = unread.filter(pc.is_null(unread["value"])).select(["partition", "offset", "kafka_time"])
    others, rejects = _parse(unread.filter(pc.is_valid(unread["value"])), future_tolerance)
    if others.num_rows:
        plays = pa.concat_tables([plays, others])
    return plays, rejects, tombstones.rename_columns(TOMBSTONES.names).cast(TOMBSTONES)


def _as_stored(rows: pa.Table) -> pa.Table:
    """Plays that the query read, with what it leaves open: NFC, and a song_id where the event has none."""
    columns = {name: pc.struct_field(rows["play"], name) for name in PLAY_COLUMNS}
    for name in _NFC:
        columns[name] = _nfc(columns[name])
    columns["song_id"] = _song_ids(columns)
    columns |= {"kafka_partition": rows["partition"], "kafka_offset": rows["offset"]}
    columns |= {name: rows[name] for name in PLAYS.names if name not in columns}
    return pa.table(columns).cast(PLAYS)


def _parse(rows: pa.Table, future_tolerance: dt.timedelta) -> tuple[pa.Table, pa.Table]:
    plays, rejects = [], []
    for row in rows.drop_columns(["play"]).to_pylist():
        position = {
            "kafka_partition": row["partition"],
            "kafka_offset": row["offset"],
            "kafka_time": row["kafka_time"],
        }
        try:
            play = event.judge(row["value"], row["kafka_time"], future_tolerance)
        except event.Rejected as reject:
            why = {"reason": reject.reason, "field": reject.field, "raw_length": row["value_length"]}
            raw = "\\x" + row["value"][: event.RAW_LIMIT].hex()
            rejects.append(position | why | {"raw": raw})
            continue
        windows = {name: event.window_start(play["event_time"], width) for name, width in WINDOWS.items()}
        hashes = {sketch.hashed: row[sketch.hashed] for sketch in SKETCHES}
        plays.append(play | position | windows | hashes)
    return pa.Table.from_pylist(plays, PLAYS), pa.Table.from_pylist(rejects, REJECTS)


def _nfc(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if pc.all(pc.string_is_ascii(column)).as_py() in (True, None):
        return column
    return pc.utf8_normalize(column, form="NFC")


def _song_ids(columns: dict[str, pa.ChunkedArray]) -> pa.ChunkedArray:
    given = columns["song_id"]
    if not given.null_count:
        return given
    artists, titles = columns["artist"].to_pylist(), columns["title"].to_pylist()
    made: dict[tuple[str, str], str] = {}
    ids = given.to_pylist()
    for row, song in enumerate(zip(artists, titles, strict=True)):
        if ids[row] is None:
            if song not in made:
                made[song] = event.song_id(*song)
            ids[row] = made[song]
    return pa.chunked_array([pa.array(ids, pa.string())])
