"""Good and bad events mixed, and each one counted. Runs on the board, in the app's own Python; bad_table.py
starts it there and prints what it found as a table.

Arguments: how many events, and a seed. 5 % are bad, of every kind that event.REASONS names, some duplicates of what came
before, some tombstones; good ones carry awkward text. Prints one JSON object: what was sent and what was found.
"""

from __future__ import annotations

import contextlib
import json
import random
import subprocess
import sys
import time
import unicodedata
import uuid
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

from kafka import KafkaProducer

from music_streaming import event, metrics
from music_streaming.broker import topic_state
from music_streaming.settings import Role, Settings
from on_board import wait_for_job

SECONDS = 1800
# As the view ingest_exactness names their sums.
TABLES = tuple(name.removesuffix("_metrics") for name in metrics.BY_NAME)
BAD, DUPLICATE, TOMBSTONE = 0.05, 0.01, 0.005
# A megabyte each: more of them would push everything else out of the topic.
HUGE = 40
TITLES = [
    "Song",
    "東京事変 🎵",
    "مرحبا",
    "👩‍👩‍👧‍👦",
    "Robert'); DROP--",
    "=1+1",
    'a"b,c\\N',
    "x\n\\.\ny",
    "ﬁn",
    "İ",
]
ARTIST = "Café Ångström"
# Optional fields as no sender should have them, which cost no play; most have nothing of it.
ODD: list[dict[str, Any]] = [
    *[{}] * 30,
    {"duration_ms": "abc"}, {"duration_ms": 180000.0}, {"duration_ms": 2**63}, {"listened_ms": -1}, {"skipped": "true"},
    {"liked": 1}, {"album": 1999}, {"genre": ["rock", "pop"]}, {"session_id": 17}, {"player": "a\0"}, {"os": "x" * 65},
]  # fmt: skip

count, chance = int(sys.argv[1]), random.Random(int(sys.argv[2]))  # noqa: S311
run = f"run {int(time.time())}"
settings = Settings.load()
topic = settings.kafka.topic
now = datetime.now(UTC)


def good(**changes: Any) -> dict[str, Any]:
    return {
        "event_id": str(uuid.uuid4()),
        "event_time": event.format_time(now - timedelta(seconds=chance.randrange(86_400))),
        # Nobody else sends it here: the sums of this source are those of this run.
        "source": "scrobble",
        "user_id": f"listener-{chance.randrange(1000)}",
        "title": f"{run} {chance.choice(TITLES)}",
        # One artist in two Unicode forms.
        "artist": unicodedata.normalize(chance.choice(("NFC", "NFD")), ARTIST),
        "duration_ms": 200_000,
        "listened_ms": chance.randrange(200_000),
        "skipped": chance.random() < 0.3,
        "country": chance.choice(("DE", "JP", "xx", "", None)),
    } | chance.choice(ODD) | changes  # fmt: skip


def encode(sent: dict[str, Any]) -> bytes:
    return json.dumps(sent, ensure_ascii=chance.random() < 0.5).encode(errors="surrogatepass")


def spoil(at: int) -> bytes:
    """A good event with one byte of it replaced that makes it no UTF-8."""
    value = encode(good(title="Latin ~"))
    return value.replace(b"~", bytes([at]))


unix = int(now.timestamp())
BAD_ONES: dict[str, list[Any]] = {
    "not_utf8": [lambda: b"\xff\xfe", lambda: spoil(0xE9), lambda: spoil(0x80)],
    "not_json": [
        lambda: b"", lambda: b"{", lambda: b"[]", lambda: b'"x"', lambda: b"null", lambda: encode(good())[:-7],
        lambda: encode(good()) + encode(good()), lambda: b'{"a":' * 9000, lambda: b"[" * 60_000,
        lambda: encode(good(duration_ms=float("nan"))),
    ],
    "wrong_type": [
        lambda: encode(good(artist={"name": "x"})), lambda: encode(good(title=["a", "b"])), lambda: encode(good(user_id=[])),
    ],
    "out_of_range": [lambda: encode(good(event_time="1999-12-31T23:59:59Z"))],
    "nul": [lambda: encode(good(title="a\0b")), lambda: encode(good(artist="\0"))],
    "lone_surrogate": [lambda: json.dumps(good(title="\ud83d")).encode(), lambda: json.dumps(good(artist="a\udfb5b")).encode()],
    "missing": [lambda: b"{}", lambda: encode(good(event_id=None)), lambda: encode(good(title=" \u3000"))],
    "malformed": [
        *(lambda unit=unit: encode(good(event_time=unix * unit)) for unit in (1, 10**3, 10**6, 10**9)),
        lambda: encode(good(event_time="2026-02-30T00:00:00Z")), lambda: encode(good(event_time="yesterday")),
        lambda: encode(good(event_id="7")),
    ],
    "in_future": [lambda: encode(good(event_time="2036-01-01T00:00:00Z"))],
    "unknown_source": [lambda: encode(good(source="radio"))],
    "too_long": [lambda: encode(good(title="x" * 1025)), lambda: encode(good(user_id="ü" * 65))],
}  # fmt: skip
assert set(BAD_ONES) == set(event.REASONS)


