"""The job after a restore: what Kafka still holds and the backup does not is counted once."""

from __future__ import annotations

import datetime as dt
import json
import signal
import uuid

import pytest
from boards import take
from kafka import KafkaProducer

from music_streaming import event
from music_streaming.backup import restoring
from music_streaming.board.validate import validate
from music_streaming.broker import admin
from music_streaming.settings import BackupSettings, Settings
from music_streaming.topic import Topic, apply_topics

NOW = dt.datetime.now(dt.UTC)


def send(broker, topic, numbers: range) -> None:
    """Plays of which each number has its own event_id."""
    producer = KafkaProducer(bootstrap_servers=broker.bootstrap)
    for number in numbers:
        play = {
            "event_id": str(uuid.UUID(int=number)),
            "event_time": event.format_time(NOW - dt.timedelta(seconds=number % 500)),
            "source": "demo",
            "user_id": "u1",
            "title": f"Song {number % 50}",
            "artist": "Artist",
        }
        producer.send(topic, value=json.dumps(play).encode(), key=str(number).encode())
    producer.flush(30)
    producer.close()


@pytest.fixture
def board(settings, metadata, broker, topic) -> Settings:
    """A board whose backups lie in a folder of the test's."""
    (settings.paths.data / "backups").mkdir()
    made = settings.with_changes(
        postgres={"superset_database": metadata.name, "admin_host": "127.0.0.1"},
        kafka={"bootstrap": broker.bootstrap, "topic": topic},
    )
    return made.model_copy(update={"backup": BackupSettings(place=str(settings.paths.data / "backups"))})


@pytest.mark.slow
def test_the_job_goes_on_exactly_after_a_restore(broker, topic, database, board, driver):
    with admin(broker.bootstrap) as client:
        apply_topics(client, [Topic(topic, 2, {"message.timestamp.type": "LogAppendTime"})])
    accepted = "SELECT sum(accepted) FROM ingest_totals"
    send(broker, topic, range(500))
    driver.start()
    driver.wait_until(lambda: database.value(accepted), 500)
    taken = take(board, configuration=board.paths.data)
    send(broker, topic, range(500, 900))
    driver.wait_until(lambda: database.value(accepted), 900)
    driver.end(signal.SIGKILL)
    assert restoring.restore(board, taken.path, passphrase=None, over=True) != []
    assert database.value(accepted) == 500
    driver.start()
    driver.wait_until(lambda: database.value(accepted), 900)
    # And it was no gap, nor anything twice.
    assert database.rows("SELECT * FROM ingest_gaps") == []
    assert database.value("SELECT count(*) FROM stream_events") == 900
    assert database.value("SELECT sum(duplicates) FROM ingest_totals") == 0
    assert [check.name for check in validate(board).checks if not check.ok] == []
