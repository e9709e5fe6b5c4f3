"""A load of numbered plays with an account of its own. Runs on the board, in the app's own Python, under systemd.

Arguments: plays a second, folder of the account, and how many to send (0: until it is ended). A play's event_id is
made of a number for this life of the program and one that counts up. Each play that Kafka has acknowledged is noted in the
file `acknowledged` (account_file.py). What was sent and not acknowledged may be stored or not, and is in no account. Any failed delivery
ends the program; systemd starts another life.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

from kafka import KafkaProducer

from account_file import ENTRY, event_id
from music_streaming.event import format_time
from music_streaming.settings import Settings

MOST_WAITING = 5_000
# A backlog up to this is made up for.
BACKLOG_SECONDS = 5.0

rate, folder, count = float(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
settings = Settings.load()
life = secrets.randbits(62)
account = os.open(folder / "acknowledged", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
room = threading.BoundedSemaphore(MOST_WAITING)


def play(number: int) -> bytes:
    """A play that varies in all that the metrics are counted by."""
    return json.dumps(
        {
            "event_id": event_id(life, number),
            "event_time": format_time(datetime.now(UTC)),
            # Never expires, and nobody else sends it here: the sums of this source are those of this load.
            "source": "import",
            "user_id": f"listener-{number % 997}",
            "title": f"Song {number % 101}",
            "artist": f"Artist {number % 13}",
            "duration_ms": 200_000,
            "listened_ms": number % 200_000,
            "skipped": number % 3 == 0,
            "country": ("DE", "JP", "BR", "EG")[number % 4],
            "device_type": ("mobile", "web", "tv")[number % 3],
            "age_group": ("18-24", "65+")[number % 2],
        },
        separators=(",", ":"),
    ).encode()


def acknowledge(number: int) -> None:
    os.write(account, ENTRY.pack(life, number, int(time.time() * 1000)))
    room.release()


def fail(error: Exception) -> None:
    print(f"delivery failed: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
    os._exit(1)


# As the appliance's own producer, which waits out an outage of any length.
producer = KafkaProducer(
    bootstrap_servers=settings.kafka.bootstrap.split(","),
    enable_idempotence=True,
    acks="all",
    linger_ms=25,
    delivery_timeout_ms=2**31 - 1,
    allow_auto_create_topics=False,
)
started = time.monotonic() - 1 / rate
sent = 0
while not count or sent < count:
    behind = time.monotonic() - started - sent / rate
    if behind > BACKLOG_SECONDS:
        started += behind
    elif behind < 0:
        time.sleep(-behind)
    room.acquire()
    sent += 1
    future = producer.send(settings.kafka.topic, key=f"listener-{sent % 997}".encode(), value=play(sent))
    future.add_callback(lambda _metadata, number=sent: acknowledge(number))
    future.add_errback(fail)
producer.flush()
producer.close()
