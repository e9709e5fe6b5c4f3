"""Settle the accounts of load.py and scrobbling.py since the last time. Runs on the board, in the app's own Python.

Argument: folder of the account. Reads what was acknowledged, then Kafka up to its end, waits until the job has passed
that, and looks each play up in PostgreSQL. Prints one JSON object:

  acknowledged    plays acknowledged since the last time
  kafka           distinct valid event ids read from Kafka since the last time, the load's and all others
  not_in_kafka    ids acknowledged, and in Kafka no more
  not_in_postgres ids acknowledged or valid in Kafka, and without a row
  not_sent        ids with a row, and neither in Kafka nor acknowledged
  doubled         streams in any metric table or rows beyond the accepted plays, of all sources
  short           the same below them
  scrobbled       of the acknowledged ones those that the scrobble server has acknowledged
  exactness       of load.py's source: accepted, present, and the streams of each metric table, since the beginning
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from account_file import ENTRY, acknowledged
from music_streaming import metrics
from music_streaming.broker import topic_state
from music_streaming.settings import Role, Settings
from on_board import may_have_expired, reported_elsewhere, valid_plays, wait_for_job

# As the view ingest_exactness names their sums.
TABLES = tuple(name.removesuffix("_metrics") for name in metrics.BY_NAME)


def without_row(cursor: Any, ids: set[str]) -> set[str]:
    cursor.execute("SELECT event_id::text FROM stream_events WHERE event_id = ANY(%s::uuid[])", (list(ids),))
    return ids - {found for (found,) in cursor.fetchall()}


def rows_between(cursor: Any, since: str, starts: dict[int, int], ends: dict[int, int]) -> set[str]:
    """Ids of the load's rows that came from these offsets and were written after `since`."""
    cursor.execute(
        "SELECT event_id::text, kafka_partition, kafka_offset FROM stream_events"
        " WHERE ingested_at > %s AND (source = 'scrobble'"
        " OR source = 'import' AND event_time > %s::timestamptz - interval '1 hour')",
        (since, since),
    )
    return {found for found, part, offset in cursor.fetchall() if starts[part] <= offset < ends[part]}


folder = Path(sys.argv[1])
memory = folder / "account.json"
settings = Settings.load()
topic = settings.kafka.topic
with (
    settings.postgres.connection(Role.READER) as connection,
    connection.cursor() as cursor,
):
    connection.autocommit = True
    first_time = not memory.exists()
    if first_time:
        cursor.execute("SELECT * FROM ingest_exactness WHERE source = 'import'")
        baseline = dict(zip([column.name for column in cursor.description], cursor.fetchone(), strict=True))
        cursor.execute("SELECT now()::text")
        before: dict[str, Any] = {
            "positions": {}, "topic_id": "", "offsets": {}, "early": [], "baseline": baseline, "since": cursor.fetchone()[0]
        }  # fmt: skip
    else:
        before = json.loads(memory.read_text())
    # In this order: what was acknowledged is below the ends.
    answers, positions = acknowledged(folder, before["positions"])
    acks = {event_id for event_id, _ in answers}
    kafka = topic_state(settings.kafka.bootstrap, topic)
    ends = dict(kafka.end)
    same = kafka.topic_id == before["topic_id"]
    old = {int(partition): offset for partition, offset in before["offsets"].items()} if same else {}
    starts = {
        partition: min(max(first, old.get(partition, 0)), ends[partition])
        for partition, first in kafka.first.items()
    }
    if first_time:
        starts = ends
    wait_for_job(cursor, kafka.topic_id, ends)
    since = before["since"]
    if not same and not first_time:
        cursor.execute("SELECT max(noticed_at)::text FROM ingest_gaps WHERE cause = 'topic_recreated'")
        since = cursor.fetchone()[0]
    cursor.execute("SELECT now()::text")
    now = cursor.fetchone()[0]
    found = [play for play in valid_plays(settings, starts, ends) if not may_have_expired(settings, play)]
    ids = {play["event_id"] for play in found}
    load = {play["event_id"] for play in found if play["source"] != "demo"}
    # Read from Kafka before the load had noted the acknowledgement.
    early = set(before["early"])
    missing = without_row(cursor, acks | ids)
    missing -= reported_elsewhere(cursor, [play for play in found if play["event_id"] in missing])
    rows = rows_between(cursor, since, starts, ends)
    cursor.execute("SELECT * FROM ingest_exactness")
    columns = [column.name for column in cursor.description]
    exactness = [dict(zip(columns, row, strict=True)) for row in cursor.fetchall()]
differences = [
    amount - row["accepted"]
    for row in exactness
    for amount in (row["present"] + row["expired"], *(row[table] for table in TABLES))
]
ours = next(row for row in exactness if row["source"] == "import")
memory.write_text(
    json.dumps(
        before
        | {
            "positions": positions,
            "topic_id": kafka.topic_id,
            "offsets": ends,
            "early": sorted((early | load) - acks),
            "since": now,
        }
    )
)
print(
    json.dumps(
        {
            "acknowledged": len(acks),
            "scrobbled": (positions["scrobbled"] - before["positions"].get("scrobbled", 0)) // ENTRY.size,
            "kafka": len(ids),
            "not_in_kafka": sorted(acks - load - early),
            "not_in_postgres": sorted(missing),
            "not_sent": sorted(rows - load - acks - early),
            "doubled": max(0, *differences),
            "short": -min(0, *differences),
            "exactness": {
                name: ours[name] - before["baseline"][name] for name in ("accepted", "present", *TABLES)
            },
        }
    )
)
