"""The doctor names the first broken link: on a real broker and a real PostgreSQL, with systemd's and Docker's interfaces."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import re
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner
from surroundings import RULES, RUNNING, named, superset_with, workers_with

from docs import PROJECT
from music_streaming import cli
from music_streaming.board import doctor, machine, mending, network, parts
from music_streaming.board.breakages import BREAKAGES, UNITS
from music_streaming.board.doctor import NOTE, OK, UNSEEN, examine, look, within
from music_streaming.board.engine import Engine
from music_streaming.board.machine import Board
from music_streaming.board.network import allowing
from music_streaming.board.systemd import Systemd
from music_streaming.settings import Settings
from music_streaming.testing.postgres import new_database, throw_away_cluster


def test_parts_that_answer_without_a_job_are_a_flow_that_does_not_come_through(whole):
    found = examine(whole)
    assert [step.link for step in found.steps] == list(doctor.LINKS)
    assert [step.link for step in found.steps if step.state != OK] == ["flow"], found.to_dict()
    assert (found.broken.kind, found.broken.unit) == ("flow", "music-metrics")
    assert found.broken.found.startswith("Spark job -> PostgreSQL: offset ")
    assert found.broken.journal


def test_a_failed_unit_breaks_its_link(whole, units):
    for link, names in UNITS.items():
        for unit in names:
            right = dict(units.states[unit])
            units.states[unit] |= {"ActiveState": "failed", "SubState": "failed", "Result": "exit-code"}
            step = look(whole, link)
            assert (step.link, step.kind, step.unit) == (link, "unit-failed", unit)
            units.states[unit] = right


@pytest.mark.parametrize(
    ("state", "kind"),
    [
        ({"ActiveState": "inactive", "SubState": "dead"}, "unit-stopped"),
        ({"ActiveState": "activating", "SubState": "auto-restart", "NRestarts": 9}, "unit-restarts"),
        ({"LoadState": "masked", "ActiveState": "inactive"}, "unit-masked"),
        ({"UnitFileState": "disabled"}, "unit-disabled"),
    ],
)
def test_a_unit_that_is_not_as_it_should_be(whole, units, state, kind):
    units.states["music-spark-worker"] |= state
    assert named(whole) == ("job", kind, "music-spark-worker")


@pytest.mark.parametrize("unit", ["music-producer", "music-scrobble"])
def test_a_sender_may_be_stopped(whole, units, unit):
    units.states[unit] |= {"ActiveState": "inactive", "UnitFileState": "disabled"}
    assert look(whole, "senders").state == OK


def test_a_part_of_another_board_is_asked_over_the_network(whole, units):
    for unit in (
        "music-kafka",
        *UNITS["job"],
        "music-postgres",
        "music-superset",
        *UNITS["senders"],
        "avahi-daemon",
    ):
        units.states[unit] = RUNNING | {"LoadState": "not-found", "ActiveState": "inactive"}
    states = {step.link: step.state for step in examine(whole).steps}
    assert {link for link, state in states.items() if state == UNSEEN} == {"senders"}
    assert states["kafka"] == states["tables"] == states["superset"] == OK


def test_docker_and_its_images(whole, units, tmp_path):
    units.images["music-superset"] = "music/superset:1"
    assert named(whole) == ("docker", "image-missing", "music-superset")
    gone = Board(whole.settings, whole.systemd, Engine(str(tmp_path / "nowhere"), 2), whole.root)
    assert named(gone) == ("docker", "docker-silent", "docker")
    units.states["docker"] |= {"ActiveState": "inactive"}
    assert named(gone) == ("docker", "unit-stopped", "docker")


def test_a_board_without_systemd_or_units(whole, units):
    silent = Board(whole.settings, Systemd("unix:path=/nowhere", 1), whole.engine, whole.root)
    assert named(silent)[:2] == ("board", "no-systemd")
    for state in units.states.values():
        state["LoadState"] = "not-found"
    assert named(whole)[:2] == ("board", "no-units")


def test_a_unit_whose_file_is_gone(whole):
    wants = whole.root / "etc/systemd/system/music.target.wants"
    wants.mkdir(parents=True)
    (wants / "music-kafka.service").symlink_to("/etc/systemd/system/music-kafka.service")
    assert named(whole) == ("board", "unit-gone", "music-kafka")


def test_a_clock_behind_what_was_stored_is_named_and_one_without_a_server_is_a_note(
    whole, database, monkeypatch
):
    later = dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)
    with contextlib.closing(database.connect("music_writer")) as connection, connection:
        connection.cursor().execute(
            "INSERT INTO ingest_batches (topic, records, accepted, duplicates, late, rejected, tombstones,"
            " read_at, committed_at) VALUES ('x', 1, 1, 0, 0, 0, 0, now(), %s)",
            (later,),
        )
    assert named(whole)[:2] == ("clock", "clock-behind")
    monkeypatch.setattr(Board, "now", lambda _: later)
    assert look(whole, "clock").state == OK
    monkeypatch.setattr(machine.clock, "kernel_synchronised", lambda: False)
    alone = Board(whole.settings.with_changes(stream={"clock_trusted": False}), whole.systemd, whole.engine)
    monkeypatch.setattr(Board, "now", lambda _: later)
    step = look(alone, "clock")
    assert (step.state, step.kind) == (NOTE, "clock-alone")


@pytest.mark.parametrize(
    ("state", "kind"),
    [({"f_flag": 1}, "disk-read-only"), ({"f_favail": 3}, "disk-full"), ({}, ""), ({"free": 5}, "disk-full")],
)
def test_a_disk_that_is_full_or_takes_no_writes(whole, monkeypatch, state, kind):
    room = {"f_flag": 0, "f_files": 1000, "f_favail": 900} | state
    monkeypatch.setattr(machine.os, "statvfs", lambda _: SimpleNamespace(**room))
    monkeypatch.setattr(
        machine.shutil, "disk_usage", lambda _: SimpleNamespace(free=state.get("free", 10**10))
    )
    assert look(whole, "disk").kind == kind


def test_a_disk_that_is_gone(whole):
    gone = Board(whole.settings.with_changes(paths={"data": "/nowhere"}), whole.systemd, whole.engine)
    assert named(gone)[:2] == ("disk", "disk-missing")
    assert "findmnt /nowhere" in examine(gone).broken.remedy


@pytest.mark.parametrize("answers", [False, True])
def test_a_broker_that_does_not_answer(whole, answers, monkeypatch):
    monkeypatch.setattr(parts, "SECONDS", 1)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        if answers:
            listener.listen()
        port = listener.getsockname()[1]
        deaf = whole.settings.with_changes(kafka={"bootstrap": f"127.0.0.1:{port}"})
        begun = time.monotonic()
        assert named(Board(deaf, whole.systemd, whole.engine)) == ("kafka", "kafka-silent", "music-kafka")
        assert time.monotonic() - begun < 20


def test_a_spark_master_without_a_worker(whole):
    with workers_with("DEAD") as port:
        of = Board(whole.settings.with_changes(spark={"master_web_port": port}), whole.systemd, whole.engine)
        assert named(of) == ("job", "no-worker", "music-spark-worker")


def test_a_job_that_restarts_for_want_of_its_database_is_not_the_cause(whole, units):
    units.states["music-metrics"] |= {"ActiveState": "activating", "SubState": "auto-restart"}
    assert named(whole) == ("job", "unit-restarts", "music-metrics")
    of = Board(whole.settings.with_changes(postgres={"port": 1}), whole.systemd, whole.engine)
    assert named(of) == ("tables", "postgres-silent", "music-postgres")


def test_a_table_or_a_migration_that_is_missing(whole, database):
    with contextlib.closing(database.connect("music_owner")) as connection, connection:
        connection.cursor().execute("DELETE FROM schema_migrations WHERE name LIKE '010%'")
    assert named(whole)[:2] == ("tables", "schema")
    with contextlib.closing(database.connect("music_owner")) as connection, connection:
        connection.cursor().execute("UPDATE schema_migrations SET sha256 = 'x' WHERE name LIKE '001%'")
    assert named(whole)[:2] == ("tables", "schema")


def test_a_dropped_table_is_named(whole, database):
    with contextlib.closing(database.connect("music_owner")) as connection, connection:
        connection.cursor().execute("DROP TABLE ingest_totals CASCADE")
    assert named(whole)[:2] == ("tables", "table-missing")
    assert "ingest_totals" in examine(whole).broken.found


def test_a_password_that_is_another_and_a_secret_that_is_missing(whole, tmp_path):
    with throw_away_cluster() as cluster:
        (cluster.folder / "data/pg_hba.conf").write_text(
            "local all postgres trust\nhost all postgres 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n"
        )
        with new_database(cluster) as database:
            cluster.run(cluster.binaries / "pg_ctl", "reload", "-D", cluster.folder / "data")
            of = Board(
                whole.settings.with_changes(postgres={"port": cluster.port, "database": database.name}),
                whole.systemd,
                whole.engine,
            )
            (tmp_path / "postgres_music_writer").write_text("wrong")
            link, kind, _ = named(of)
            assert (link, kind) == ("tables", "postgres-refuses")
            assert examine(of).broken.wanted.endswith("/postgres_music_writer")
            (tmp_path / "postgres_music_writer").write_text("music_writer")
            (tmp_path / "postgres_superset_reader").unlink()
            assert named(of)[:2] == ("tables", "secret-missing")


def test_superset_is_asked_for_a_login(whole, tmp_path):
    (tmp_path / "superset_appliance").write_text("wrong")
    assert named(whole) == ("superset", "superset-login", "music-superset")
    (tmp_path / "superset_appliance").unlink()
    assert look(whole, "superset").state == UNSEEN
    of = Board(
        whole.settings.with_changes(superset={"url": "http://127.0.0.1:1"}), whole.systemd, whole.engine
    )
    assert named(of) == ("superset", "superset-silent", "music-superset")


@pytest.mark.parametrize(
    ("file", "old", "new", "kind"),
    [
        ("etc/ufw/ufw.conf", "ENABLED=yes", "ENABLED=no", "firewall-off"),
        ("etc/default/ufw", "DROP", "ACCEPT", "firewall-off"),
        ("etc/ufw/user.rules", "-s 192.168", "-d 192.168", "firewall-not-loaded"),
        ("etc/ufw/user.rules", "-j ACCEPT", "-j REJECT", "firewall-closed"),
        ("kernel", "INPUT", "OUTPUT", "firewall-not-loaded"),
    ],
)
def test_the_firewall(whole, file, old, new, kind):
    path = whole.root / file
    path.write_text(path.read_text().replace(old, new))
    assert named(whole)[:2] == ("firewall", kind)


def test_a_firewall_that_is_closed_on_purpose(whole):
    path = whole.root / "etc/ufw/user.rules"
    path.write_text(path.read_text().replace("-j ACCEPT", "-j REJECT"))
    private = whole.settings.with_changes(superset={"shared": False})
    assert look(Board(private, whole.systemd, whole.engine, whole.root), "firewall").state == OK


def test_rules_are_read_as_iptables_restore_reads_them():
    assert allowing(RULES.replace("PORT", "8088"), 8088) == [
        ["ufw-user-input", "-p", "tcp", "--dport", "8088", "-s", "192.168.0.0/16", "-j", "ACCEPT"]
    ]
    assert allowing(RULES.replace("PORT", "8088"), 808) == []


def test_the_network(whole, monkeypatch):
    monkeypatch.setattr(network, "no_names", lambda: "Temporary failure in name resolution")
    step = look(whole, "lan")
    assert (step.state, step.kind) == (NOTE, "lan-names")
    # On loopback alone.
    with superset_with("opensesame") as url:
        of = Board(whole.settings.with_changes(superset={"url": url}), whole.systemd, whole.engine)
        monkeypatch.setattr(network, "addresses", lambda: ["127.0.0.2"])
        assert look(of, "lan").kind == "lan-dashboards"
    monkeypatch.setattr(network, "addresses", list)
    assert named(whole)[:2] == ("lan", "lan-no-route")


def test_a_machine_without_a_network_has_no_address_and_no_names(files):
    script = (
        "from music_streaming.board.network import addresses, no_names; print(addresses(), bool(no_names()))"
    )
    done = subprocess.run(
        ["unshare", "--net", "--map-root-user", sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(files.parent / "app")},
    )
    if "unshare" in done.stderr:
        pytest.skip(f"this machine lets nobody make a network of its own: {done.stderr}")
    assert done.stdout == "[] True\n", done.stderr


def test_a_question_that_nobody_answers_ends():
    with pytest.raises(TimeoutError, match=r"no answer within 0.1 s"):
        within(0.1, lambda: time.sleep(5))
    with pytest.raises(ZeroDivisionError):
        within(5, lambda: 1 / 0)


def test_a_link_that_hangs_is_broken(whole, monkeypatch):
    monkeypatch.setattr(doctor, "LIMIT", 5)
    monkeypatch.setitem(doctor.LINKS, "kafka", lambda _: threading.Event().wait(60))
    assert named(whole) == ("kafka", "no-answer", "music-kafka")


def test_the_command_prints_names_and_exit_code(tmp_path, monkeypatch):
    (tmp_path / "music.toml").write_text("[kafka]\nbootstrap = 'x'\nunknown = 1\n")
    monkeypatch.setenv("MUSIC_CONFIG", str(tmp_path / "music.toml"))
    done = CliRunner().invoke(cli.main, ["doctor", "--json"])
    content = json.loads(done.output)
    assert (done.exit_code, content["ok"], content["broken"]) == (1, False, "board")
    assert content["steps"][0]["kind"] == "settings"
    done = CliRunner().invoke(cli.main, ["doctor"])
    assert "broken: board" in done.output
    assert "remedy: run site.yml" in done.output


def test_what_a_whole_board_prints(whole, capsys, monkeypatch):
    monkeypatch.setattr(Settings, "load", lambda: whole.settings)
    monkeypatch.setattr("music_streaming.board.commands.doctor.Board", lambda _: whole)
    monkeypatch.setitem(doctor.LINKS, "flow", lambda _: "one record in 1.0 s")
    done = CliRunner().invoke(cli.main, ["doctor"])
    assert done.exit_code == 0, done.output
    assert "every link that was looked at holds" in done.output


def test_every_breakage_is_made_in_a_test():
    tests = (
        Path(__file__),
        Path(__file__).with_name("test_mending.py"),
        PROJECT / "molecule/tests/test_doctor.py",
    )
    made = "".join(path.read_text() for path in tests)
    assert [kind for kind in BREAKAGES if f'"{kind}"' not in made] == []
    source = "".join((PROJECT / "app/music_streaming/board" / name).read_text() for name in ("machine.py", "parts.py", "network.py", "doctor.py", "commands/doctor.py"))  # fmt: skip
    assert set(BREAKAGES) - set(re.findall(r'"([a-z-]+)"', source)) == set()
    assert set(mending.MENDINGS) == {kind for kind, breakage in BREAKAGES.items() if breakage.mend}
    assert {breakage.link for breakage in BREAKAGES.values()} - {""} <= set(doctor.LINKS)
