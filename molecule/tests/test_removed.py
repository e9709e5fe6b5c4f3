"""Images pruned, then the appliance off the board, back on the data that it kept, and off again with them.

What is left each time is compared with the board as it was before anything was installed.
"""

from __future__ import annotations

import json
import re
from typing import NamedTuple

import pytest

from conftest import BARE, CONTAINERS, UNITS, Board, problems, stand_still, wait_for, wait_until_healthy
from snapshot import OF_THE_SYSTEM, changes

# Kafka takes no partitions away, and the story "edited" has made six.
AS_EDITED = ("-e", "pipeline_topic_partitions=6")
# What other stories have installed and left.
GUESTS = "exfat-fuse exfatprogs libfaketime"
# Accounts that own data or a secret stay, and with them their lines.
OF_THE_DATA = r"files (/etc/music|/var/lib/music)[/:]|files /etc/(passwd|group|shadow|gshadow): |(users|groups) music(-[a-z]+)?: absent"


@pytest.fixture(scope="module", autouse=True)
def _without_guests(board: Board) -> None:
    board.ssh(
        f"sudo sh -c 'apt-get purge -y -q --auto-remove {GUESTS}; rm -rf /root/secrets-before /mnt/stick /run/board-tests'",
        timeout=300,
    )


class Before(NamedTuple):
    """A moment; the plays stored until then, how many came twice, and what status found wrong."""

    until: str
    plays: list[list[str]]
    twice: int
    problems: set[str]


@pytest.fixture(scope="module")
def before(board: Board) -> Before:
    """What the other stories have left, among it the losses that the faults wanted."""
    stand_still(board, seconds=60)
    until = board.sql("SELECT now()")[0][0]
    return Before(until, plays(board, until), twice(board), problems(board))


def plays(board: Board, until: str) -> list[list[str]]:
    """Plays stored until then, by source: how many, and a sum over their ids."""
    return board.sql(
        "SELECT source, count(*), sum(hashtextextended(event_id::text, 0)) FROM stream_events"
        f" WHERE ingested_at <= '{until}' GROUP BY source ORDER BY source"
    )


def twice(board: Board) -> int:
    """How many plays came again, ever."""
    return int(board.sql("SELECT sum(duplicates) FROM ingest_totals")[0][0])


def left(board: Board, allowed: str) -> list[str]:
    """What differs from the bare board and is not allowed to."""
    bare = json.loads(BARE.read_text(encoding="utf-8"))
    return [line for line in changes(bare, board.snapshot()) if not re.match(allowed, line)]


def test_a_unit_without_its_image_says_so_and_does_not_start_for_ever(board, before):
    board.ssh("sudo systemctl stop 'music*'")
    board.ssh("sudo docker system prune --all --force", timeout=300)
    board.ssh("sudo systemctl start --no-block music.target")
    wanted = {f"music-{name}.service" for name in CONTAINERS}

    def failed() -> set[str]:
        out = board.ssh("systemctl list-units --plain --no-legend --state failed 'music-*'").stdout
        return {line.split()[0] for line in out.splitlines()}

    wait_for("every container's unit to have failed", lambda: failed() == wanted)
    for unit in sorted(wanted):
        shown = board.ssh(f"systemctl show --property StatusText,NRestarts,ExecMainStatus {unit}").stdout
        assert "StatusText=image missing: run site.yml" in shown, shown
        assert "ExecMainStatus=78" in shown, shown
        said = board.ssh(f"sudo journalctl -u {unit} -n 20 -o cat").stdout
        assert "image missing: run site.yml (found no music/" in said, said
    status = board.ssh("sudo musicctl status", check=False)
    assert status.returncode != 0
    told = " ".join(status.stdout.split())
    for unit in wanted:
        name = unit.removesuffix(".service")
        assert f"{name}: found its image missing, wanted it in Docker. Remedy: run site.yml" in told, (
            status.stdout
        )


