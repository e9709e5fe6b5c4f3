"""A bare board: what cannot work is refused by name before anything is changed; a dry run passes."""

from __future__ import annotations

import json
import re

import pytest

from conftest import BARE
from snapshot import changes

REFUSALS = [
    ("pipeline_producer_rate=quick", "pipeline_producer_rate"),
    ("pipeline_producer_rate=6000", "at most 5000"),
    ("kafka_partitoins=3", "kafka_partitoins"),
    ("image_epok=next", "perhaps image_epoch"),
    ("music_data_rot=/srv", "perhaps music_data_root"),
    ("base_extra_ca_certs=[]", "perhaps base_extra_ca_certificates"),
    ("bord_hostname=music", "perhaps board_hostname"),
    ("music_kafka_port=many", "music_kafka_port"),
    ("music_superset_port=80", "music_superset_port 80, wanted 1024 to 65535"),
    ("music_postgres_port=8088", "music_superset_port and music_postgres_port"),
    ("music_images_archive=/none.tar", "Found no file /none.tar, wanted music-images-"),
    ("music_images_archive=label:NOTHERE", "Found no disk with the label NOTHERE"),
    ("base_extra_ca_certificates=['/none.crt']", "Found /none.crt"),
    ("superset_bind_address=192.0.2.9", "Found superset_bind_address 192.0.2.9"),
    ("music_display_time_zone=US/Eastern", "wanted America/New_York"),
    ("music_display_time_zone=Mars/Olympus", "such as Europe/Berlin"),
    ("board_min_memory_mb=9999999", "wanted 9999999 MB"),
    ("board_min_disk_mb=99999999", "wanted 99999999 MB"),
    ("pipeline_demo_retention_days=999999", "metrics of demo plays 15293600, demo plays 14320000"),
    ("firewall_dashboard_sources=['home']", "firewall_dashboard_sources"),
    ("ansible_port=2222", "Connection refused"),
    ("ansible_become_password=", "--ask-become-pass"),
    ("ansible_become_password=wrong", "right password"),
    ("board_hostname=music_box", "board_hostname"),
]


@pytest.mark.parametrize(("setting", "words"), REFUSALS, ids=[setting for setting, _ in REFUSALS])
def test_refused_by_name_before_any_change(play, setting, words):
    name, _, value = setting.partition("=")
    extra = f"{{{name}: {value}}}"
    done = play("site.yml", "-e", extra)
    assert done.returncode != 0, done.stdout
    assert words in " ".join((done.stdout + done.stderr).split()), done.stdout[-3000:]
    assert re.findall(r"changed=(\d+)", done.stdout) in (["0"], []), done.stdout[-3000:]


def test_32_bit_userland_is_refused(board, play):
    # dpkg is asked, since a 64-bit kernel may carry a 32-bit system.
    board.ssh(
        "printf '#!/bin/sh\\necho armhf\\n' | sudo tee /usr/local/bin/dpkg >/dev/null && sudo chmod +x /usr/local/bin/dpkg"
    )
    try:
        done = play("site.yml")
    finally:
        board.ssh("sudo rm /usr/local/bin/dpkg")
    assert done.returncode != 0
    assert "Found the architecture armhf" in done.stdout, done.stdout[-3000:]
    assert "changed=0" in done.stdout


def test_port_of_another_program_is_refused(board, play):
    board.ssh("sudo systemd-run --unit=squatter python3 -m http.server 8088")
    try:
        done = play("site.yml")
    finally:
        board.ssh("sudo systemctl stop squatter")
    assert done.returncode != 0
    assert "port 8088" in done.stdout, done.stdout[-3000:]
    assert "changed=0" in done.stdout


def test_the_comparison_sees_what_a_run_could_change(board):
    before = board.snapshot()
    board.ssh(
        "sudo sh -ec 'cp -a /etc/passwd /run/passwd; echo canary:x:999:999::/:/bin/sh >>/etc/passwd; mkdir /opt/canary;"
        ' printf "[Service]\\nExecStart=true\\n" >/etc/systemd/system/canary.service; chmod 600 /etc/issue;'
        ' sed -i "s/^Status: install ok/Status: hold ok/" /var/lib/dpkg/status\''
    )
    try:
        seen = changes(before, board.snapshot())
    finally:
        board.ssh(
            "sudo sh -ec 'mv /run/passwd /etc/passwd; rmdir /opt/canary; rm /etc/systemd/system/canary.service;"
            ' chmod 644 /etc/issue; sed -i "s/^Status: hold ok/Status: install ok/" /var/lib/dpkg/status\''
        )
    for change in (
        "files /etc/passwd:",
        "files /opt/canary: absent became",
        "files /etc/issue: -rw-r--r-- ",
        "units canary.service: absent became",
        "users canary: absent became",
        "packages bash:",
    ):
        assert [line for line in seen if line.startswith(change)], (change, seen)
    assert changes(before, board.snapshot()) == []


def test_a_dry_run_passes_and_changes_nothing(board, play):
    # The name that it comes with, as removal has to give it back.
    board.ssh(
        "sudo sh -ec 'sed -i \"s/^127.0.1.1.*/127.0.1.1 raspberrypi/\" /etc/hosts; hostnamectl hostname raspberrypi'"
    )
    before = board.snapshot()
    done = play("site.yml", "--check", "--diff")
    assert done.returncode == 0, done.stdout[-5000:]
    assert changes(before, board.snapshot()) == []
    BARE.write_text(json.dumps(before), encoding="utf-8")


# In the difference that a dry run tells, of settings that would cost an image or the history of a board that is set up.
ARRIVES = [
    "listening-room", "User=audience", "--user 6001:6001", "--user 6002:6002", "--user 6003:6003", "--user 6004:6004",
    "/srv/music/kafka", "CONTROLLER://127.0.0.1:19093", "CLIENT://127.0.0.1:19092", "port = 15432",
    "spark://127.0.0.1:17077", "master_web_port = 18080", '"18081"', "[::]:18088", "port = 18090", "executor_cores = 1",
    "history_days = 10", "listeners = 2500", '"fr_FR", "ko_KR"', 'pace = "model"', "seed = 43",
    'MUSIC_ADMIN_USER = "owner"', "OnCalendar=*-*-* 02:15:00", 'place = "label:BACKUP"', "daily = 3", "weekly = 8",
    'copy_to = "owner@nas.example:music"', "nightly = false",
]  # fmt: skip


def test_settings_arrive_in_a_dry_run(play):
    done = play("site.yml", "--check", "--diff", "-e", "@molecule/default/settings.yml")
    assert done.returncode == 0, done.stdout[-5000:]
    assert [words for words in ARRIVES if words not in done.stdout] == []
