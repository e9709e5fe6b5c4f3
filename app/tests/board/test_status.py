"""What status sees on real services, and what it calls a problem."""

import contextlib
import dataclasses
import io
from datetime import UTC, datetime, timedelta

import pytest
from rich.console import Console

from music_streaming.board.commands.status import show
from music_streaming.board.status import (
    Backup,
    Counted,
    Limit,
    Partition,
    Status,
    Total,
    Unit,
    age,
    collect,
    counted,
    diagnose,
    folders,
    parse_units,
    size,
)
from music_streaming.settings import KafkaSettings, Settings
from music_streaming.topic import ensure_topics

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
SHOWN = """Id=music-producer.service
LoadState=loaded
ActiveState=active
SubState=running
NRestarts=2
StateChangeTimestamp=Wed 2026-11-25 11:00:00 UTC
StatusText=5 sent, 5 delivered = all

Id=music-kafka.service
LoadState=loaded
ActiveState=failed
SubState=failed
NRestarts=0
StateChangeTimestamp=
StatusText=

Id=music-gone.service
LoadState=not-found
ActiveState=inactive
SubState=dead
NRestarts=0
StateChangeTimestamp=
StatusText=
"""
BATCH = """
INSERT INTO ingest_batches (topic, records, accepted, duplicates, late, rejected, tombstones,
    read_at, committed_at)
VALUES (%(topic)s, 12, 10, 1, 1, 1, 0, now(), now());
INSERT INTO ingest_state (topic, watermark, records, accepted, duplicates, rejected)
VALUES (%(topic)s, '2026-11-25T10:00Z', 12, 10, 1, 1);
INSERT INTO ingest_offsets (topic, partition, topic_id, next_offset) VALUES (%(topic)s, 0, 'id', 0);
INSERT INTO ingest_reject_totals (reason, rejected) VALUES ('not_json', 1);
INSERT INTO ingest_periods (starts, source, ends, accepted, open, proved)
VALUES ('2026-11-25 10:00Z', 'demo', '2026-11-25 11:00Z', 10, false, 10);
UPDATE ingest_totals SET accepted = 10, duplicates = 1, late = 1, newest_event_time = '2026-11-25T10:10Z'
WHERE source = 'demo'
"""


def unit(name: str = "music-kafka", active: str = "active", text: str = "") -> Unit:
    return Unit(name, active, "running", 0, "", text)


def status(**parts) -> Status:
    counts = {
        "totals": [Total("demo", 10, 1, 1, 0, NOW)],
        "offsets": {0: 10},
        "rejected": {},
        "lost_records": 0,
        "recent_gaps": {},
        "last_commit": NOW - timedelta(seconds=1),
        "watermark": None,
        "events_last_minute": 10,
        "inexact_sources": [],
        "newest_backup": None,
        "batch_limit": Limit(500, 50_000, "a batch of at most 5000 records did not fit into memory"),
    }
    wanted = {"units": [unit()], "partitions": [Partition(0, 12, 10)], "free_bytes": 10**11}
    wanted |= {name: value for name, value in parts.items() if name in wanted}
    counts |= {name: value for name, value in parts.items() if name in counts}
    return Status(at=NOW, counted=Counted(**counts), **wanted)


def test_units_are_read_as_systemd_shows_them():
    kafka, producer = parse_units(SHOWN)
    assert (kafka.name, kafka.ok) == ("music-kafka", False)
    assert (producer.name, producer.ok, producer.restarts) == ("music-producer", True, 2)
    assert producer.text == "5 sent, 5 delivered = all"


def test_a_healthy_board_has_no_problem():
    assert diagnose(status(), Settings()) == []
    assert diagnose(status(units=[unit(), unit("music-producer", "inactive")]), Settings()) == []


@pytest.mark.parametrize(
    ("parts", "problem"),
    [
        ({"units": []}, "systemd: found no music-* unit"),
        ({"units": [unit(active="activating")]}, "music-kafka: found activating"),
        ({"units": [unit("music-producer", "failed")]}, "music-producer: found failed"),
        (
            {"units": [unit(active="failed", text="image missing: run site.yml")]},
            "music-kafka: found its image missing",
        ),
        ({"free_bytes": 5 * 1024**2}, "disk: found 5 MiB free"),
        ({"last_commit": NOW - timedelta(minutes=10)}, "music-metrics: found 2 records waiting"),
        ({"last_commit": None}, "music-metrics: found 2 records waiting"),
        ({"recent_gaps": {"retention": 1, "shortened": 3}}, "music-metrics: found 1 new gaps"),
        ({"recent_gaps": {"began_anew": 2}}, "music-metrics: found 2 new gaps in the last day (began_anew)"),
        ({"last_commit": NOW + timedelta(days=30)}, "clock: found the last commit 2592000 s ahead"),
        ({"inexact_sources": ["demo"]}, "PostgreSQL: found metrics that differ"),
        ({"units": [unit("music-backup", "failed")]}, "music-backup: found failed"),
        (
            {"newest_backup": Backup(NOW - timedelta(days=5), "/b/music.tar", 5, True)},
            "backup: found the newest 5 days old",
        ),
    ],
)
def test_a_problem_is_found_wanted_remedy(parts, problem):
    (found,) = diagnose(status(**parts), Settings())
    assert found.startswith(problem)
    assert ", wanted " in found
    assert "Remedy: " in found


