"""Kafka: every client that the appliance makes, and every question about topics, offsets and reachability.

The only module that imports kafka-python; what others need of it has a name here.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import functools
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import kafka.errors
import tenacity
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient, OffsetSpec
from kafka.partitioner.default import murmur2

from music_streaming.error import MusicError

if TYPE_CHECKING:
    from music_streaming.settings import KafkaSettings

KafkaError: type[Exception] = kafka.errors.KafkaError
"""What every client of this module raises."""

TOO_LARGE: tuple[type[Exception], ...] = (
    kafka.errors.MessageSizeTooLargeError,
    kafka.errors.RecordListTooLargeError,
)
"""Of a record that no broker would take, however often it is sent."""

CONNECT_SECONDS = 5.0
CLOSE_SECONDS = 0.2
LOG_APPEND_TIME = 1
# A power cut takes what was appended later than this before the newest, as far as anybody waits for disks.
TAIL_MS = 120_000
PARTITIONS_SECONDS = 60.0
"""How often a reader that goes on for ever looks for new partitions."""


class BrokerError(MusicError):
    """A broker or topic that does not answer."""


@dataclass(frozen=True)
class TopicState:
    """What Kafka says of the topic: its id and, of each partition, the first offset kept and the next one.

    end: as far as can be read; a transaction that is open holds it up. compacted: whether Kafka keeps only
    the last record of a key.
    """

    topic_id: str
    first: Mapping[int, int]
    end: Mapping[int, int]
    compacted: bool = False


def probe(bootstrap: str, *, seconds: float = 3) -> str:
    """Why no server of `bootstrap` takes a connection, or "" when one does.

    For asking before kafka-python is asked: its clients leave sockets behind when they cannot connect.
    """
    refusals = []
    for server in bootstrap.split(","):
        host, _, port = server.strip().rpartition(":")
        try:
            with socket.create_connection((host.strip("[]"), int(port)), timeout=seconds):
                return ""
        except (OSError, ValueError) as error:
            refusals.append(f"{server}: {error}")
    return "; ".join(refusals)


@contextlib.contextmanager
def admin(bootstrap: str, *, timeout_seconds: float = 15) -> Iterator[KafkaAdminClient]:
    """An admin client on the broker; raises BrokerError when none answers within `timeout_seconds`."""
    refusal = tenacity.Retrying(
        retry=tenacity.retry_if_result(bool),
        stop=tenacity.stop_after_delay(timeout_seconds),
        wait=tenacity.wait_fixed(0.2),
        retry_error_callback=lambda state: state.outcome.result() if state.outcome else "",
    )(probe, bootstrap)
    client = None
    if not refusal:
        try:
            client = KafkaAdminClient(
                bootstrap_servers=bootstrap.split(","),
                client_id="musicctl",
                bootstrap_timeout_ms=int(timeout_seconds * 1000),
            )
        except KafkaError as error:
            refusal = f"{type(error).__name__}: {error}"
    if client is None:
        raise BrokerError.of(
            "Kafka",
            found=f"no broker at {bootstrap} within {timeout_seconds:g} s ({refusal})",
            wanted="a broker that answers",
            remedy="systemctl status music-kafka; journalctl -u music-kafka -n 50",
        )
    try:
        yield client
    finally:
        client.close()


def reader(bootstrap: str) -> contextlib.closing[KafkaConsumer]:
    """A consumer that belongs to no group, and sees what the job does: nothing of an aborted transaction."""
    return contextlib.closing(
        KafkaConsumer(bootstrap_servers=bootstrap.split(","), group_id=None, isolation_level="read_committed")
    )


class GroupReader:
    """Reads the topic on from what a consumer group has committed; a group that is new begins at the end.

    It takes all partitions, so that no other member can take some away while a batch is being worked on.
    """

    def __init__(self, consumer: KafkaConsumer, topic: str) -> None:
        self._consumer, self._topic = consumer, topic
        self._looked = float("-inf")
        self._take_partitions()

    def _take_partitions(self) -> None:
        """Those that are new as well: Kafka can split a topic."""
        if time.monotonic() - self._looked < PARTITIONS_SECONDS:
            return
        self._looked = time.monotonic()
        before = {part: self._consumer.position(part) for part in self._consumer.assignment()}
        there = self._consumer.partitions_for_topic(self._topic) or ()
        parts = {TopicPartition(self._topic, number) for number in there}
        if parts <= before.keys():
            return
        committed = {part: self._consumer.committed(part) for part in parts - before.keys()}
        is_new = not before and not any(offset is not None for offset in committed.values())
        self._consumer.assign(sorted(parts))
        ends = self._consumer.end_offsets(list(committed)) if is_new else {}
        for part in parts:
            at = before.get(part, committed.get(part))
            if at is not None:
                self._consumer.seek(part, at)
            elif is_new:
                self._consumer.seek(part, ends[part])
            else:
                self._consumer.seek_to_beginning(part)
        self.commit()

    def positions(self) -> dict[int, int]:
        """Partition -> offset of the next record."""
        return {part.partition: self._consumer.position(part) for part in self._consumer.assignment()}

    def poll(self, seconds: float, most: int) -> list[bytes]:
        """Values of up to `most` records, waited for; tombstones left out. KafkaError as it comes."""
        self._take_partitions()
        found = self._consumer.poll(timeout_ms=int(seconds * 1000), max_records=most)
        return [record.value for records in found.values() for record in records if record.value is not None]

    def commit(self) -> None:
        """Note that everything polled so far has been dealt with. KafkaError as it comes."""
        self._consumer.commit()


@contextlib.contextmanager
def group_reader(kafka: KafkaSettings, group: str) -> Iterator[GroupReader]:
    """Read the events' topic as the consumer group; BrokerError or KafkaError without a broker or topic."""
    ends_of_topic(kafka)
    consumer = KafkaConsumer(
        bootstrap_servers=kafka.bootstrap.split(","),
        group_id=group,
        client_id=group,
        enable_auto_commit=False,
        # Of what retention has deleted nothing is left to read: on with the oldest that there is.
        auto_offset_reset="earliest",
        isolation_level="read_committed",
    )
    with contextlib.closing(consumer):
        yield GroupReader(consumer, kafka.topic)


