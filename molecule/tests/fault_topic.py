"""Harm to the topic of the plays. Runs on the board, in the app's own Python; prints one JSON object.

recreate FOLDER   delete the topic and make it again: the ids that the accounts in FOLDER say were acknowledged in
                  the last minute of the old one
retention         delete the older half of what the job, which must be down, has not read: the ids in it, and the gaps
                  [partition, from, to] that must be noted
transactions      plays in a transaction that is aborted, and in one that is committed: the ids of both
"""

from __future__ import annotations

import json
import sys
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path

from kafka import KafkaProducer, TopicPartition

from account_file import acknowledged
from music_streaming.broker import admin, topic_state
from music_streaming.event import format_time
from music_streaming.settings import Role, Settings
from music_streaming.topic import ensure_topics
from on_board import valid_plays

settings = Settings.load()
topic = settings.kafka.topic


def recreate(folder: Path) -> dict[str, list[str]]:
    with admin(settings.kafka.bootstrap) as client:
        client.delete_topics([topic])
        deadline = time.monotonic() + 60
        while topic in client.list_topics():
            if time.monotonic() > deadline:
                sys.exit("the topic is still there after 60 s")
            time.sleep(0.1)
    deleted_ms = time.time() * 1000
    # Job and producers find no topic for a while; until there is one, nothing is acknowledged.
    time.sleep(5)
    answers, _ = acknowledged(folder, {})
    ids = [event_id for event_id, ms in answers if ms > deleted_ms - 60_000]
    ensure_topics(settings)
    return {"ids": ids}


def retention(folder: Path) -> dict[str, list[str] | list[list[int]]]:
    settled = json.loads((folder / "account.json").read_text())["offsets"]
    with settings.postgres.connection(Role.READER) as connection:
        cursor = connection.cursor()
        cursor.execute("SELECT partition, next_offset FROM ingest_offsets WHERE topic = %s", (topic,))
        read = dict(cursor.fetchall())
    halves = {
        part: (read[part] + end) // 2
        for part, end in topic_state(settings.kafka.bootstrap, topic).end.items()
    }
    gaps = [[part, read[part], half] for part, half in sorted(halves.items()) if half > read[part]]
    until = {part: half for part, _, half in gaps}
    starts = {part: settled[str(part)] for part in until}
    # The demo audience sends malformed ones, too.
    ids = {play["event_id"] for play in valid_plays(settings, starts, until)}
    with admin(settings.kafka.bootstrap) as client:
        client.delete_records({TopicPartition(topic, part): half for part, half in until.items()})
    return {"ids": sorted(ids), "gaps": gaps}


def transactions() -> dict[str, list[str]]:
    ids: dict[str, list[str]] = {}
    for outcome in ("aborted", "committed"):
        producer = KafkaProducer(
            bootstrap_servers=settings.kafka.bootstrap.split(","), transactional_id=f"faults-{outcome}"
        )
        producer.init_transactions()
        producer.begin_transaction()
        ids[outcome] = [str(uuid.uuid4()) for _ in range(200)]
        for event_id in ids[outcome]:
            play = {
                "event_id": event_id,
                "event_time": format_time(datetime.now(UTC)),
                "source": "import",
                "user_id": event_id[:4],
                "title": outcome,
                "artist": "Transaction",
            }
            producer.send(topic, key=event_id.encode(), value=json.dumps(play).encode())
        producer.flush()
        if outcome == "aborted":
            producer.abort_transaction()
        else:
            producer.commit_transaction()
        producer.close()
    return ids


if sys.argv[1] == "transactions":
    print(json.dumps(transactions()))
elif sys.argv[1] == "recreate":
    print(json.dumps(recreate(Path(sys.argv[2]))))
else:
    print(json.dumps(retention(Path(sys.argv[2]))))
