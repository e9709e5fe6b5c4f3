"""The driver as a process of its own, against a real broker and a real PostgreSQL."""

import datetime as dt
import json
import shutil
import signal
import time
import uuid

import pytest
from kafka import KafkaProducer, TopicPartition

from music_streaming import event
from music_streaming.board.status import Limit, collect, counted
from music_streaming.board.validate import validate
from music_streaming.broker import admin
from music_streaming.demo.removal import remove
from music_streaming.settings import Settings
from music_streaming.testing.broker import Broker
from music_streaming.testing.driver import Driver
from music_streaming.testing.postgres import Database
from music_streaming.topic import Topic, apply_topics
from tail import cut_tail

NOW = dt.datetime.now(dt.UTC)


def make_topic(broker: Broker, name: str, partitions: int = 2) -> None:
    with admin(broker.bootstrap) as client:
        apply_topics(client, [Topic(name, partitions, {"message.timestamp.type": "LogAppendTime"})])


def plays(start: int, count: int) -> list[bytes]:
    return [
        json.dumps(
            {
                "event_id": str(uuid.UUID(int=number)),
                "event_time": event.format_time(NOW - dt.timedelta(seconds=number % 500)),
                "source": "demo",
                "user_id": f"u{number % 100}",
                "title": f"Song {number % 50}",
                "artist": "Artist",
            }
        ).encode()
        for number in range(start, start + count)
    ]


def send(broker: Broker, topic: str, values: list[bytes | None]) -> None:
    producer = KafkaProducer(bootstrap_servers=broker.bootstrap)
    for number, value in enumerate(values):
        producer.send(topic, value=value, key=str(number).encode())
    producer.flush(30)
    producer.close()


def transact(broker: Broker, topic: str, values: list[bytes], *, commit: bool) -> None:
    """Send `values` in one transaction, which ends with a marker in each partition that they reach."""
    producer = KafkaProducer(bootstrap_servers=broker.bootstrap, transactional_id=uuid.uuid4().hex)
    producer.init_transactions()
    producer.begin_transaction()
    for number, value in enumerate(values):
        producer.send(topic, value=value, key=str(number).encode())
    producer.flush(30)
    if commit:
        producer.commit_transaction()
    else:
        producer.abort_transaction()
    producer.close()


def accepted(database: Database) -> int:
    return int(database.value("SELECT sum(accepted) FROM ingest_totals"))


def start_with_plays(broker: Broker, database: Database, topic: str, driver: Driver) -> None:
    """A driver at work that has stored plays(0, 500)."""
    make_topic(broker, topic)
    send(broker, topic, [*plays(0, 500)])
    driver.start()
    driver.wait_until(lambda: accepted(database), 500)


def assert_exact(database: Database, plays_sent: int) -> None:
    assert accepted(database) == plays_sent
    assert database.value("SELECT bool_and(exact) FROM ingest_exactness"), database.rows(
        "SELECT * FROM ingest_exactness"
    )


def assert_valid(database: Database, settings: Settings, plays_sent: int) -> None:
    assert_exact(database, plays_sent)
    assert [check for check in validate(settings).checks if not check.ok] == []


@pytest.mark.slow
def test_killed_in_mid_batch_loses_and_doubles_nothing(
    broker: Broker, database: Database, topic: str, driver: Driver
) -> None:
    make_topic(broker, topic)
    good = plays(0, 8000)
    values: list[bytes | None] = []
    for number, value in enumerate(good):
        values.append(value)
        if number % 50 == 0:
            values += [value, b"{", None]
    send(broker, topic, values)
    records = len(values)
    driver.start()
    driver.wait_until(lambda: accepted(database) > 1500, True)
    driver.end(signal.SIGKILL)
    assert accepted(database) < 8000, "it was too quick to be killed in the middle"
    # The next one finds the database away for a moment, too.
    driver.start()
    before = accepted(database)
    driver.wait_until(lambda: accepted(database) > before, True)
    database.rows(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND usename = 'music_writer'",
        (database.name,),
        role="postgres",
    )
    driver.wait_until(lambda: database.value("SELECT sum(records) FROM ingest_state"), records)
    assert_exact(database, 8000)
    state = database.rows("SELECT duplicates, rejected, tombstones FROM ingest_state")
    assert state == [(160, 160, 160)]
    assert database.value("SELECT count(*) FROM rejected_events") == 160
    assert database.value("SELECT count(*) FROM ingest_gaps") == 0
    assert driver.end(signal.SIGTERM) == 0


