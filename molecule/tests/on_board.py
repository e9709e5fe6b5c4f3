"""What the scripts that run on the board share: reading the topic again, and waiting for the job."""

from __future__ import annotations

import contextlib
import datetime as dt
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any

from kafka import TopicPartition

from music_streaming import event
from music_streaming.broker import reader
from music_streaming.settings import Settings


def records(settings: Settings, starts: dict[int, int], ends: dict[int, int]) -> Iterator[Any]:
    """Each record of the plays' topic from `starts` to before `ends`, partition -> offset."""
    parts = [TopicPartition(settings.kafka.topic, partition) for partition in ends]
    with reader(settings.kafka.bootstrap) as consumer:
        consumer.assign(parts)
        for part in parts:
            consumer.seek(part, starts[part.partition])
        while any(consumer.position(part) < ends[part.partition] for part in parts):
            for found in consumer.poll(timeout_ms=1000).values():
                yield from (record for record in found if record.offset < ends[record.partition])


def valid_plays(
    settings: Settings, starts: dict[int, int], ends: dict[int, int], due: set[str] | None = None
) -> Iterator[dict[str, Any]]:
    """Those of the records that event.parse_event takes, as it returns them.

    due: gets the event ids of those that were ahead of the clock, and may have been judged again by now.
    """
    for record in records(settings, starts, ends):
        if record.value is not None:
            arrival = dt.datetime.fromtimestamp(record.timestamp / 1000, dt.UTC)
            try:
                yield event.parse_event(record.value, arrival).play
            except event.Rejected as rejected:
                if due is not None and rejected.due:
                    with contextlib.suppress(event.Rejected):
                        due.add(event.parse_event(record.value, dt.datetime.now(dt.UTC)).play["event_id"])


def may_have_expired(settings: Settings, play: dict[str, Any]) -> bool:
    """Whether a play's row may be gone for its age."""
    horizon = dt.datetime.now(dt.UTC) - dt.timedelta(days=settings.stream.demo_retention_days - 1)
    return bool(play["source"] == "demo" and play["event_time"] <= horizon)


def reported_elsewhere(cursor: Any, plays: Iterable[dict[str, Any]]) -> set[str]:
    """Ids of the scrobbles without a row that tell of a play that another player or an import has told of.

    Of the same listener and song, within 30 s and the song's length (docs/contract.md, "One play is one play").
    """
    found = set()
    for play in plays:
        if play["source"] != "scrobble":
            continue
        cursor.execute(
            "SELECT 1 FROM stream_events WHERE source IN ('scrobble', 'import') AND user_id = %(user_id)s"
            " AND song_id = %(song_id)s"
            " AND abs(extract(epoch FROM event_time - %(event_time)s)) * 1000 <= least(30000, %(duration_ms)s)"
            " AND (source <> 'scrobble' OR player <> %(player)s"
            "      OR 'inferred' IN (coalesce(reason_end, ''), %(reason_end)s)) LIMIT 1",
            play | {"reason_end": play["reason_end"] or "", "duration_ms": play["duration_ms"] or 30_000},
        )
        if cursor.fetchone():
            found.add(play["event_id"])
    return found


def wait_for_job(cursor: Any, topic_id: str, ends: dict[int, int], seconds: float = 180) -> None:
    """Wait until the job has stored all before `ends`; the program's end after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        cursor.execute("SELECT partition, next_offset FROM ingest_offsets WHERE topic_id = %s", (topic_id,))
        reached = dict(cursor.fetchall())
        if all(reached.get(partition, 0) >= end for partition, end in ends.items()):
            return
        if time.monotonic() > deadline:
            sys.exit(f"the job is at {reached} after {seconds:g} s, wanted {ends} of topic id {topic_id}")
        time.sleep(0.2)
