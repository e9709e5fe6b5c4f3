"""Topics on a real broker: made, grown, reconfigured, never shrunk."""

import pytest
from kafka import KafkaProducer

from music_streaming.broker import BrokerError, admin, end_offsets, probe
from music_streaming.settings import KafkaSettings, PathSettings, Settings
from music_streaming.topic import TopicError, ensure_topics, wanted_topics


@pytest.fixture
def settings(broker, topic, files):
    return Settings(
        kafka=KafkaSettings(bootstrap=broker.bootstrap, topic=topic),
        paths=PathSettings(files=files),
    )


def described(settings):
    with admin(settings.kafka.bootstrap) as client:
        (topic,) = client.describe_topics([settings.kafka.topic])
        return topic["topic_id"], len(topic["partitions"]), end_offsets(client, settings.kafka.topic)


def test_topics_are_made_once(settings):
    name = settings.kafka.topic
    made = [f"{name}: created with 4 partitions, replication 1"]
    assert ensure_topics(settings, dry_run=True) == made
    assert ensure_topics(settings) == made
    assert ensure_topics(settings) == []


def test_a_topic_grows_and_keeps_id_and_offsets(settings):
    ensure_topics(settings)
    producer = KafkaProducer(bootstrap_servers=settings.kafka.bootstrap)
    for number in range(100):
        producer.send(settings.kafka.topic, key=str(number).encode(), value=b"x")
    producer.flush()
    producer.close()
    before = described(settings)
    assert sum(before[2].values()) == 100
    grown = settings.with_changes(kafka={"partitions": 6})
    assert ensure_topics(grown, dry_run=True) == [f"{settings.kafka.topic}: partitions 4 -> 6"]
    assert described(settings) == before
    assert ensure_topics(grown) == [f"{settings.kafka.topic}: partitions 4 -> 6"]
    assert described(settings) == (before[0], 6, before[2] | {4: 0, 5: 0})
    assert ensure_topics(grown) == []


def test_shrinking_is_refused_before_any_change(settings):
    ensure_topics(settings)
    before = described(settings)
    shrunk = settings.with_changes(kafka={"partitions": 3, "retention_ms": 1000})
    with pytest.raises(TopicError, match="found 4 partitions on the broker, wanted 3"):
        ensure_topics(shrunk)
    assert described(settings) == before
    assert ensure_topics(settings) == []


def test_a_different_configuration_is_set(settings):
    ensure_topics(settings)
    changed = settings.with_changes(kafka={"retention_bytes": 1_000_000, "max_message_bytes": 2_000_000})
    assert sorted(ensure_topics(changed)) == [
        f"{settings.kafka.topic}: max.message.bytes 1048576 -> 2000000",
        f"{settings.kafka.topic}: retention.bytes 536870912 -> 1000000",
    ]
    assert ensure_topics(changed) == []


def test_a_value_that_kafka_refuses_is_named(settings):
    ensure_topics(settings)
    with pytest.raises(TopicError, match=r"segment\.bytes.*Remedy"):
        ensure_topics(settings.with_changes(kafka={"segment_bytes": 5}))


def test_a_missing_broker_says_where_it_was_looked_for():
    with (
        pytest.raises(BrokerError, match=r"no broker at 127\.0\.0\.1:1 within 1 s .*refused"),
        admin("127.0.0.1:1", timeout_seconds=1),
    ):
        pass


@pytest.mark.parametrize(
    ("bootstrap", "says"),
    [("nobody.invalid:9092", "nobody.invalid"), ("no port", "no port: "), ("[::1]:1", "::1")],
)
def test_a_probe_says_why_nobody_answers(bootstrap, says):
    assert says in probe(bootstrap, seconds=1)


def test_a_probe_finds_one_of_several(broker):
    assert probe(f"127.0.0.1:1,{broker.bootstrap}") == ""


def test_a_broken_topics_file_is_named(tmp_path):
    (tmp_path / "topics.yml").write_text("stream_events: {partitions: many}\n")
    with pytest.raises(TopicError, match=r"topics\.yml.*restore"):
        wanted_topics(KafkaSettings(), tmp_path)
    with pytest.raises(TopicError, match="found no file"):
        wanted_topics(KafkaSettings(), tmp_path / "none")


def test_the_shipped_topics_fit_the_disk(files):
    topics = wanted_topics(KafkaSettings(), files)
    assert [topic.name for topic in topics] == ["stream_events"]
    assert all(topic.config["message.timestamp.type"] == "LogAppendTime" for topic in topics)
    most = [
        topic.partitions * (int(topic.config["retention.bytes"]) + int(topic.config["segment.bytes"]))
        for topic in topics
    ]
    assert sum(most) < 2.5 * 1024**3