def test_site_brings_the_images_back_without_a_network(board, play):
    (route,) = board.ssh("ip route show default").stdout.strip().splitlines()
    board.ssh(f"sudo ip route del {route}")
    try:
        assert board.ssh("ping -c 1 -W 2 1.1.1.1", check=False).returncode != 0
        done = play("site.yml", *AS_EDITED)
        assert board.ssh("ip route show default").stdout == ""
    finally:
        board.ssh(f"sudo ip route add {route}")
    assert done.returncode == 0, done.stdout[-5000:]
    states = board.ssh(f"systemctl is-active {' '.join(UNITS)}", check=False).stdout.split()
    assert states == ["active"] * len(UNITS)


def test_removal_keeps_data_and_says_what_is_left(board, play):
    done = play("playbooks/remove.yml")
    assert done.returncode == 0, done.stdout[-5000:]
    told = " ".join(done.stdout.replace("-", " ").split())
    for words in ("Data stay under /var/lib/music", "The board is as it was before, but for"):
        assert words in told, done.stdout[-3000:]
    for account in ("kafka", "postgres", "superset"):
        assert f"the account music {account}, which owns data" in told, done.stdout[-3000:]
    assert "kafka" in board.ssh("sudo ls /var/lib/music").stdout
    assert "postgres_music_owner" in board.ssh("sudo ls /etc/music/secrets").stdout


def test_the_board_is_as_before_but_for_the_data(board):
    assert left(board, f"{OF_THE_SYSTEM}|{OF_THE_DATA}") == []


@pytest.mark.parametrize(
    ("make", "words", "unmake"),
    [
        (
            "touch /var/lib/music/mine /var/lib/music/kafka/mine",
            ["did not make /var/lib/music/mine", "not of music-kafka is /var/lib/music/kafka/mine"],
            "rm /var/lib/music/mine /var/lib/music/kafka/mine",
        ),
        ("touch /etc/music/mine", ["did not make /etc/music/mine"], "rm /etc/music/mine"),
        (
            "mount --bind /var/lib/music /var/lib/music",
            ["/var/lib/music is a mount point"],
            "umount /var/lib/music",
        ),
    ],
    ids=["strangers", "strangers beside the secrets", "mount point"],
)
def test_data_among_strangers_are_not_removed(board, play, make, words, unmake):
    board.ssh(f"sudo sh -ec '{make}'")
    try:
        done = play("playbooks/remove.yml", "-e", "remove_data=true")
    finally:
        board.ssh(f"sudo sh -ec '{unmake}'")
    assert done.returncode != 0
    for wanted in words:
        assert wanted in " ".join(done.stdout.split()), done.stdout[-3000:]
    assert "changed=0" in done.stdout


def test_the_root_of_the_file_system_is_no_data_folder(play):
    done = play("playbooks/remove.yml", "-e", "remove_data=true", "-e", "music_data_root=/")
    assert done.returncode != 0
    assert "/ is the root of the file system" in done.stdout
    assert "changed=0" in done.stdout


def test_it_returns_to_its_data(board, play, before):
    """The same numbers, and the history is not sent twice."""
    done = play("site.yml", *AS_EDITED)
    assert done.returncode == 0, done.stdout[-5000:]
    assert plays(board, before.until) == before.plays
    # The audience, which plays again, sends a few twice on purpose.
    grown = twice(board) - before.twice
    new = int(board.sql(f"SELECT count(*) FROM stream_events WHERE ingested_at > '{before.until}'")[0][0])
    assert grown <= new
    wait_until_healthy(board, but=before.problems)
    board.ssh("sudo musicctl validate")


def test_all_goes_when_asked_for(board, play):
    done = play("playbooks/remove.yml", "-e", "remove_data=true")
    assert done.returncode == 0, done.stdout[-5000:]
    assert "Data and secrets are gone." in done.stdout
    assert left(board, OF_THE_SYSTEM) == []