def producer(
    kafka: KafkaSettings,
    max_size: int,
    *,
    client_id: str = "music-producer",
    delivery_seconds: float | None = None,
) -> KafkaProducer:
    """A client that repeats and loses nothing; KafkaError without a broker.

    max_size: bytes of a record. delivery_seconds: after which a record fails that the broker has not
    acknowledged; None waits out an outage of any length, and what is on its way is bounded by the sender.
    """
    milliseconds = int(CONNECT_SECONDS * 1000)
    limits = {"delivery_timeout_ms": 2**31 - 1}
    if delivery_seconds is not None:
        limits = {
            "delivery_timeout_ms": int(delivery_seconds * 1000),
            "request_timeout_ms": int(delivery_seconds * 500),
        }
    return KafkaProducer(
        bootstrap_servers=kafka.bootstrap.split(","),
        client_id=client_id,
        enable_idempotence=True,
        acks="all",
        linger_ms=25,
        # Not more: a history's partitions would be hours of its time apart, and plays late for that alone.
        batch_size=65_536,
        max_request_size=max_size,
        allow_auto_create_topics=False,
        **limits,
        max_block_ms=milliseconds,
        bootstrap_timeout_ms=milliseconds,
        reconnect_backoff_max_ms=5_000,
        metrics_enabled=False,
    )


def close_producer(client: KafkaProducer) -> None:
    """Close at once; records not yet acknowledged fail."""
    # close() flushes first, and raises when the broker is away, leaving its thread at work. No public
    # way to give up exists, so the thread is told first.
    client._sender.force_close()
    client._sender.join(CLOSE_SECONDS)
    with contextlib.suppress(kafka.errors.KafkaTimeoutError):
        client.close(timeout=0)


