"""Count again, straight from Kafka, and compare with PostgreSQL. Runs on the board, in the app's own Python.

Prints one JSON object: distinct valid event ids in Kafka up to now, the same from PostgreSQL, and what is missing
on either side, but for plays that were asked to be removed, and for what two players report of one play. Kafka must still
hold every record (a young board).
"""

from __future__ import annotations

import json
import sys

from music_streaming.broker import topic_state
from music_streaming.settings import Role, Settings
from on_board import may_have_expired, reported_elsewhere, valid_plays, wait_for_job

settings = Settings.load()
state = topic_state(settings.kafka.bootstrap, settings.kafka.topic)
due: set[str] = set()
plays = {play["event_id"]: play for play in valid_plays(settings, state.first, state.end, due)}
with (
    settings.postgres.connection(Role.READER) as connection,
    connection.cursor() as cursor,
):
    connection.autocommit = True
    wait_for_job(cursor, state.topic_id, state.end)
    cursor.execute(
        "SELECT event_id::text FROM stream_events JOIN (SELECT key::int AS p, value::bigint AS e FROM"
        " json_each_text(%s)) ends ON kafka_partition = p AND kafka_offset < e",
        (json.dumps(state.end),),
    )
    rows = [row[0] for row in cursor.fetchall()]
    cursor.execute("SELECT sum(removed)::int FROM ingest_totals WHERE source <> 'demo'")
    ((removed,),) = cursor.fetchall()
    missing = plays.keys() - set(rows)
    missing -= reported_elsewhere(cursor, [plays[found] for found in missing])
if len(rows) != len(set(rows)):
    sys.exit(f"{len(rows) - len(set(rows))} event ids stand twice in stream_events")
missing = {found for found in missing if not may_have_expired(settings, plays[found])}
# Plays of the owner's go when asked for, one by one; their records stay in Kafka.
own = {found for found in missing if plays[found]["source"] != "demo"}
if len(own) == removed:
    missing -= own
print(
    json.dumps(
        {
            "kafka": len(plays),
            "postgres": len(rows),
            "only_kafka": sorted(missing)[:10],
            "only_postgres": sorted(set(rows) - plays.keys() - due)[:10],
        }
    )
)
