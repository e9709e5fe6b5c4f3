"""The life of an appliance: backed up at night, a dead card, a new board, and everything is there again."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from conftest import Board, board_of_a_story, inventory_of, recount, run_playbook, stand_still, wait_for

PASSPHRASE = "correct horse battery staple"  # noqa: S105
SETTINGS = ("-e", f'backup_passphrase="{PASSPHRASE}"', "-e", "backup_place=/srv/backups")
# What a restore must bring back row by row: all but what the board notes about itself meanwhile.
TABLES = """
SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'
AND relname !~ '^(ingest_(batches|gaps|offsets|limits|periods|state)|disk_samples|backups|board_)' ORDER BY 1
"""
# The check of the flow sends a tombstone, so the rest of that row moves.
STATE = "SELECT watermark, accepted, duplicates, rejected FROM ingest_state"
PLAYS = "SELECT source, accepted FROM ingest_totals ORDER BY source"

Play = Callable[..., subprocess.CompletedProcess[str]]


board = board_of_a_story("restored")


@pytest.fixture(scope="module")
def play(board, tmp_path_factory) -> Play:
    folder = tmp_path_factory.mktemp("inventory")

    def run(*arguments: str, timeout: float = 900) -> subprocess.CompletedProcess[str]:
        # A new board of the same name may have another address.
        return run_playbook(str(inventory_of(board, folder)), *arguments, timeout=timeout)

    return run


class Before(NamedTuple):
    """What the first board had when it was backed up."""

    file: Path
    rows: dict[str, str]
    state: list[list[str]]
    plays: list[list[str]]
    password: str
    token: str
    seconds: float


def rows(board: Board) -> dict[str, str]:
    """Table -> number of rows and the sum of their hashes, of those that stand still while nothing is played."""
    # In one statement: a login for each of a hundred tables took minutes.
    counts = (
        f"SELECT '{table}', count(*), coalesce(sum(hashtextextended(t::text, 0)::numeric), 0) FROM \"{table}\" AS t"
        for (table,) in board.sql(TABLES)
    )
    return dict(line.split(",", 1) for line in admin(board, " UNION ALL ".join(counts)))


def admin(board: Board, statement: str, database: str = "music_streaming") -> list[str]:
    quoted = statement.replace("'", "'\\''")
    out = board.ssh(
        f"sudo psql -h /run/music-postgres -U postgres --csv --tuples-only -c '{quoted}' {database}",
        timeout=300,
    ).stdout
    return out.splitlines()


def newest(board: Board) -> str:
    found = json.loads(board.ssh("sudo musicctl backup --list --json").stdout)
    file: str = found[0]["file"]
    return file


@pytest.fixture(scope="module")
def before(board, play, tmp_path_factory) -> Before:
    """The board with a listener, a dashboard of the owner's, and a backup by the unit that the timer starts."""
    began = time.monotonic()
    done = play("site.yml", *SETTINGS)
    seconds = time.monotonic() - began
    assert done.returncode == 0, done.stdout[-5000:]
    said = board.ssh("sudo musicctl listener add ada --player phone").stdout
    token = re.search(r"[0-9a-f-]{36}", said).group()
    with board.superset_admin() as client:
        made = client.post(
            "/api/v1/dashboard/", json={"dashboard_title": "Ours", "slug": "ours", "published": True}
        )
        made.raise_for_status()
    stand_still(board)
    board.ssh("sudo systemctl stop music-metrics")
    counted = rows(board)
    board.ssh("sudo systemctl start music-backup", timeout=600)
    file = newest(board)
    assert file.startswith("/srv/backups/music-")
    target: Path = tmp_path_factory.mktemp("backup") / "music.tar"
    board.ssh(f"sudo install -o pi -m 0600 {file} /home/pi/music.tar")
    with target.open("wb") as copy:
        subprocess.run(
            [board.script, "ssh", board.name, "cat /home/pi/music.tar"],
            stdout=copy,
            check=True,
            timeout=300,
        )
    assert str(target.stat().st_size) == board.ssh("stat -c %s /home/pi/music.tar").stdout.strip()
    password = board.ssh("sudo cat /etc/music/secrets/superset_admin").stdout.strip()
    found = Before(target, counted, board.sql(STATE), board.sql(PLAYS), password, token, seconds)
    board.ssh("sudo systemctl start music-metrics music-producer")
    return found


def test_the_backup_is_whole_and_status_knows_it(board, before):
    said = board.ssh(f"sudo musicctl backup --verify {newest(board)}", timeout=600).stdout
    assert "restored beside, each equal" in said
    assert re.search(
        r"newest backup\W+\d+ (s|min) ago", board.ssh("sudo musicctl status", check=False).stdout
    )
    assert board.ssh("systemctl is-active music-backup.timer").stdout == "active\n"


