"""A board's data go from its card to a disk: refused where they cannot, killed on the way, none is missing."""

from __future__ import annotations

import os
import signal
import subprocess

import pytest

from conftest import (
    PROJECT,
    board_of_a_story,
    playbook_command,
    recount,
    run_playbook,
    stand_still,
    wait_for,
    wait_until_healthy,
)

# A disk of memory: the board has no other. fstab names it, as it would a real one.
DISK = "tmpfs /mnt/disk tmpfs size=8g,mode=755 0 0"
OLD, NEW = "/var/lib/music", "/mnt/disk/music"
MOVE = ("playbooks/move.yml", "-e", f"move_to={NEW}", "-e", "pipeline_history_days=0")
SITE = ("site.yml", "-e", "pipeline_history_days=0")
ACCEPTED = "SELECT coalesce(sum(accepted), 0) FROM ingest_totals"


board = board_of_a_story("moved")


@pytest.fixture(scope="module")
def inventory(board, inventory) -> str:
    """The board set up, with plays in its tables."""
    done = run_playbook(inventory, *SITE)
    assert done.returncode == 0, done.stdout[-5000:]
    # At people's pace 0.4 come in a second.
    wait_for("plays", lambda: int(board.sql(ACCEPTED)[0][0]) > 30, seconds=300)
    return inventory


@pytest.mark.parametrize(
    ("to", "words"),
    [
        ("/srv/music", "on the disk of /var/lib/music, wanted another one"),
        (f"{OLD}/in", "in /var/lib/music itself"),
    ],
)
def test_a_folder_that_is_no_other_disk_is_refused(inventory, to, words):
    done = run_playbook(inventory, "playbooks/move.yml", "-e", f"move_to={to}")
    assert done.returncode != 0
    assert words in " ".join(done.stdout.split()), done.stdout[-3000:]
    assert "changed=0" in done.stdout


@pytest.fixture(scope="module")
def disk(board, inventory) -> None:
    """The disk, first without its line in fstab, which is refused."""
    kind, at, *_ = DISK.split()
    board.ssh(f"sudo sh -ec 'mkdir {at}; mount -t {kind} -o size=8g,mode=755 {kind} {at}'")
    done = run_playbook(inventory, *MOVE)
    assert done.returncode != 0
    assert "found no line for /mnt/disk in /etc/fstab" in " ".join(done.stdout.split()), done.stdout[-3000:]
    assert "changed=0" in done.stdout
    board.ssh(f"sudo sh -ec 'echo {DISK} >>/etc/fstab; systemctl daemon-reload'")


def test_a_run_that_is_killed_while_nothing_plays_loses_nothing(board, inventory, disk):
    """Killed once Kafka is stopped; what the board then does by itself goes on."""
    argv, environment = playbook_command(inventory, *MOVE)
    with subprocess.Popen(
        argv, cwd=PROJECT, env=environment, stdout=subprocess.DEVNULL, start_new_session=True
    ) as running:
        try:
            wait_for(
                "Kafka to be stopped for the copy",
                lambda: (
                    board.ssh("systemctl is-active music-kafka", check=False).stdout.strip() == "inactive"
                    or running.poll() is not None
                ),
                seconds=300,
                every=0.5,
            )
            assert running.poll() is None, "the run was over before it could be killed"
        finally:
            os.killpg(running.pid, signal.SIGKILL)
    assert board.ssh(f"sudo cat {NEW}/.moving-from").stdout == f"{OLD}\n"
    wait_for(
        "what the run had begun to end",
        # In brackets, as the shell that asks has the same words.
        lambda: board.ssh("pgrep --full 'ansible-tmp.*/([s]top|[c]opy)'", check=False).returncode != 0,
        seconds=120,
    )
    # As a start of the board does.
    board.ssh("sudo systemctl start music.target music-producer", timeout=300)
    wait_until_healthy(board)


def test_the_next_run_takes_every_play_to_the_disk(board, inventory, disk):
    before = int(board.sql(ACCEPTED)[0][0])
    done = run_playbook(inventory, *MOVE)
    assert done.returncode == 0, done.stdout[-5000:]
    told = " ".join(done.stdout.split())
    assert f"music_data_root: {NEW}" in told
    assert f"sudo rm -r {OLD}" in told
    assert int(board.sql(ACCEPTED)[0][0]) >= before
    stand_still(board)
    recount(board)
    assert board.sql("SELECT count(*) FROM ingest_gaps") == [["0"]]
    board.ssh("sudo systemctl start music-producer")
    board.ssh("sudo musicctl validate")
    wait_until_healthy(board)
    shown = board.ssh("systemctl show --property RequiresMountsFor --value music-kafka music-postgres").stdout
    assert shown.split().count(NEW) == 2, shown
    assert ".moving-from" not in board.ssh(f"sudo ls -A {NEW}").stdout


def test_nothing_is_written_where_the_data_were(board, inventory, disk):
    """Neither by the services at work nor by a run with the old setting, which is refused."""
    board.ssh("sudo touch /run/moved")
    done = run_playbook(inventory, *SITE)
    assert done.returncode != 0
    assert f"Found the data of moved in {NEW}" in " ".join(done.stdout.split()), done.stdout[-3000:]
    assert "changed=0" in done.stdout
    accepted = int(board.sql(ACCEPTED)[0][0])
    wait_for("more plays", lambda: int(board.sql(ACCEPTED)[0][0]) > accepted, seconds=60)
    assert board.ssh(f"sudo find {OLD} -newer /run/moved").stdout == ""


def test_with_the_line_in_the_inventory_nothing_changes_and_the_old_folder_may_go(board, inventory, disk):
    board.ssh(f"sudo rm -r {OLD}")
    line = ("-e", f"music_data_root={NEW}")
    done = run_playbook(inventory, *SITE, *line)
    assert done.returncode == 0, done.stdout[-5000:]
    assert "changed=0" in done.stdout, done.stdout[-5000:]
    again = run_playbook(inventory, *MOVE, *line)
    assert again.returncode == 0, again.stdout[-5000:]
    assert "as the inventory says" in " ".join(again.stdout.split())
