"""The life of an appliance: from one release to the next, and back where the next one fails."""

from __future__ import annotations

import functools
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from conftest import Board, board_of_a_story, playbook_command, run_playbook, stand_still, wait_for
from releases import broken, newer, older
from test_restored import PLAYS, rows

Play = Callable[..., subprocess.CompletedProcess[str]]
# Nothing plays, so that every row can be compared.
QUIET = ("-e", "pipeline_producer_enabled=false")
VERSION = "sudo /opt/music/app/bin/python -c 'from importlib.metadata import version; print(version(\"music-streaming\"))'"
NOTE = "sudo cat /opt/music/update/before.json"
MIGRATIONS = "SELECT name FROM schema_migrations ORDER BY name"


class Releases(NamedTuple):
    """Folders; the planted migration of `good`."""

    old: Path
    good: Path
    migration: str
    broken: Path


class Before(NamedTuple):
    """What the old release had."""

    version: str
    rows: dict[str, str]
    plays: list[list[str]]
    images: list[str]
    migrations: list[list[str]]


board = board_of_a_story("updated")


@pytest.fixture(scope="module")
def releases(tmp_path_factory) -> Releases:
    folder = tmp_path_factory.mktemp("releases")
    good, migration = newer(folder / "good")
    return Releases(older(folder / "old"), good, migration, broken(folder / "broken"))


@pytest.fixture(scope="module")
def update(inventory) -> Play:
    return functools.partial(run_playbook, inventory, "playbooks/update.yml", *QUIET)


def images(board: Board) -> list[str]:
    return sorted(board.ssh("sudo docker ps --format '{{.Names}} {{.Image}}'").stdout.splitlines())


def state(board: Board) -> Before:
    return Before(
        board.ssh(VERSION).stdout.strip(), rows(board), board.sql(PLAYS), images(board), board.sql(MIGRATIONS)
    )


def set_up(board: Board, inventory: str, release: Path) -> Before:
    """The release, set up with its history; then nothing plays."""
    done = run_playbook(inventory, "site.yml", project=release)
    assert done.returncode == 0, done.stdout[-5000:]
    stand_still(board)
    board.ssh("sudo systemctl disable music-producer")
    found = state(board)
    assert int(found.plays[0][1]) > 10_000
    return found


@pytest.fixture(scope="module")
def before(board, inventory, releases) -> Before:
    return set_up(board, inventory, releases.old)


def differing(found: dict[str, str], wanted: dict[str, str]) -> dict[str, tuple[str | None, str | None]]:
    names = found.keys() | wanted.keys()
    return {
        name: (found.get(name), wanted.get(name)) for name in names if found.get(name) != wanted.get(name)
    }


def assert_all_is_back(board: Board, before: Before) -> None:
    """Every table has the rows of before, and all else is as it was."""
    after = state(board)
    assert differing(after.rows, before.rows) == {}
    assert after._replace(rows={}) == before._replace(rows={})


def kafka_metadata(board: Board) -> tuple[str, str]:
    """The version of Kafka's metadata, and the newest that the broker knows."""
    said = board.ssh(
        "sudo docker exec music-kafka java -Xmx64m org.apache.kafka.tools.FeatureCommand"
        " --bootstrap-server 127.0.0.1:9092 describe"
    ).stdout
    line = next(line for line in said.splitlines() if "metadata.version" in line)
    return re.search(r"Finalized\w+: (\S+)", line).group(1), re.search(r"SupportedMax\w+: (\S+)", line).group(
        1
    )


def test_it_says_what_would_change_and_changes_nothing(board, before, releases, update):
    done = update("--check", project=releases.good)
    assert done.returncode == 0, done.stdout[-5000:]
    for words in (
        f"program: {before.version} (app-",
        "-> 0.9.0 (app-",
        "image of postgres: music/postgres:",
        f"migration: {releases.migration}",
        "restarts: metrics, postgres, producer, scrobble",
        "minutes on two x86 cores",
    ):
        assert words in done.stdout, done.stdout[-5000:]
    assert state(board) == before


def test_a_disk_that_is_full_of_backups_stops_it_before_the_switch(board, before, releases, update):
    assert len(set(kafka_metadata(board))) == 2
    board.ssh("sudo mount -t tmpfs -o size=64k tmpfs /var/backups/music")
    try:
        done = update(project=releases.broken)
    finally:
        board.ssh("sudo umount /var/backups/music")
    assert done.returncode != 0
    assert "found 0 MB free, wanted" in done.stdout, done.stdout[-3000:]
    # All that is changed by then: the metadata follow the broker that runs.
    assert len(set(kafka_metadata(board))) == 1
    assert state(board) == before
    assert json.loads(board.ssh(NOTE).stdout)["state"] == "kept"


