"""The life of an appliance: from a release with PostgreSQL 15 to one with 17, and back."""

from __future__ import annotations

import functools
import json
import time

import pytest

from conftest import board_of_a_story, run_playbook
from releases import broken, newer, older, with_postgres_15
from test_updated import NOTE, QUIET, Before, Play, Releases, assert_all_is_back, differing, set_up, state

DATA = "sudo sh -c 'cd /var/lib/music/postgres && grep -H . */PG_VERSION'"
SERVER = "SELECT current_setting('server_version_num')::int / 10000"
UNITS = "systemctl is-active music-metrics music-superset music-kafka music-postgres music-scrobble"


board = board_of_a_story("major")


@pytest.fixture(scope="module")
def releases(tmp_path_factory) -> Releases:
    folder = tmp_path_factory.mktemp("releases")
    good, migration = newer(folder / "good", image=False)
    old = with_postgres_15(older(folder / "old"))
    return Releases(old, good, migration, broken(folder / "broken", image=False))


@pytest.fixture(scope="module")
def update(inventory) -> Play:
    return functools.partial(run_playbook, inventory, "playbooks/update.yml", *QUIET)


@pytest.fixture(scope="module")
def before(board, inventory, releases) -> Before:
    found = set_up(board, inventory, releases.old)
    assert board.sql(SERVER) == [["15"]]
    return found


def test_site_yml_alone_refuses_the_old_data_and_names_the_way(board, before, releases, inventory):
    done = run_playbook(inventory, "site.yml", *QUIET, project=releases.good)
    said = " ".join(done.stdout.split())
    assert done.returncode != 0
    assert "Found data of PostgreSQL 15 in /var/lib/music/postgres/data, wanted 17" in said, done.stdout[
        -3000:
    ]
    assert "Older data are taken along by make update" in said
    assert state(board) == before


def test_a_release_that_is_broken_comes_back_to_the_old_data(board, before, releases, update):
    began = time.monotonic()
    done = update(project=releases.broken)
    print(f"switched and back in {time.monotonic() - began:.0f} s")
    said = " ".join(done.stdout.split())
    assert done.returncode != 0
    assert "changed: the data of PostgreSQL 15 are back" in said, done.stdout[-5000:]
    assert_all_is_back(board, before)
    assert board.ssh(DATA).stdout == "data/PG_VERSION:15\n"
    assert json.loads(board.ssh(NOTE).stdout)["state"] == "returned"
    assert board.ssh(UNITS).stdout == "active\n" * 5


def test_every_number_is_in_the_new_postgresql(board, before, releases, update):
    began = time.monotonic()
    done = update(project=releases.good)
    print(f"updated in {time.monotonic() - began:.0f} s")
    said = " ".join(done.stdout.split())
    assert done.returncode == 0, done.stdout[-5000:]
    assert "data of PostgreSQL 15 -> 17, through the backup" in said
    assert "sudo rm -r /var/lib/music/postgres/data-15" in said
    after = state(board)
    assert board.sql(SERVER) == [["17"]]
    assert after.plays == before.plays
    assert releases.migration in [name for (name,) in after.migrations]
    differ = differing(after.rows, before.rows)
    # Tables of the migrations since the old release, and what is noted of a backup.
    assert {name for name, (_, old) in differ.items() if old is not None} <= {"schema_migrations"}, differ
    assert board.ssh(DATA).stdout == "data-15/PG_VERSION:15\ndata/PG_VERSION:17\n"
    assert board.ssh(UNITS).stdout == "active\n" * 5
    board.ssh("sudo musicctl validate")


def test_the_owner_returns_to_the_old_postgresql(board, before, releases, update):
    done = update("-e", "update_return=true", project=releases.good)
    assert done.returncode == 0, done.stdout[-5000:]
    assert_all_is_back(board, before)
    assert board.ssh(DATA).stdout == "data/PG_VERSION:15\n"
    board.ssh("sudo musicctl validate")