@pytest.mark.slow
def test_topic_grown_recreated_and_cut_by_retention(
    broker: Broker, database: Database, topic: str, driver: Driver
) -> None:
    start_with_plays(broker, database, topic, driver)
    # New partitions are read without a restart.
    make_topic(broker, topic, 4)
    send(broker, topic, [*plays(500, 100)])
    driver.wait_until(lambda: accepted(database), 600)
    # Another topic with more records than were read of the first one: offsets alone would not show it.
    with admin(broker.bootstrap) as client:
        client.delete_topics([topic])
    make_topic(broker, topic, 4)
    send(broker, topic, [*plays(1000, 700), b"bad"])
    assert driver.exit_code() == 1
    # Before the next start, retention deletes records that were not read.
    partition = TopicPartition(topic, 0)
    with admin(broker.bootstrap) as client:
        client.delete_records({partition: 10})
    driver.start()
    driver.wait_until(lambda: accepted(database), 600 + 690)
    driver.wait_until(lambda: database.value("SELECT count(*) FROM rejected_events"), 1)
    gaps = database.rows("SELECT DISTINCT cause FROM ingest_gaps ORDER BY 1")
    assert [cause for (cause,) in gaps] == ["retention", "topic_recreated"]
    assert database.rows(
        "SELECT partition, from_offset, to_offset FROM ingest_gaps WHERE cause = 'retention'"
    ) == [(0, 0, 10)]
    assert_exact(database, 1290)
    began = time.monotonic()
    assert driver.end(signal.SIGTERM) == 0
    assert time.monotonic() - began < 30


@pytest.mark.slow
def test_an_aborted_transaction_counts_nothing_and_a_marker_is_no_loss(
    broker: Broker, database: Database, settings: Settings, topic: str, driver: Driver
) -> None:
    start_with_plays(broker, database, topic, driver)
    board = settings.with_changes(kafka={"bootstrap": broker.bootstrap, "topic": topic})
    transact(broker, topic, plays(1000, 200), commit=False)
    transact(broker, topic, plays(500, 200), commit=True)
    send(broker, topic, [*plays(700, 50)])
    # The last offsets of the log are an aborted record's and markers'.
    transact(broker, topic, plays(1000, 20), commit=False)
    driver.wait_until(lambda: collect(board).lag, 0)
    assert accepted(database) == 750
    assert database.rows("SELECT records, control, rewound FROM ingest_state") == [(750, 226, 0)]
    # Where nothing is lost, the next life goes on where this one was.
    assert driver.end(signal.SIGTERM) == 0
    driver.start()
    send(broker, topic, [*plays(750, 10)])
    driver.wait_until(lambda: accepted(database), 760)
    assert database.rows("SELECT records, control, rewound FROM ingest_state") == [(760, 226, 0)]
    assert database.value("SELECT count(*) FROM ingest_gaps") == 0
    assert_valid(database, board, 760)
    # The wait of `musicctl demo remove` ends, though the last record is a marker.
    transact(broker, topic, plays(1000, 1), commit=False)
    assert remove(board) == 760


@pytest.mark.slow
def test_a_log_that_begins_anew_is_noticed(
    own_broker: Broker, database: Database, settings: Settings, topic: str, driver: Driver
) -> None:
    own_broker.start()
    driver.environment["MUSIC_KAFKA__BOOTSTRAP"] = own_broker.bootstrap
    start_with_plays(own_broker, database, topic, driver)
    driver.end(signal.SIGKILL)
    before = database.rows("SELECT partition, next_offset FROM ingest_offsets ORDER BY 1")
    # Acknowledged, never read, and gone with all that was before; then more than was there.
    send(own_broker, topic, [*plays(500, 100)])
    own_broker.kill()
    shutil.rmtree(own_broker.data / f"{topic}-0")
    own_broker.start()
    send(own_broker, topic, [*plays(1000, 700)])
    driver.start()
    held = len(plays(500, 100))
    driver.wait_until(lambda: accepted(database) >= 500 + 700, True)
    board = settings.with_changes(kafka={"bootstrap": own_broker.bootstrap, "topic": topic})
    driver.wait_until(lambda: collect(board).lag, 0)
    assert database.rows("SELECT partition, from_offset, to_offset, cause FROM ingest_gaps") == [
        (0, before[0][1], None, "began_anew")
    ]
    assert 1200 < accepted(database) < 1200 + held
    assert any("(began_anew), wanted none" in problem for problem in collect(board).problems)
    assert_valid(database, board, accepted(database))


@pytest.mark.slow
def test_a_write_that_fails_ends_the_driver_though_nothing_more_is_read(
    broker: Broker, database: Database, topic: str, driver: Driver
) -> None:
    start_with_plays(broker, database, topic, driver)
    # A database that was restored wants records again that this driver has behind it.
    database.rows("UPDATE ingest_offsets SET next_offset = 10", role="postgres")
    send(broker, topic, [*plays(500, 100)])
    assert driver.exit_code() == 1
    assert "OffsetsMovedBackError" in driver.log.read_text()
    assert accepted(database) == 500
    driver.start()
    driver.wait_until(lambda: accepted(database), 600)
    assert_exact(database, 600)


