"""playbooks/run.py where no board is needed: names, and who is in an inventory. The rest is in molecule/tests/test_login.py."""

from __future__ import annotations

import os
import subprocess

import pytest

import run
from docs import PROJECT
from login import Login, RefusedError


@pytest.mark.parametrize(
    ("own", "taken", "name"),
    [
        ("raspberrypi", set(), "music"),
        ("raspberrypi", {"music"}, "music-2"),
        ("raspberrypi", {"music", "music-2"}, "music-3"),
        ("jukebox", {"music"}, "jukebox"),
        ("jukebox", {"jukebox"}, "music"),
        ("kafka", {"kafka"}, "music"),
        ("no_host_name", set(), "music"),
        ("192", set(), "music"),
        ("", set(), "music"),
    ],
)
def test_a_board_keeps_the_name_that_its_owner_gave_it(own, taken, name):
    assert run.free_name(own, taken) == name


@pytest.mark.parametrize("name", ["-music", "music-", "music_box", "music.local", "12", "a" * 64, "mu sic"])
def test_name_that_is_no_host_name_is_refused_before_the_board_is_asked(name):
    with pytest.raises(RefusedError, match="NAME="):
        run.board_inventory("pi@192.0.2.10", name)


def test_hosts_of_groups_within_groups():
    tree = {
        "boards": {"children": ["kafka", "spark"]},
        "kafka": {"hosts": ["one", "two"]},
        "spark": {"children": ["workers"]},
        "workers": {"hosts": ["three"]},
        "others": {"hosts": ["four"]},
    }
    assert list(run.hosts_below(tree, "boards")) == ["one", "two", "three"]


def test_login_takes_what_an_inventory_says_of_ssh():
    login = Login.of(
        "music",
        {
            "ansible_host": "192.0.2.10",
            "ansible_user": "pi",
            "ansible_port": 2222,
            "ansible_ssh_private_key_file": "/k",
            "ansible_ssh_common_args": "-o UserKnownHostsFile=/h",
        },
    )
    assert login.destination == "pi@192.0.2.10"
    assert login.options == ("-o", "IdentityFile=/k", "-o", "Port=2222", "-o", "UserKnownHostsFile=/h")
    assert Login.of("music.local", {}).destination == "music.local"


def test_ansible_runs_whatever_the_computer_speaks():
    """LC_ALL=C, as over ssh from a machine of another language: Ansible refuses what is not UTF-8."""
    done = subprocess.run(
        ["make", "--no-print-directory", "--eval", "version: ; @ansible --version", "version"],
        cwd=PROJECT,
        env=os.environ | {"LC_ALL": "C"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("ansible [core")
