"""The check before a broker's start (role kafka): what it mends of the small files, and where it stops."""

import subprocess
import sys
from pathlib import Path

import pytest
from kafka import TopicPartition

from music_streaming.broker import admin, reader
from music_streaming.testing import FILES
from music_streaming.testing.broker import Broker
from music_streaming.topic import Topic, apply_topics
from test_stream import plays, send

SCRIPT = FILES.parent / "roles/kafka/files/usr/local/libexec/music/kafka-files"
TOPIC_ID = "x" * 21 + "A"


def mend(data: Path, kept: Path) -> subprocess.CompletedProcess[str]:
    kept.mkdir(exist_ok=True)
    return subprocess.run(
        [sys.executable, SCRIPT, data, kept], capture_output=True, text=True, check=False, timeout=60
    )


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The small files of a broker, and no word in its quorum's log."""
    files = {
        "meta.properties": "#\nnode.id=1\ndirectory.id=abc\nversion=1\ncluster.id=AAAAAAAAAAAAAAAAAAAAAQ\n",
        "bootstrap.checkpoint": "binary",
        "recovery-point-offset-checkpoint": "0\n1\nplays 0 7\n",
        "plays-0/partition.metadata": f"version: 0\ntopic_id: {TOPIC_ID}",
        "plays-0/leader-epoch-checkpoint": "0\n1\n0 0\n",
        "plays-0/00000000000000000000.log": "",
        "plays-1/partition.metadata": f"version: 0\ntopic_id: {TOPIC_ID}",
        "plays-1/00000000000000000000.log": "",
        "__cluster_metadata-0/00000000000000000000.log": "",
        "__cluster_metadata-0/partition.metadata": "version: 0\ntopic_id: AAAAAAAAAAAAAAAAAAAAAQ",
        "__cluster_metadata-0/quorum-state": '{"leaderId":1,"leaderEpoch":3,"data_version":1}',
    }
    for name, text in files.items():
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name).write_text(text)
    return tmp_path / "data"


def test_whole_files_are_left_alone(data: Path, tmp_path: Path) -> None:
    before = content(data)
    done = mend(data, tmp_path / "kept")
    assert (done.returncode, done.stderr) == (0, "")
    assert content(data) == before
    assert sorted(content(tmp_path / "kept")) == ["bootstrap.checkpoint", "meta.properties"]


@pytest.mark.parametrize("harm", ["empty", "half", "away"])
@pytest.mark.parametrize(
    "name",
    [
        "meta.properties",
        "bootstrap.checkpoint",
        "plays-0/partition.metadata",
        "__cluster_metadata-0/partition.metadata",
    ],
)
def test_what_is_known_is_written_anew(data: Path, tmp_path: Path, name: str, harm: str) -> None:
    mend(data, tmp_path / "kept")
    before = content(data)
    spoil(data / name, harm)
    done = mend(data, tmp_path / "kept")
    assert done.returncode == 0
    assert f"{data / name} was not whole" in done.stderr
    assert content(data) == before


@pytest.mark.parametrize(
    "name",
    [
        "recovery-point-offset-checkpoint",
        "plays-0/leader-epoch-checkpoint",
        "__cluster_metadata-0/quorum-state",
    ],
)
def test_what_kafka_finds_out_again_is_set_aside(data: Path, tmp_path: Path, name: str) -> None:
    spoil(data / name, "half")
    done = mend(data, tmp_path / "kept")
    assert done.returncode == 0
    assert f"{data / name} was not whole: set aside" in done.stderr
    assert not (data / name).exists()
    assert (data / f"{name}.spoiled").exists()


def test_what_nobody_knows_stops_the_start_and_changes_nothing(data: Path, tmp_path: Path) -> None:
    for number in (0, 1):
        spoil(data / f"plays-{number}/partition.metadata", "empty")
    before = content(data)
    done = mend(data, tmp_path / "kept")
    assert done.returncode == 1
    assert f"{data}/plays-0/partition.metadata {data}/plays-1/partition.metadata not whole" in done.stderr
    assert "Nothing was deleted. Remedy: " in done.stderr
    assert content(data) == before


def test_a_folder_that_is_not_formatted_is_nothing_to_mend(tmp_path: Path) -> None:
    (tmp_path / "data" / "lost+found").mkdir(parents=True)
    assert mend(tmp_path / "data", tmp_path / "kept").returncode == 0


