"""The appliance is off the board; its data stayed until their removal was asked for."""

from __future__ import annotations


def test_no_unit_container_image_or_program_is_left(board):
    assert board.ssh("systemctl list-units --all --no-legend 'music*'").stdout.strip() == ""
    assert board.ssh("sudo docker ps -aq").stdout == ""
    assert board.ssh("sudo docker image ls -q 'music/*'").stdout == ""
    assert board.ssh("ls /usr/local/bin/musicctl /opt/music 2>/dev/null", check=False).stdout == ""


def test_data_and_secrets_stayed(board):
    assert "kafka" in board.ssh("sudo ls /var/lib/music").stdout
    assert "postgres_music_owner" in board.ssh("sudo ls /etc/music/secrets").stdout


def test_data_go_when_asked_for(board, play):
    done = play("playbooks/remove.yml", "-e", "remove_data=true")
    assert done.returncode == 0, done.stdout[-3000:]
    assert board.ssh("ls -d /var/lib/music /etc/music 2>/dev/null", check=False).stdout == ""