def test_a_release_that_is_broken_comes_back_by_itself(board, before, releases, update):
    began = time.monotonic()
    done = update(project=releases.broken)
    print(f"switched and back in {time.monotonic() - began:.0f} s")
    said = " ".join(done.stdout.split())
    assert done.returncode != 0
    assert "Found that the new version fails (" in said, done.stdout[-5000:]
    assert "is back at the old version, with its numbers" in said
    assert "changed: both databases, back from" in said
    assert_all_is_back(board, before)
    assert json.loads(board.ssh(NOTE).stdout)["state"] == "returned"
    # All of it is the old release: the job stands at the end of what there is, and counts go on.
    board.ssh("sudo musicctl validate")
    assert board.ssh("systemctl is-active music-metrics music-superset music-kafka").stdout == "active\n" * 3
    with board.superset_admin() as client:
        assert client.get("/api/v1/dashboard/music-live").status_code == 200


def test_a_killed_run_is_gone_on_with(board, before, releases, inventory, update):
    """Killed while parts of both versions run: the note of the first run stays, and the next run passes."""
    argv, environment = playbook_command(inventory, "playbooks/update.yml", *QUIET)
    with subprocess.Popen(
        argv, cwd=releases.good, env=environment, stdout=subprocess.DEVNULL, start_new_session=True
    ) as running:
        try:
            wait_for(
                "the new PostgreSQL while the old program runs",
                lambda: (
                    "postgres" in {line.split()[1].split(":")[0].rpartition("/")[2] for line in images(board)}
                    and not set(images(board)) <= set(before.images)
                ),
                seconds=900,
                every=2,
            )
        finally:
            os.killpg(running.pid, signal.SIGKILL)
    note = json.loads(board.ssh(NOTE).stdout)
    assert (note["state"], note["version"]) == ("unfinished", before.version)
    done = update(project=releases.good)
    assert done.returncode == 0, done.stdout[-5000:]
    assert "was cut off: it is gone on with" in " ".join(done.stdout.split())
    assert json.loads(board.ssh(NOTE).stdout)["backup"] == note["backup"]
    told = re.search(r"-> 0\.9\.0 \((app-\w+)\)", done.stdout).group(1)
    assert board.ssh("readlink /opt/music/app").stdout.strip() == told


def test_the_new_release_has_every_number_of_the_old_one(board, before, releases):
    after = state(board)
    assert after.version == "0.9.0"
    assert releases.migration in [name for (name,) in after.migrations]
    assert after.plays == before.plays
    assert set(differing(after.rows, before.rows)) <= {"schema_migrations", "of_next_year"}
    assert json.loads(board.ssh(NOTE).stdout)["state"] == "done"
    board.ssh("sudo musicctl validate")


def test_program_and_images_are_kept_as_the_last_two(board, before):
    tags = board.ssh("sudo docker image ls music/postgres --format '{{.Repository}}:{{.Tag}}'").stdout.split()
    assert len(tags) == 2
    assert next(line.split()[1] for line in before.images if line.startswith("music-postgres ")) in tags
    assert len(re.findall(r"app-\w+", board.ssh("ls /opt/music").stdout)) == 2


def test_again_changes_nothing_and_leaves_the_way_back(board, releases, update):
    note = board.ssh(NOTE).stdout
    done = update(project=releases.good)
    assert done.returncode == 0, done.stdout[-5000:]
    assert "all versions are those of this repository already" in done.stdout
    assert "changed=0" in done.stdout
    assert board.ssh(NOTE).stdout == note


def test_the_owner_returns_across_a_migration(board, before, releases, update):
    """The first time it is killed while the backup is read; then everything is where it was."""
    board.ssh("sudo systemd-run --quiet --collect --unit way-back /opt/music/update/way_back.py return")
    wait_for(
        "the backup to be read",
        lambda: board.ssh("pgrep --exact pg_restore", check=False).returncode == 0,
        seconds=120,
        every=0.2,
    )
    board.ssh("sudo systemctl kill --signal KILL way-back")
    done = update("-e", "update_return=true", project=releases.good)
    assert done.returncode == 0, done.stdout[-5000:]
    assert_all_is_back(board, before)
    # A newer version's tables are refused by an older one's update, and the other way is open again.
    board.ssh("sudo musicctl validate")
