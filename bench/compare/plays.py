"""The plays that every contender reads: the same bytes for the same seed."""

from __future__ import annotations

import json
import random
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from kafka import KafkaProducer

from music_streaming.broker import admin
from music_streaming.event import format_time
from music_streaming.topic import Topic, apply_topics

SEED = 24_057
PARTITIONS = 4
LISTENERS, SONGS = 20_000, 10_000
# Two hours, whatever their number, of a day that is over: windows of 5 minutes and of an hour.
START = datetime(2026, 11, 1, 18, tzinfo=UTC)
SPAN = timedelta(hours=2)
COUNTRIES = ("US", "DE", "GB", "BR", "IN", "JP", "FR", "CA", "MX", "AU")
GENRES = ("pop", "rock", "jazz", "hiphop", "classical", "electronic")
DEVICES = (("mobile", "Android"), ("mobile", "iOS"), ("desktop", "Windows"), ("speaker", "Linux"))
AGES = ("18-24", "25-34", "35-44", "45-54")


def generate(count: int) -> Iterator[dict[str, Any]]:
    """`count` good plays as they are sent, 20 fields each, in the order of time; no duplicates."""
    chance = random.Random(SEED)  # noqa: S311  plays, no secrets
    for number in range(count):
        listener, song = chance.randrange(LISTENERS), chance.randrange(SONGS)
        duration = chance.randrange(120_000, 300_000)
        listened = chance.randrange(duration)
        device, system = DEVICES[listener % len(DEVICES)]
        yield {
            "event_id": str(uuid.UUID(int=chance.getrandbits(128), version=4)),
            "event_time": format_time(START + SPAN * (number / count)),
            "source": "import",
            "user_id": f"listener-{listener}",
            "session_id": f"session-{listener % 977}",
            "song_id": f"song-{song}",
            "title": f"Song Number {song}",
            "artist": f"Artist {song % 1000}",
            "album": f"Album {song % 3000}",
            "genre": GENRES[song % len(GENRES)],
            "duration_ms": duration,
            "listened_ms": listened,
            "skipped": listened < 30_000,
            "liked": listener % 7 == 0,
            "completed": listened * 10 >= duration * 9,
            "subscription_type": "premium" if listener % 3 else "free",
            "age_group": AGES[listener % len(AGES)],
            "country": COUNTRIES[listener % len(COUNTRIES)],
            "device_type": device,
            "os": system,
        }


FIELDS = tuple(next(generate(1)))


def load(bootstrap: str, topic: str, count: int) -> float:
    """Make the topic and send the plays; returns the bytes of a play, on average."""
    with admin(bootstrap) as client:
        apply_topics(client, [Topic(topic, PARTITIONS, {"message.timestamp.type": "LogAppendTime"})])
    producer = KafkaProducer(bootstrap_servers=bootstrap, acks="all", linger_ms=50, batch_size=131_072)
    size = 0
    for play in generate(count):
        value = json.dumps(play, separators=(",", ":")).encode()
        size += len(value)
        producer.send(topic, key=play["user_id"].encode(), value=value)
    producer.flush()
    producer.close()
    return size / count
