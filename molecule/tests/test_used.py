"""A board that its owner uses for other things: what is not the appliance's is refused by name, and stays."""

from __future__ import annotations

import functools
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from conftest import Board, run_playbook, wait_for

# The play of the checks before the first change, and nothing else.
CHECKS = ("site.yml", "--tags", "always")
VOTERS = '{"leaderId":1,"leaderEpoch":1,"votedId":-1,"appliedOffset":0,"currentVoters":[{"voterId":1}],"data_version":0}'

# In place of dpkg-deb: zstd is never unpacked to its end.
HANGS = """\
#!/bin/sh
case "$*" in *--fsys-tarfile*zstd*) touch /run/unpacking; exec sleep infinity;; esac
exec /usr/bin/dpkg-deb.whole "$@"
"""


@pytest.fixture(scope="module")
def board() -> Iterator[Board]:
    """A bare board of these tests' own."""
    board = Board("used")
    for verb in ("down", "up"):
        subprocess.run([board.script, verb, board.name], check=True, timeout=300)
    yield board
    subprocess.run([board.script, "down", board.name], check=True, timeout=300)


@pytest.fixture(scope="module")
def inventory(board, tmp_path_factory) -> Path:
    found = subprocess.run(
        [board.script, "inventory", board.name], check=True, timeout=60, capture_output=True, text=True
    )
    file: Path = tmp_path_factory.mktemp("inventory") / "used.yml"
    file.write_text(found.stdout, encoding="utf-8")
    return file


@pytest.fixture
def play(inventory) -> Callable[..., subprocess.CompletedProcess[str]]:
    return functools.partial(run_playbook, str(inventory))


def refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """The run has ended before its first change, and its message has all these words."""
    said = " ".join(done.stdout.split())
    assert done.returncode != 0, done.stdout[-3000:]
    assert "changed=0" in said, done.stdout[-3000:]
    assert [word for word in words if word not in said] == [], done.stdout[-3000:]


def test_more_brokers_than_at_the_first_run_are_refused(board, inventory, tmp_path):
    """Three boards of which the first has a lone broker's data; here all three are one board with three folders."""
    board.ssh(
        "sudo sh -ec 'mkdir -p /var/lib/music/kafka/__cluster_metadata-0; cd /var/lib/music/kafka;"
        " echo cluster.id=AAAAAAAAAAAAAAAAAAAAAQ >meta.properties; cat >__cluster_metadata-0/quorum-state'"
        f" <<'STATE'\n{VOTERS}\nSTATE"
    )
    try:
        hosts = yaml.safe_load(inventory.read_text(encoding="utf-8"))
        alone = hosts["all"]["hosts"]["used"]
        for name in ("second", "third"):
            hosts["all"]["hosts"][name] = alone | {"music_data_root": f"/srv/{name}"}
            hosts["boards"]["children"]["kafka"]["hosts"][name] = {}
        three = tmp_path / "three.yml"
        three.write_text(yaml.safe_dump(hosts), encoding="utf-8")
        done = run_playbook(str(three), *CHECKS)
        refused(done, "quorum of 1 controller(s) in /var/lib/music/kafka of used, wanted 3", "empty log")
        assert done.stdout.count("changed=0") == 3
        # As it was at the first run it goes on.
        alone_again = run_playbook(str(inventory), *CHECKS)
        assert alone_again.returncode == 0, alone_again.stdout[-3000:]
    finally:
        board.ssh("sudo rm -r /var/lib/music")


def test_a_board_that_was_unplugged_while_apt_worked_is_mended(board, play):
    """One package half-installed, others unpacked only, and changes that dpkg had noted for itself."""
    board.ssh(
        "sudo sh -ec 'apt-get update -q; mv /usr/bin/dpkg-deb /usr/bin/dpkg-deb.whole; cat >/usr/bin/dpkg-deb;"
        " chmod +x /usr/bin/dpkg-deb; systemd-run --quiet --collect --unit unplugged --setenv DEBIAN_FRONTEND=noninteractive"
        f" apt-get install -y --no-install-recommends curl logrotate zstd' <<'SCRIPT'\n{HANGS}SCRIPT",
        timeout=300,
    )
    wait_for(
        "a package half unpacked", lambda: not board.ssh("test -e /run/unpacking", check=False).returncode
    )
    for verb in ("power-cut", "power-on"):
        subprocess.run([board.script, verb, board.name], check=True, timeout=300)
    board.ssh("sudo mv /usr/bin/dpkg-deb.whole /usr/bin/dpkg-deb")
    left = board.ssh("sudo apt-get install -y zstd", check=False)
    assert "dpkg was interrupted" in left.stderr, left
    half = board.ssh("dpkg-query -W -f '${db:Status-Eflag} ${Package}\\n' | grep reinstreq").stdout
    assert half == "reinstreq zstd\n"
    done = play("site.yml", "--tags", "board")
    assert done.returncode == 0, done.stdout[-3000:]
    assert board.ssh(
        "sudo dpkg --audit; ls /var/lib/dpkg/updates; zstd --version | grep -o Zstandard"
    ).stdout == ("Zstandard\n")


def test_accounts_of_others_are_refused_by_name_and_stay(board, play):
    board.ssh(
        "sudo sh -ec 'useradd --create-home --shell /bin/bash --groups sudo music; echo music:secret | chpasswd;"
        " groupadd --gid 5003 posts; useradd --uid 5001 --gid posts neighbour'"
    )
    accounts = "sudo cat /etc/passwd /etc/group /etc/shadow"
    before = board.ssh(accounts).stdout
    refused(play(*CHECKS), "Found 5001 in use", "by the account neighbour;", "Set kafka_uid")
    settings = ["-e", "kafka_uid=5011"]
    refused(play(*CHECKS, *settings), "Found 5003 in use", "by the group posts;", "Set postgres_uid")
    settings += ["-e", "postgres_uid=5013"]
    words = "logs in with /bin/bash, has the home /home/music, has a password, is in sudo"
    refused(play(*CHECKS, *settings), f"Found the account music on used, which {words}", "Set pipeline_user")
    assert board.ssh(accounts).stdout == before
    settings += ["-e", "pipeline_user=music-player"]
    done = play(*CHECKS, *settings)
    assert done.returncode == 0, done.stdout[-3000:]


def test_an_account_of_an_earlier_installation_passes(board, play):
    """With the group of its name, and even with another number; but in no other group."""
    board.ssh(
        "sudo sh -ec 'userdel --remove music 2>/dev/null; userdel neighbour; groupdel posts;"
        " for name in music music-kafka; do useradd --system --user-group --home-dir /nonexistent"
        " --shell /usr/sbin/nologin $name; done'"
    )
    done = play(*CHECKS)
    assert done.returncode == 0, done.stdout[-3000:]
    board.ssh("sudo usermod --groups video music-kafka")
    try:
        refused(play(*CHECKS), "Found the account music-kafka on used, which is in video;")
    finally:
        board.ssh("sudo sh -ec 'userdel music; userdel music-kafka'")