def test_a_power_cut_while_backing_up_leaves_nothing_that_looks_whole(board, before):
    there = board.ssh("sudo ls /srv/backups").stdout.split()
    board.ssh("sudo systemctl start --no-block music-backup")
    wait_for("a backup at work", lambda: ".partial" in board.ssh("sudo ls /srv/backups").stdout, every=0.2)
    for verb in ("power-cut", "power-on"):
        subprocess.run([board.script, verb, board.name], check=True, timeout=300)
    left = board.ssh("sudo ls /srv/backups").stdout.split()
    assert [name for name in left if not name.endswith(".partial")] == there
    wait_for(
        "PostgreSQL", lambda: board.ssh("systemctl is-active music-postgres", check=False).returncode == 0
    )
    board.ssh("sudo systemctl start music-backup", timeout=600)
    assert ".partial" not in board.ssh("sudo ls /srv/backups").stdout


def test_what_kafka_holds_and_the_backup_does_not_is_counted_once(board, play, before):
    """Back to the backup on the same board: its job reads the plays since then again, from Kafka."""
    refused = play("playbooks/restore.yml", *SETTINGS, "-e", f"backup={before.file}")
    assert refused.returncode != 0
    assert "wanted a fresh board" in " ".join(refused.stdout.split()), refused.stdout[-3000:]
    done = play("playbooks/restore.yml", *SETTINGS, "-e", f"backup={before.file}", "-e", "restore_over=true")
    assert done.returncode == 0, done.stdout[-5000:]
    stand_still(board)
    recount(board)
    board.ssh("sudo musicctl validate")
    board.ssh("sudo systemctl start music-producer")


def test_a_fresh_board_gets_all_of_it(board, play, before):
    for verb in ("down", "up"):
        subprocess.run([board.script, verb, board.name], check=True, timeout=300)
    began = time.monotonic()
    # Nothing plays, so that every row can be compared.
    done = play(
        "playbooks/restore.yml",
        *SETTINGS,
        "-e",
        f"backup={before.file}",
        "-e",
        "pipeline_producer_enabled=false",
        timeout=1700,
    )
    print(f"restored in {time.monotonic() - began:.0f} s; a plain installation took {before.seconds:.0f} s")
    assert done.returncode == 0, done.stdout[-5000:]
    after = rows(board)
    # The topic is another one: where it begins is noted.
    differing = [name for name in before.rows if after.get(name) != before.rows[name]]
    assert differing == [], {name: (before.rows[name], after.get(name)) for name in differing}
    assert board.sql(STATE) == before.state
    assert board.sql(PLAYS) == before.plays
    assert time.monotonic() - began < before.seconds + 600


def test_logins_dashboards_and_tokens_are_the_old_ones(board, before):
    with board.superset("admin", before.password) as client:
        found = client.get("/api/v1/dashboard/ours")
        assert found.status_code == 200, found.text
    answer = board.ssh(f"curl -s 'http://127.0.0.1:8090/1/validate-token?token={before.token}'").stdout
    assert json.loads(answer)["user_name"] == "ada", answer


def test_ingest_goes_on(board, play, before):
    done = play("site.yml", *SETTINGS)
    assert done.returncode == 0, done.stdout[-5000:]
    plays = {source: int(count) for source, count in before.plays}
    wait_for("plays", lambda: int(board.sql(PLAYS)[0][1]) > plays["demo"], seconds=120)
    board.ssh("sudo musicctl validate")


def test_nothing_is_made_on_the_card_beneath_a_missing_disk(board, play, before):
    shown = board.ssh(
        "systemctl show --property RequiresMountsFor --value music-postgres music-kafka music-superset"
    )
    assert shown.stdout.split().count("/var/lib/music") == 3, shown.stdout
    board.ssh("echo 'LABEL=NOTHERE /var/lib/music ext4 nofail 0 0' | sudo tee -a /etc/fstab")
    try:
        done = play("site.yml", *SETTINGS)
    finally:
        board.ssh("sudo sed -i '/LABEL=NOTHERE/d' /etc/fstab; sudo systemctl daemon-reload")
    said = " ".join(done.stdout.split())
    assert done.returncode != 0
    assert "Found nothing mounted at /var/lib/music" in said, done.stdout[-3000:]
    assert "changed=0" in said


def test_removal_leaves_the_backups(board, play, before):
    board.ssh("sudo systemctl start music-backup", timeout=600)
    done = play("playbooks/remove.yml", "-e", "remove_data=true", "-e", "backup_place=/srv/backups")
    assert done.returncode == 0, done.stdout[-5000:]
    assert "the backups in /srv/backups" in " ".join(done.stdout.split())
    assert ".tar" in board.ssh("sudo ls /srv/backups").stdout
