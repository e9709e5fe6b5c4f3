"""The appliance is off the board; its data stayed until their removal was asked for."""

from __future__ import annotations


def test_no_unit_container_image_or_program_is_left(board):
    assert board.ssh("systemctl list-units --all --no-legend 'music*'").stdout.strip() == ""
    assert board.ssh("sudo docker ps -aq").stdout == ""
    assert board.ssh("sudo docker image ls -q 'music/*'").stdout == ""
    assert board.ssh("ls /usr/local/bin/musicctl /opt/music 2>/dev/null", check=False).stdout == ""
    # The owner's own CA certificates stay.
    left = board.ssh(
        "sudo find /etc /run -name '*music*' -not -path '/etc/music*' -not -path '/etc/ssl/*'"
    ).stdout
    assert left == ""
    assert board.ssh("ls /etc/music").stdout.split() == ["secrets"]


def test_only_ssh_is_open(board):
    rules = board.ssh("sudo ufw show added").stdout
    assert "music ssh" in rules
    assert rules.count("comment") == 1, rules


def test_data_and_secrets_stayed(board):
    assert "kafka" in board.ssh("sudo ls /var/lib/music").stdout
    assert "postgres_music_owner" in board.ssh("sudo ls /etc/music/secrets").stdout


def test_data_go_when_asked_for(board, play):
    done = play("playbooks/remove.yml", "-e", "remove_data=true")
    assert done.returncode == 0, done.stdout[-3000:]
    assert board.ssh("ls -d /var/lib/music /etc/music 2>/dev/null", check=False).stdout == ""