def connect() -> Any:
    connection = settings.postgres.connect(Role.READER)
    connection.autocommit = True
    return contextlib.closing(connection)


def sums(cursor: Any) -> dict[str, int]:
    names = ("accepted", "present", *TABLES)
    cursor.execute(f"SELECT {', '.join(names)} FROM ingest_exactness WHERE source = 'scrobble'")
    found = dict(zip(names, cursor.fetchone(), strict=True))
    cursor.execute("SELECT duplicates FROM ingest_totals WHERE source = 'scrobble'")
    return found | {"duplicates": cursor.fetchone()[0]}


def restarts() -> int:
    asked = ["systemctl", "show", "--property", "NRestarts", "--value", "music-metrics"]
    return int(subprocess.run(asked, capture_output=True, text=True, check=True).stdout)


with connect() as connection:
    before, restarts_before = sums(connection.cursor()), restarts()
producer = KafkaProducer(
    bootstrap_servers=settings.kafka.bootstrap.split(","), acks="all", enable_idempotence=True, linger_ms=25,
    batch_size=65_536, max_request_size=1_048_576,
)  # fmt: skip
sent: Counter[str] = Counter()
bad: list[tuple[Any, str, bytes]] = []
recent: list[bytes] = []
started = time.monotonic()
for number in range(count):
    kind = chance.random()
    key = f"listener-{chance.randrange(1000)}".encode()
    if kind < BAD:
        reason = chance.choice(sorted(BAD_ONES))
        value = chance.choice(BAD_ONES[reason])()
        if reason == "too_long" and chance.random() < HUGE * len(BAD_ONES) / (count * BAD):
            value = encode(good(title="x" * 1_000_000))
        sent["bad"] += 1
        bad.append((producer.send(topic, key=key, value=value), reason, value[: event.RAW_LIMIT]))
    elif kind < BAD + TOMBSTONE:
        sent["tombstones"] += 1
        producer.send(topic, key=key, value=None)
    elif kind < BAD + TOMBSTONE + DUPLICATE and recent:
        sent["duplicates"] += 1
        producer.send(topic, key=key, value=chance.choice(recent))
    else:
        sent["good"] += 1
        value = encode(good())
        producer.send(topic, key=key, value=value)
        # From the last few of this batch to those of long ago.
        if len(recent) < 1000:
            recent.append(value)
        elif chance.random() < 0.1:
            recent[chance.randrange(1000)] = value
    if number % 5000 == 0:
        # kafka-python itself would hold any amount.
        producer.flush()
producer.flush()
producer.close()
sending = time.monotonic() - started
kafka = topic_state(settings.kafka.bootstrap, topic)

with connect() as connection:
    cursor = connection.cursor()
    wait_for_job(cursor, kafka.topic_id, kafka.end, SECONDS)
    taken = time.monotonic() - started
    after = sums(cursor)
    wanted = {(future.value.partition, future.value.offset): (reason, raw) for future, reason, raw in bad}
    cursor.execute(
        "SELECT kafka_partition, kafka_offset, reason, raw FROM rejected_events WHERE topic_id = %s",
        (kafka.topic_id,),
    )
    rejects = {(part, offset): (reason, bytes(raw)) for part, offset, reason, raw in cursor.fetchall()}
    cursor.execute(
        "SELECT count(DISTINCT artist), count(DISTINCT title), sum(streams) FROM content_performance_metrics"
        " WHERE source = 'scrobble' AND starts_with(title, %s)",
        (run,),
    )
    artists, titles, streams = (int(number) for number in cursor.fetchone())
print(
    json.dumps(
        {
            "sent": dict(sent),
            "bad_by_reason": Counter(reason for _, reason, _ in bad),
            "rejected_as_wanted": Counter(
                what[0] for where, what in wanted.items() if rejects.get(where) == what
            ),
            "rejected_otherwise": [
                [what[0], rejects.get(where, ("not rejected",))[0]]
                for where, what in wanted.items()
                if rejects.get(where) != what
            ][:10],
            "found": {name: after[name] - before[name] for name in after},
            "artists": artists,
            "titles": titles,
            "streams": streams,
            "restarts": restarts() - restarts_before,
            "seconds_sending": round(sending, 1),
            "seconds": round(taken, 1),
        }
    )
)
