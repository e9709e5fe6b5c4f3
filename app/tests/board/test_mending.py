"""What --fix mends, and what it leaves; on a real broker and a real PostgreSQL."""

from __future__ import annotations

import contextlib

from surroundings import named

from music_streaming.board import doctor, mending
from music_streaming.board.breakages import Broken
from music_streaming.board.doctor import OK, examine, look
from music_streaming.board.machine import Board


def test_a_missing_topic_is_made_and_another_is_left(whole):
    missing = whole.settings.with_changes(kafka={"topic": whole.settings.kafka.topic + "_new"})
    of = Board(missing, whole.systemd, whole.engine, whole.root)
    assert named(of) == ("topic", "topic-missing", "music-kafka")
    step = next(step for step in examine(of, fix=True).steps if step.link == "topic")
    assert (step.state, step.mended) == (
        OK,
        [f"{missing.kafka.topic}: created with 2 partitions, replication 1"],
    )
    of = Board(missing.with_changes(kafka={"partitions": 1}), whole.systemd, whole.engine)
    assert named(of) == ("topic", "topic-differs", "music-kafka")
    assert examine(of, fix=True).broken.link == "topic"


def test_due_rejects_are_judged_again_by_a_job_that_is_restarted(whole, database, units):
    insert = (
        "INSERT INTO rejected_events (topic_id, kafka_partition, kafka_offset, topic, reason, raw, raw_length, kafka_time,"
        " due) VALUES ('t', 0, %s, 'x', 'in_future', 'x', 1, now(), now() - %s * interval '1 minute')"
    )
    with contextlib.closing(database.connect("music_writer")) as connection, connection:
        connection.cursor().execute(insert, (1, 5))
    assert look(whole, "tables").state == OK
    with contextlib.closing(database.connect("music_writer")) as connection, connection:
        connection.cursor().execute(insert, (2, 20))
    assert named(whole) == ("tables", "rejects-held", "music-metrics")
    found = examine(whole, fix=True)
    # There is no job here that could.
    assert (found.broken.link, found.broken.mended) == ("tables", ["restarted music-metrics"])
    assert units.calls == [("RestartUnit", "music-metrics")]


def test_fix_mends_a_unit_and_goes_on(whole, units, monkeypatch):
    monkeypatch.setitem(doctor.LINKS, "flow", lambda _: "one record in 1.0 s")
    units.states["music-kafka"] |= {"ActiveState": "failed"}
    units.states["music-postgres"] |= {"UnitFileState": "disabled"}
    units.states["music-superset"] |= {"ActiveState": "inactive", "UnitFileState": "disabled"}
    told = []
    found = examine(whole, fix=True, tell=told.append)
    steps = {step.link: step for step in found.steps}
    assert found.broken is None
    assert steps["kafka"].mended == ["restarted music-kafka"]
    assert steps["tables"].mended == ["enabled music-postgres"]
    assert steps["superset"].mended == ["started music-superset", "enabled music-superset"]
    assert ("RestartUnit", "music-kafka") in units.calls
    assert len(told) == 4


def test_fix_leaves_what_only_a_person_may_do(whole, units):
    units.states["music-kafka"] |= {"LoadState": "masked", "ActiveState": "inactive"}
    assert examine(whole, fix=True).broken.kind == "unit-masked"
    assert units.calls == []


def test_who_may_not_mend_is_told_how(whole, units):
    units.states["music-kafka"] |= {"ActiveState": "inactive"}
    units.refuse = True
    broken = examine(whole, fix=True).broken
    assert broken.remedy.startswith("sudo musicctl doctor --fix; or sudo systemctl start music-kafka")


def test_a_disk_that_stays_full_is_told_at_once(whole, monkeypatch):
    looked = []

    def full(_):
        looked.append(1)
        raise Broken("disk-full", "900 MiB free")

    monkeypatch.setitem(doctor.LINKS, "disk", full)
    monkeypatch.setattr(doctor, "mend", lambda *_: ["freed 60 MiB"])
    broken = examine(whole, fix=True).broken
    assert (broken.kind, broken.mended, len(looked)) == ("disk-full", ["freed 60 MiB"], 2)


def test_freeing_the_disk_removes_what_is_fetched_again(whole, monkeypatch):
    archives = whole.root / "var/cache/apt/archives"
    (archives / "partial").mkdir(parents=True)
    (archives / "a.deb").write_bytes(b"x" * 100_000)
    (archives / "lock").touch()
    ran = []
    monkeypatch.setattr(mending, "_run", lambda *command: ran.append(command))
    monkeypatch.setattr(mending.os, "geteuid", lambda: 0)
    assert mending.mend(whole, "disk-full", "")[0].startswith("freed ")
    assert sorted(path.name for path in archives.iterdir()) == ["lock", "partial"]
    assert ran == [("journalctl", "--rotate", "--vacuum-size=100M")]
    assert mending.mend(whole, "disk-full", "") == []
    mending.mend(whole, "firewall-not-loaded", "")
    assert ran[-1] == ("ufw", "reload")