def spoil(path: Path, harm: str) -> None:
    whole = path.read_bytes()
    if harm == "away":
        path.unlink()
    else:
        path.write_bytes(whole[: len(whole) // 2] if harm == "half" else b"")


@pytest.mark.slow
def test_a_broker_whose_small_files_a_power_cut_emptied_has_every_record(
    own_broker: Broker, topic: str, tmp_path: Path
) -> None:
    own_broker.start()
    with admin(own_broker.bootstrap) as client:
        apply_topics(client, [Topic(topic, 2)])
    send(own_broker, topic, [*plays(0, 300)])
    assert mend(own_broker.data, tmp_path / "kept").returncode == 0
    own_broker.kill()
    before = content(own_broker.data)
    emptied = [
        *own_broker.data.glob(f"{topic}-*/partition.metadata"),
        *own_broker.data.glob("*/leader-epoch-checkpoint"),
        own_broker.data / "meta.properties",
        own_broker.data / "__cluster_metadata-0/quorum-state",
    ]
    for path in emptied:
        spoil(path, "empty")
    done = mend(own_broker.data, tmp_path / "kept")
    assert done.returncode == 0, done.stderr
    for path in (*own_broker.data.glob(f"{topic}-*/partition.metadata"), own_broker.data / "meta.properties"):
        # Kafka itself ends the last line or does not.
        assert path.read_bytes().strip() == before[str(path.relative_to(own_broker.data))].strip()
    own_broker.start()
    assert own_broker.count(topic) == 300


HARMS = ("empty", "half", "away")
# Those of the whole broker, after an end that was clean; the fault suite has them after a power cut, too.
OF_THE_BROKER = (
    "meta.properties",
    "recovery-point-offset-checkpoint",
    "replication-offset-checkpoint",
    "log-start-offset-checkpoint",
    "cleaner-offset-checkpoint",
    ".kafka_cleanshutdown",
    "__cluster_metadata-0/partition.metadata",
    "__cluster_metadata-0/leader-epoch-checkpoint",
    "__cluster_metadata-0/quorum-state",
    "__cluster_metadata-0/*.checkpoint",
)
# Those of a partition: each harm of each file has a partition of its own.
OF_A_PARTITION = ("partition.metadata", "leader-epoch-checkpoint", "*.index", "*.timeindex", "*.snapshot")


def records(broker: Broker, topic: str) -> list[bytes]:
    """The values of all records that the topic has, in order."""
    values: list[bytes] = []
    with reader(broker.bootstrap) as consumer:
        partitions = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic) or ()]
        consumer.assign(partitions)
        consumer.seek_to_beginning(*partitions)
        ends = consumer.end_offsets(partitions)
        while any(consumer.position(partition) < ends[partition] for partition in partitions):
            values += [record.value for found in consumer.poll(timeout_ms=500).values() for record in found]
    return sorted(values)


@pytest.fixture
def filled(own_broker: Broker, topic: str, tmp_path: Path) -> Broker:
    """A broker that was stopped, with 300 plays in as many partitions as there are harms of their files."""
    own_broker.start()
    with admin(own_broker.bootstrap) as client:
        apply_topics(client, [Topic(topic, len(HARMS) * len(OF_A_PARTITION))])
    send(own_broker, topic, [*plays(0, 300)])
    assert mend(own_broker.data, tmp_path / "kept").returncode == 0
    own_broker.stop()
    return own_broker


def start_with_every_record(broker: Broker, topic: str, kept: Path) -> None:
    done = mend(broker.data, kept)
    assert done.returncode == 0, done.stderr
    broker.start()
    assert records(broker, topic) == sorted(plays(0, 300))


@pytest.mark.slow
@pytest.mark.parametrize("harm", HARMS)
def test_a_broker_has_every_record_whatever_small_file_is_spoiled(
    filled: Broker, topic: str, tmp_path: Path, harm: str
) -> None:
    for name in OF_THE_BROKER:
        (path,) = filled.data.glob(name)
        spoil(path, harm)
    start_with_every_record(filled, topic, tmp_path / "kept")


@pytest.mark.slow
def test_a_broker_has_every_record_whatever_small_file_of_a_partition_is_spoiled(
    filled: Broker, topic: str, tmp_path: Path
) -> None:
    harmed = [(name, harm) for name in OF_A_PARTITION for harm in HARMS]
    for number, (name, harm) in enumerate(harmed):
        for path in (filled.data / f"{topic}-{number}").glob(name):
            spoil(path, harm)
    start_with_every_record(filled, topic, tmp_path / "kept")