def test_a_new_topic_after_a_restore_needs_nothing():
    (found,) = diagnose(status(recent_gaps={"topic_recreated": 4}), Settings())
    assert "Remedy: none where a backup was restored on a new card, else let nobody delete" in found


def test_a_backup_is_at_work_once_a_night():
    old = Backup(NOW - timedelta(days=5), "/b/music.tar", 5, True)
    for active in ("inactive", "activating"):
        assert diagnose(status(units=[unit("music-backup", active)]), Settings()) == []
    by_hand = Settings().with_changes(backup={"nightly": False})
    assert diagnose(status(newest_backup=old), by_hand) == []
    console = Console(width=200, record=True, file=io.StringIO())
    show(status(newest_backup=dataclasses.replace(old, secrets=False)), Settings(), console)
    assert "5 days ago, 5 B, without secrets: /b/music.tar" in console.export_text()


def test_an_idle_board_need_not_commit():
    parts = {"partitions": [Partition(0, 10, 10)], "last_commit": NOW - timedelta(days=1)}
    assert diagnose(status(**parts), Settings()) == []


def test_it_sees_kafka_and_postgres(database, secrets, broker, topic):
    settings = secrets(database).model_copy(
        update={"kafka": KafkaSettings(bootstrap=broker.bootstrap, topic=topic, partitions=2)}
    )
    ensure_topics(settings)
    with contextlib.closing(database.connect("music_writer")) as connection, connection:
        connection.cursor().execute(BATCH, {"topic": topic})
    (settings.paths.data / "kafka").mkdir()
    found = collect(settings)
    assert found.partitions == [Partition(0, 0, 0), Partition(1, 0, None)]
    assert found.lag == 0
    assert found.counted is not None
    assert found.counted.totals[0] == Total("demo", 10, 1, 1, 0, datetime(2026, 11, 25, 10, 10, tzinfo=UTC))
    assert found.counted.rejected == {"not_json": 1}
    assert found.counted.events_last_minute == 10
    assert [folder.path for folder in found.folders] == [str(settings.paths.data / "kafka")]
    assert not [problem for problem in found.problems if problem.startswith(("PostgreSQL", "Kafka", "disk"))]

    console = Console(record=True, width=120)
    show(found, settings, console)
    shown = console.export_text()
    for word in ("demo", "2026-11-25 10:00:00 UTC", "not_json 1", "records waiting in Kafka"):
        assert word in shown


def test_a_part_that_is_down_hides_no_other(database, secrets):
    settings = secrets(database).with_changes(kafka={"bootstrap": "127.0.0.1:1"})
    found = collect(settings)
    assert found.counted == counted(settings)
    assert [problem for problem in found.problems if "found no broker at 127.0.0.1:1" in problem]
    # Not 0: nobody knows.
    told = found.to_dict()
    assert (told["lag"], told["healthy"]) == (None, False)
    settings = settings.with_changes(postgres={"port": 1})
    problems = collect(settings).problems
    assert [problem for problem in problems if problem.startswith("PostgreSQL does not answer: ")]
    assert [problem for problem in problems if problem.startswith("Kafka: ")]


def test_disk_use_counts_what_lies_below(tmp_path):
    (tmp_path / "kafka" / "topic-0").mkdir(parents=True)
    (tmp_path / "kafka" / "topic-0" / "log").write_bytes(b"x" * 100_000)
    (tmp_path / "kafka" / "link").symlink_to("/")
    (tmp_path / "lost+found").mkdir()
    (found,) = folders(tmp_path)
    assert 100_000 <= found.used < 200_000


def test_an_age_is_never_negative():
    assert age(NOW + timedelta(milliseconds=600), NOW) == "0 s"
    assert age(NOW - timedelta(seconds=119.6), NOW) == "120 s"
    assert age(NOW - timedelta(minutes=3), NOW) == "3 min"
    assert age(None, NOW) == "never"


def test_sizes_are_for_people():
    assert [size(number) for number in (1, 1536, 5 * 1024**2, 3 * 1024**3)] == [
        "1 B",
        "2 KiB",
        "5 MiB",
        "3.0 GiB",
    ]
