"""The topics of files/topics.yml, made real: created, grown, reconfigured; never shrunk or recreated."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import tenacity
import yaml

from music_streaming import broker, terminal
from music_streaming.error import MusicError
from music_streaming.settings import KafkaSettings, Settings

EVENTS = "stream_events"
MAX_REPLICATION = 3

# Setting of [kafka] -> key of the topic's configuration.
OVERRIDES = {
    "retention_ms": "retention.ms",
    "retention_bytes": "retention.bytes",
    "segment_bytes": "segment.bytes",
    "max_message_bytes": "max.message.bytes",
}


class TopicError(MusicError):
    """A topic that cannot be as it is wanted."""


@dataclass(frozen=True)
class Topic:
    """A topic as it is wanted; `config` holds Kafka's own keys and their values as text."""

    name: str
    partitions: int
    config: dict[str, str] = field(default_factory=dict)


def wanted_topics(kafka: KafkaSettings, files: Path) -> list[Topic]:
    """The topics of `files`/topics.yml with the name and overrides of `kafka`."""
    path = files / "topics.yml"
    try:
        described = yaml.safe_load(path.read_text(encoding="utf-8"))
        topics = {
            name: Topic(
                name, int(entry["partitions"]), {key: str(value) for key, value in entry["config"].items()}
            )
            for name, entry in described.items()
        }
        events = topics[EVENTS]
    except FileNotFoundError:
        raise TopicError.of(
            "Topics", found=f"no file {path}", wanted="the list of topics", remedy="correct [paths] files."
        ) from None
    except (yaml.YAMLError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise TopicError.of(
            "Topics",
            found=f"{type(error).__name__} {error} in {path}",
            wanted=f"partitions and config of {EVENTS}",
            remedy=f"restore {path} from the repository.",
        ) from None
    overrides = {
        key: str(value) for name, key in OVERRIDES.items() if (value := getattr(kafka, name)) is not None
    }
    return [Topic(kafka.topic, kafka.partitions or events.partitions, events.config | overrides)]


def ensure_topics(settings: Settings, *, dry_run: bool = False) -> list[str]:
    """Make the broker's topics as wanted and return what was changed, one sentence each; [] = nothing.

    Nothing at all is changed when any topic would have to shrink (TopicError), or with `dry_run`.
    Topic ids and offsets are never touched.
    """
    wanted = wanted_topics(settings.kafka, settings.paths.files)
    with broker.admin(settings.kafka.bootstrap) as client:
        try:
            return apply_topics(client, wanted, dry_run=dry_run)
        except broker.KafkaError as error:
            raise TopicError.of(
                "Topics",
                found=f"the broker's refusal: {error}",
                wanted=", ".join(f"{topic.name} with {topic.partitions} partitions" for topic in wanted),
                remedy="correct the value in the inventory; journalctl -u music-kafka -n 50",
            ) from None


def apply_topics(client: Any, wanted: list[Topic], *, dry_run: bool = False) -> list[str]:
    """As `ensure_topics`, on an open client."""
    existing = {topic["name"]: len(topic["partitions"]) for topic in client.describe_topics()}
    for topic in wanted:
        _refuse_shrinking(topic, existing.get(topic.name, 0))
    changes: list[str] = []
    for topic in wanted:
        count = existing.get(topic.name)
        if count is None:
            changes.append(_create(client, topic, dry_run=dry_run))
            continue
        if count < topic.partitions:
            changes.append(f"{topic.name}: partitions {count} -> {topic.partitions}")
            if not dry_run:
                _grow(client, topic)
        changes += _configure(client, topic, dry_run=dry_run)
    return changes


def _refuse_shrinking(topic: Topic, existing: int) -> None:
    if existing > topic.partitions:
        raise TopicError.of(
            f"Topic {topic.name}",
            found=f"{existing} partitions on the broker",
            wanted=f"{topic.partitions}, and Kafka cannot take partitions away",
            remedy=f"set pipeline_topic_partitions to {existing} or more; nothing was changed.",
        )


def _create(client: Any, topic: Topic, *, dry_run: bool) -> str:
    replication = min(MAX_REPLICATION, len(client.describe_cluster()["brokers"]))
    # One broker may be down without stopping the producers, once there are enough of them.
    config = {"min.insync.replicas": str(max(1, replication - 1))} | topic.config
    if not dry_run:
        client.create_topics(
            {
                topic.name: {
                    "num_partitions": topic.partitions,
                    "replication_factor": replication,
                    "configs": config,
                }
            },
            wait_for_metadata=True,
        )
    return f"{topic.name}: created with {topic.partitions} partitions, replication {replication}"


def _grow(client: Any, topic: Topic) -> None:
    client.create_partitions({topic.name: topic.partitions})
    # The broker answers before the partitions have leaders, and a reader must not find half of them.
    for attempt in tenacity.Retrying(
        stop=tenacity.stop_after_delay(30), wait=tenacity.wait_fixed(0.1), reraise=True
    ):
        with attempt:
            (described,) = client.describe_topics([topic.name])
            led = sum(partition["leader_id"] >= 0 for partition in described["partitions"])
            if led != topic.partitions:
                raise TopicError.of(
                    f"Topic {topic.name}",
                    found=f"{led} partitions with a leader 30 s after growing",
                    wanted=str(topic.partitions),
                    remedy="journalctl -u music-kafka -n 50",
                )


def _configure(client: Any, topic: Topic, *, dry_run: bool) -> list[str]:
    there = broker.topic_config(client, topic.name)
    different = {key: value for key, value in topic.config.items() if there[key] != value}
    if different and not dry_run:
        refusal = broker.change_topic_config(client, topic.name, different)
        if refusal:
            raise TopicError.of(
                f"Topic {topic.name}",
                found=f"the broker's refusal: {refusal}",
                wanted=", ".join(f"{key}={value}" for key, value in different.items()),
                remedy="correct the value in the inventory or files/topics.yml.",
            )
    return [f"{topic.name}: {key} {there[key]} -> {value}" for key, value in different.items()]


@click.command()
@terminal.as_json
@terminal.dry_run
def topics(as_json: bool, dry_run: bool) -> None:
    """Create, grow and configure the topics as files/topics.yml and the settings say."""
    terminal.print_changes(ensure_topics(Settings.load(), dry_run=dry_run), as_json=as_json)
