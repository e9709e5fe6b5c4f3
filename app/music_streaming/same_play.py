"""One play is one play: what two players of a listener report of the same song at the same time counts once.

Equal event_ids are left to the table's unique key. Here are the reports that differ by seconds: a scrobble
is left out where a play of the same listener and song, of another player or import, lies within the span.
docs/contract.md has the rule; what an import leaves out is decided before it is sent (imports/matching.py).
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from music_streaming.event import INFERRED, reported_twice, same_play_ms

_COLUMNS = ("event_id", "source", "user_id", "song_id", "event_time", "player", "duration_ms", "reason_end")


def without(cursor: Any, plays: pa.Table) -> pa.Table:
    """The plays of a batch without those known from elsewhere; `cursor` is within its transaction."""
    scrobbles = pc.sum(pc.equal(plays["source"], "scrobble")).as_py()
    if not scrobbles:
        return plays
    real = pc.is_in(plays["source"], pa.array(["scrobble", "import"]))
    columns = [name for name in plays.column_names if name in _COLUMNS]
    rows = plays.select([*columns, "kafka_partition", "kafka_offset"]).append_column(
        "position", pa.array(range(plays.num_rows), pa.int64())
    )
    those = sorted(
        rows.filter(real).to_pylist(), key=lambda row: (row["kafka_partition"], row["kafka_offset"])
    )
    known = _stored([row for row in those if row["source"] == "scrobble"], cursor)
    left: set[int] = set()
    kept: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in those:
        before = kept.setdefault((row["user_id"], row["song_id"]), [])
        if row["source"] == "scrobble" and (
            row["position"] in known
            or any(row["event_id"] != other["event_id"] and reported_twice(row, other) for other in before)
        ):
            left.add(row["position"])
        else:
            before.append(row)
    if not left:
        return plays
    return plays.filter(pa.array([position not in left for position in range(plays.num_rows)]))


def _stored(scrobbles: list[dict[str, Any]], cursor: Any) -> set[int]:
    """Positions of those that have a stored play of another player, or an imported one, within the span."""
    cursor.execute(
        "SELECT DISTINCT i.position "
        "FROM unnest(%s::bigint[], %s::uuid[], %s::text[], %s::text[], %s::timestamptz[], %s::text[], "
        "            %s::float8[], %s::boolean[]) "
        "    AS i(position, event_id, user_id, song_id, event_time, player, seconds, inferred) "
        "JOIN stream_events AS s ON s.user_id = i.user_id AND s.song_id = i.song_id "
        "    AND s.event_time BETWEEN i.event_time - make_interval(secs => i.seconds) "
        "                         AND i.event_time + make_interval(secs => i.seconds) "
        "WHERE s.source IN ('scrobble', 'import') AND s.event_id <> i.event_id "
        "    AND ((s.source, s.player) <> ('scrobble', i.player) OR i.inferred OR s.reason_end = %s)",
        (
            [row["position"] for row in scrobbles],
            *([row[name] for row in scrobbles] for name in ("event_id", "user_id", "song_id")),
            [row["event_time"] for row in scrobbles],
            [row["player"] for row in scrobbles],
            [same_play_ms(row["duration_ms"]) / 1000 for row in scrobbles],
            [row["reason_end"] == INFERRED for row in scrobbles],
            INFERRED,
        ),
    )
    return {position for (position,) in cursor.fetchall()}