def partitioner(client: KafkaProducer, topic: str) -> Callable[[bytes], int]:
    """Tell for a key the partition that `client` would choose, which works that out anew for every record."""
    partitions = sorted(client.partitions_for(topic))
    return functools.cache(lambda key: partitions[(murmur2(key) & 0x7FFFFFFF) % len(partitions)])


def send_one(bootstrap: str, topic: str, key: bytes, value: bytes | None, seconds: float) -> tuple[int, int]:
    """Send one record and wait for the broker's answer: its partition and offset. KafkaError as it comes."""
    client = KafkaProducer(
        bootstrap_servers=bootstrap.split(","), acks="all", max_block_ms=int(seconds * 1000)
    )
    try:
        sent = client.send(topic, key=key, value=value).get(timeout=seconds)
    finally:
        client.close(timeout=5)
    return sent.partition, sent.offset


def topic_state(bootstrap: str, topic: str) -> TopicState:
    """Ask Kafka for the topic; BrokerError where it does not exist, KafkaError as it comes."""
    with admin(bootstrap) as client:
        topic_id = topic_identity(client, topic)
        compacted = "compact" in topic_config(client, topic)["cleanup.policy"]
    with reader(bootstrap) as consumer:
        parts = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic) or ()]
        first, end = consumer.beginning_offsets(parts), consumer.end_offsets(parts)
    return TopicState(
        topic_id,
        {part.partition: offset for part, offset in first.items()},
        {part.partition: offset for part, offset in end.items()},
        compacted,
    )


def topic_identity(client: KafkaAdminClient, topic: str) -> str:
    """The id that tells a topic from another one of the same name (KIP-516)."""
    for found in client.describe_topics([topic]):
        if not found["error_code"]:
            return str(found["topic_id"])
    raise BrokerError.of(
        "Kafka", found=f"no topic {topic}", wanted="the topic of the plays", remedy="sudo musicctl topics"
    )


def end_offsets(client: KafkaAdminClient, topic: str) -> dict[int, int]:
    """Partition -> offset behind the last record that can be read; {} when there is no such topic."""
    (described,) = client.describe_topics([topic])
    partitions = [TopicPartition(topic, entry["partition_index"]) for entry in described["partitions"]]
    if not partitions:
        return {}
    found = client.list_partition_offsets(
        dict.fromkeys(partitions, OffsetSpec.LATEST), isolation_level="read_committed"
    )
    return {partition.partition: at.offset for partition, at in found.items()}


def ends_of_topic(settings: KafkaSettings) -> dict[int, int]:
    """Partition -> end offset of the events' topic; BrokerError where there is no broker or no such topic."""
    with admin(settings.bootstrap, timeout_seconds=3) as client:
        try:
            ends, found = end_offsets(client, settings.topic), "no such topic"
        except KafkaError as error:
            ends, found = {}, f"{type(error).__name__}: {error}"
    if not ends:
        raise BrokerError.of(
            f"Topic {settings.topic}", found=found, wanted="its partitions", remedy="sudo musicctl topics"
        )
    return ends


def first_unread(
    bootstrap: str, topic: str, times: Mapping[int, dt.datetime], known: Mapping[int, int]
) -> dict[int, int | None]:
    """Of each partition the first record that has not been read, as its time tells; None without any.

    times: when Kafka appended the last record that was read. known: the offset read up to, which is returned
    where the record before it is still that one. Otherwise the log was shortened, and is looked through.

    Below `known`, markers and aborted records are passed over: no record has been read of them, so that they
    may be newer than the newest.
    """
    with reader(bootstrap) as consumer:
        parts = {TopicPartition(topic, number): round(at.timestamp() * 1000) for number, at in times.items()}
        first, end = consumer.beginning_offsets([*parts]), consumer.end_offsets([*parts])
        later = consumer.offsets_for_times({part: ms + 1 for part, ms in parts.items()})
        found: dict[int, int | None] = {}
        for part, ms in parts.items():
            until = known[part.partition]
            there = first[part] < until <= end[part]
            last = next(_shown(consumer, part, until - 1, until), None) if there else None
            if last and last.timestamp_type == LOG_APPEND_TIME:
                # By a clock that was set back meanwhile, the time of what is new says nothing.
                same = last.timestamp == ms
                found[part.partition] = until if same else _out_of_order(consumer, part, ms, until)
            else:
                at = later[part]
                found[part.partition] = _passed(consumer, part, at.offset, until) if at else None
        return found


