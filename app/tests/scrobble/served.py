"""A real scrobble server as a process, and what tests ask of it."""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
from kafka import KafkaConsumer, TopicPartition
from psycopg2 import sql

from music_streaming import listener, metrics
from music_streaming.event import PLAY_COLUMNS, parse_event
from music_streaming.settings import KafkaSettings, PathSettings, PostgresSettings, Settings
from music_streaming.testing import FILES, free_port, wait_for
from music_streaming.testing.broker import Broker
from music_streaming.testing.driver import Driver
from music_streaming.testing.postgres import ROLES, Database, Postgres, new_database
from music_streaming.topic import ensure_topics

START_SECONDS = 60


@dataclass
class Board:
    """A scrobble server with what it needs, and what tests ask of it."""

    folder: Path
    database: Database
    settings: Settings
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.process = Driver(self.folder, self.environment, "music_streaming.scrobble.server", "scrobble")
        self.url = f"http://127.0.0.1:{self.settings.scrobble.port}"

    def start(self) -> None:
        """Start the server and wait until it answers."""
        self.process.start()
        assert wait_for(self.answers, bool, START_SECONDS), self.process.log.read_text()

    def answers(self) -> bool:
        """Whether it answers."""
        try:
            return httpx.get(f"{self.url}/1/validate-token", timeout=5).status_code == 400
        except httpx.HTTPError:
            return False

    def token(self, name: str = "", player: str = "phone", **attributes: str) -> tuple[str, str]:
        """A new listener (of the name, if it is given) and a token."""
        name = name or f"l-{uuid.uuid4().hex[:8]}"
        with contextlib.closing(self.database.connect("music_owner")) as connection:
            listener.add(connection, listener.Listener(name, **attributes))
            return name, listener.make_token(connection, name, player)

    def client(self, token: str = "") -> httpx.Client:
        """A client of the API with the token."""
        headers = {"Authorization": f"Token {token}"} if token else {}
        return httpx.Client(base_url=self.url, headers=headers, timeout=30)

    def records(self, listener: str) -> list[dict[str, Any]]:
        """The events of the listener in Kafka, in order."""
        topic, bootstrap = self.settings.kafka.topic, self.settings.kafka.bootstrap
        with contextlib.closing(KafkaConsumer(bootstrap_servers=bootstrap, group_id=None)) as consumer:
            parts = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic)]
            consumer.assign(parts)
            consumer.seek_to_beginning(*parts)
            ends, found = consumer.end_offsets(parts), []
            while any(consumer.position(part) < ends[part] for part in parts):
                for records in consumer.poll(timeout_ms=5_000).values():
                    found += [
                        json.loads(record.value) for record in records if record.key == listener.encode()
                    ]
        return found

    def store(self, listener: str) -> int:
        """Write the listener's plays in Kafka to the tables as the job would; returns how many were new."""
        now, columns = datetime.now(UTC), [*PLAY_COLUMNS, "late", "kafka_partition", "kafka_offset"]
        plays = [parse_event(json.dumps(record).encode(), now).play for record in self.records(listener)]
        new = 0
        with contextlib.closing(self.database.connect("music_writer")) as connection, connection:
            cursor = connection.cursor()
            for number, play in enumerate(plays):
                cursor.execute(
                    sql.SQL("INSERT INTO stream_events ({}) VALUES ({}) ON CONFLICT DO NOTHING").format(
                        metrics.columns(columns), sql.SQL(", ").join([sql.Placeholder()] * len(columns))
                    ),
                    [*(play[name] for name in PLAY_COLUMNS), False, 0, number],
                )
                if cursor.rowcount:
                    new += 1
                    one = sql.SQL("(SELECT * FROM stream_events WHERE event_id = {})").format(
                        sql.Literal(play["event_id"])
                    )
                    for statement in metrics.stored_plays(one):
                        cursor.execute(statement)
        return new


def make_board(folder: Path, broker: Broker, database: Database, name: str, **scrobble: Any) -> Board:
    """A board in `folder`, its server not yet started."""
    for role in ROLES:
        (folder / f"postgres_{role}").write_text(role)
    settings = Settings(
        kafka=KafkaSettings(bootstrap=broker.bootstrap, topic=name),
        postgres=PostgresSettings(port=database.postgres.port, database=database.name, secrets_dir=folder),
        paths=PathSettings(files=FILES, data=folder),
    ).with_changes(scrobble={"bind": "127.0.0.1", "port": free_port(), **scrobble})
    sections = {"kafka": settings.kafka, "postgres": settings.postgres, "scrobble": settings.scrobble}
    lines = []
    for section, values in sections.items():
        lines.append(f"[{section}]")
        lines += [
            f"{key} = {json.dumps(value)}"
            for key, value in values.model_dump(mode="json").items()
            if value is not None
        ]
    (folder / "music.toml").write_text("\n".join(lines))
    environment = {"MUSIC_CONFIG": str(folder / "music.toml"), "PYTHONPATH": str(Path(__file__).parents[2])}
    return Board(folder, database, settings, environment)


@contextlib.contextmanager
def served_board(folder: Path, broker: Broker, postgres: Postgres, template: Database) -> Iterator[Board]:
    """A board in `folder` whose server runs, with a topic and a database of its own."""
    with new_database(postgres, template.name) as database:
        rights(database)
        made = make_board(folder, broker, database, f"test_{uuid.uuid4().hex[:12]}")
        ensure_topics(made.settings)
        try:
            made.start()
            yield made
        finally:
            made.process.close()


def rights(database: Database) -> None:
    """What the template's rights do not bring along."""
    with contextlib.closing(database.connect("music_owner")) as connection, connection:
        connection.cursor().execute(
            f"GRANT CONNECT, TEMPORARY ON DATABASE {database.name} TO music_writer, superset_reader, music_scrobble"
        )