@pytest.mark.slow
def test_what_a_power_cut_took_from_the_broker_shifts_nothing(
    own_broker: Broker, database: Database, settings: Settings, topic: str, driver: Driver
) -> None:
    own_broker.start()
    driver.environment["MUSIC_KAFKA__BOOTSTRAP"] = own_broker.bootstrap
    start_with_plays(own_broker, database, topic, driver)
    written = time.time()
    time.sleep(0.1)
    # Read and committed, and lost by the broker all the same; then acknowledged and never read.
    send(own_broker, topic, [*plays(500, 250)])
    driver.wait_until(lambda: accepted(database), 750)
    driver.end(signal.SIGKILL)
    read = database.rows("SELECT partition, next_offset FROM ingest_offsets ORDER BY 1")
    send(own_broker, topic, [*plays(750, 100)])
    own_broker.kill()
    taken = cut_tail(own_broker.data, topic, int((time.time() - written) * 1000) - 50)
    assert taken == {json.loads(value)["event_id"] for value in plays(500, 350)}
    own_broker.start()
    # Others get the offsets of what was lost, before the job looks.
    send(own_broker, topic, [*plays(1000, 700)])
    driver.start()
    driver.wait_until(lambda: accepted(database), 750 + 700)
    assert database.value("SELECT sum(duplicates) FROM ingest_totals") == 0
    gaps = database.rows("SELECT partition, from_offset, to_offset, cause FROM ingest_gaps ORDER BY 1")
    assert gaps == [(partition, offset, None, "shortened") for partition, offset in read]
    assert_valid(database, settings, 1450)


@pytest.mark.slow
def test_a_batch_too_large_for_the_driver_is_cut_up_and_the_limit_rises_again(
    broker: Broker, database: Database, settings: Settings, topic: str, driver: Driver
) -> None:
    make_topic(broker, topic, 1)
    # 98 MB that are no play, of which the driver takes 32 MB at once.
    junk: list[bytes | None] = [b"x" * 65_000] * 1500
    send(broker, topic, [*junk, *plays(0, 10)])
    driver.environment["MUSIC_SPARK__MAX_OFFSETS_PER_TRIGGER"] = "5000"
    # Driver and executor are one process here.
    driver.environment["MUSIC_SPARK__DRIVER_MEMORY"] = "512m"
    driver.start()
    driver.wait_until(lambda: accepted(database), 10)
    assert database.value("SELECT rejected FROM ingest_state") == 1500
    assert (
        "at most 500 records from now on: a batch of at most 5000 records did not fit"
        in driver.log.read_text()
    )
    limited = settings.with_changes(kafka={"topic": topic})
    assert counted(limited).batch_limit == Limit(
        500, 5000, "a batch of at most 5000 records did not fit into memory"
    )
    # The next life begins with what the last one learnt, and takes more as full batches go well.
    driver.end(signal.SIGTERM)
    send(broker, topic, [*plays(10, 12_000)])
    driver.start()
    driver.wait_until(lambda: accepted(database), 12_010)
    limit = counted(limited).batch_limit
    assert limit
    assert limit.records > 500
    assert_exact(database, 12_010)
    assert "at most 1000 records from now on" in driver.log.read_text()


@pytest.mark.slow
def test_a_batch_too_slow_for_the_database_is_made_smaller(
    broker: Broker, database: Database, topic: str, driver: Driver
) -> None:
    make_topic(broker, topic, 1)
    send(broker, topic, [*plays(0, 800)])
    # A statement may take a third of the time after which the job counts as stalled, so 40 s.
    database.rows(
        "CREATE FUNCTION slow_down() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN PERFORM pg_sleep(60) FROM fresh HAVING count(*) > 100; RETURN NULL; END $$;"
        "CREATE TRIGGER slow AFTER INSERT ON stream_events REFERENCING NEW TABLE AS fresh "
        "FOR EACH STATEMENT EXECUTE FUNCTION slow_down()",
        role="music_owner",
    )
    driver.environment["MUSIC_SPARK__STALL_SECONDS"] = "120"
    driver.start()
    driver.wait_until(lambda: accepted(database) > 0, True)
    assert "at most 80 records from now on: PostgreSQL cancelled a statement" in driver.log.read_text()
    driver.wait_until(lambda: accepted(database), 800)
    assert_exact(database, 800)
    assert driver.end(signal.SIGTERM) == 0


@pytest.mark.slow
def test_each_missing_part_is_waited_for_by_its_name(
    own_broker: Broker, database: Database, topic: str, driver: Driver
) -> None:
    driver.environment["MUSIC_KAFKA__BOOTSTRAP"] = own_broker.bootstrap
    driver.environment["MUSIC_SPARK__MASTER"] = "spark://127.0.0.1:1"
    driver.start()
    driver.wait_for_log("waiting: Kafka: found no broker")
    # The job's connections of these attempts are lost: each attempt makes its own.
    database.rows(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND usename = 'music_writer'",
        (database.name,),
        role="postgres",
    )
    own_broker.start()
    make_topic(own_broker, topic)
    driver.wait_for_log("waiting: Spark's master does not answer")
    assert database.value("SELECT count(*) FROM ingest_offsets") == 2
    assert driver.end(signal.SIGTERM) == 0