def _shown(consumer: KafkaConsumer, part: TopicPartition, offset: int, until: int) -> Iterator[Any]:
    """The records from `offset` to before `until` that a reader is shown.

    KafkaError where the broker does not answer.
    """
    consumer.assign([part])
    consumer.seek(part, offset)
    over = time.monotonic() + CONNECT_SECONDS
    while consumer.position(part) < until:
        for records in consumer.poll(timeout_ms=200).values():
            yield from (record for record in records if record.offset < until)
            over = time.monotonic() + CONNECT_SECONDS
        if time.monotonic() > over:
            raise kafka.errors.KafkaTimeoutError(f"{part}: no record for {CONNECT_SECONDS:g} s")


def _passed(consumer: KafkaConsumer, part: TopicPartition, offset: int, until: int) -> int:
    """The offset of the first record from `offset` on, or `until` where it comes earlier."""
    if offset >= until:
        return offset
    return next((int(shown.offset) for shown in _shown(consumer, part, offset, until)), until)


def _out_of_order(consumer: KafkaConsumer, part: TopicPartition, newest_ms: int, until: int) -> int:
    """The first record of the log's tail that is newer than `newest_ms`, or older than the one before it."""
    at, before = consumer.offsets_for_times({part: newest_ms - TAIL_MS})[part], 0
    offset = at.offset if at else consumer.beginning_offsets([part])[part]
    for shown in _shown(consumer, part, offset, until):
        if shown.timestamp > newest_ms or shown.timestamp < before:
            return int(shown.offset)
        before = shown.timestamp
    return until


def topic_config(client: KafkaAdminClient, topic: str) -> dict[str, str]:
    """The configuration of `topic`, defaults included; Kafka's own keys and their values as text."""
    asked = [ConfigResource(ConfigResourceType.TOPIC, topic, {})]
    described: Mapping[str, Any] = client.describe_configs(asked, config_filter="all")["topic"][topic]
    return {key: entry["value"] for key, entry in described.items()}


def topic_limit(client: KafkaAdminClient, topic: str) -> int | None:
    """Bytes at which the topic stops growing; None where its retention is by time alone."""
    config = topic_config(client, topic)
    kept, segment = int(config["retention.bytes"]), int(config["segment.bytes"])
    return len(end_offsets(client, topic)) * (kept + segment) if kept >= 0 else None


def log_sizes(client: KafkaAdminClient) -> tuple[dict[str, int], int]:
    """Topic -> bytes on the broker that holds most of it, and the bytes left on the fullest broker's disk."""
    sizes: dict[str, int] = {}
    free = []
    for broker in client.describe_log_dirs():
        of_broker: dict[str, int] = {}
        for folder in broker["log_dirs"]:
            free.append(int(folder["usable_bytes"]))
            for topic in folder["topics"]:
                size = sum(int(partition["partition_size"]) for partition in topic["partitions"])
                of_broker[topic["name"]] = of_broker.get(topic["name"], 0) + size
        sizes |= {name: max(size, sizes.get(name, 0)) for name, size in of_broker.items()}
    return sizes, min(free)


def change_topic_config(client: KafkaAdminClient, topic: str, values: Mapping[str, str]) -> str:
    """Set some keys of the configuration of `topic`; the broker's refusal, or ""."""
    asked = [ConfigResource(ConfigResourceType.TOPIC, topic, dict(values))]
    outcome = client.alter_configs(asked)["topic"][topic]
    return "" if outcome == "OK" else str(outcome)
