"""The next board, which has no way out: set up from one archive that a board with a network wrote."""

from __future__ import annotations

import functools
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from conftest import PROJECT, Board, board_of_a_story, run_playbook

Play = Callable[..., subprocess.CompletedProcess[str]]
# In no cache: what is loaded then comes from the archive.
ALONE = ("-e", "music_images_cache=")


board = board_of_a_story("offline")


@pytest.fixture(scope="module")
def play(inventory) -> Play:
    return functools.partial(run_playbook, inventory, timeout=1500)


@pytest.fixture(scope="module")
def archive(board, play) -> Iterator[Path]:
    """What a board that is set up wrote for the next one."""
    done = play("site.yml")
    assert done.returncode == 0, done.stdout[-5000:]
    there = set(PROJECT.glob("music-images-*.tar"))
    done = play("playbooks/images.yml")
    assert done.returncode == 0, done.stdout[-5000:]
    (made,) = set(PROJECT.glob("music-images-*.tar")) - there
    print(f"{made.name}: {made.stat().st_size / 1e6:.0f} MB")
    yield made
    made.unlink()


@pytest.fixture(scope="module")
def next_board(board, archive) -> Board:
    """Another card, without a route and without a resolver."""
    for verb in ("down", "up"):
        board.power(verb)
    # What makes a stick's file system, as a Pi has it.
    board.ssh("sudo apt-get update -q && sudo apt-get install -y -q e2fsprogs", timeout=300)
    board.ssh(
        "sudo sh -c 'ip route del default; ip -6 route del default || true; : >/etc/resolv.conf; rm -rf /var/lib/apt/lists/*'"
    )
    assert board.ssh("curl --version; getent hosts deb.debian.org", check=False).returncode != 0
    return board


def test_a_board_without_a_way_out_is_set_up(next_board, play, archive):
    done = play("site.yml", *ALONE, "-e", f"music_images_archive={archive}")
    assert done.returncode == 0, done.stdout[-5000:]
    next_board.ssh("sudo musicctl validate")
    assert next_board.ssh("systemctl is-active music.target").stdout == "active\n"


def test_nothing_of_the_archive_is_left(next_board):
    left = next_board.ssh(
        "ls -d /var/tmp/music-* /run/music-archive; find /etc/apt -newer /etc/machine-id -type f", check=False
    )
    assert left.stdout.split() == ["/etc/apt/apt.conf.d/90music-lock"], left.stdout


def test_again_needs_no_archive_and_changes_nothing(next_board, play):
    done = play("site.yml", *ALONE)
    assert done.returncode == 0, done.stdout[-5000:]
    assert "changed=0" in done.stdout, done.stdout[-3000:]


def test_the_app_comes_from_a_disk_of_the_board(next_board, play, archive):
    """As from a USB stick: found by its label, mounted to be read, and let go."""
    size = archive.stat().st_size // 2**20 + 200
    next_board.ssh(
        f"sudo sh -ec 'truncate -s {size}M /srv/stick.img; mkfs.ext4 -q -L NEXT /srv/stick.img;"
        " [ -e /dev/loop7 ] || mknod /dev/loop7 b 7 7; losetup /dev/loop7 /srv/stick.img; mkdir /mnt/s; mount /dev/loop7 /mnt/s'",
        timeout=300,
    )
    with archive.open("rb") as content:
        subprocess.run(
            [next_board.script, "ssh", next_board.name, f"sudo -A tee /mnt/s/{archive.name} >/dev/null"],
            stdin=content,
            check=True,
            timeout=600,
        )
    next_board.ssh(
        "sudo sh -ec 'umount /mnt/s; systemctl stop music.target music\\*; rm -r /opt/music/app-*; docker image rm $(docker image ls -q music/kafka)'"
    )
    done = play("site.yml", *ALONE, "-e", "music_images_archive=label:NEXT")
    assert done.returncode == 0, done.stdout[-5000:]
    assert next_board.ssh("ls /run/music-archive").stdout == ""
    next_board.ssh("sudo musicctl validate")
