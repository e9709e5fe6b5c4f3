"""What playbooks/move.yml asks and does on a board: its scripts, with disks of memory in a mount namespace of their own."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from docs import PROJECT

SCRIPTS = PROJECT / "roles/_move/files"
# Units and fstab of a board, and a disk at $BOARD/disk.
SURROUND = """
set -eu
mount --bind "$BOARD/units" /etc/systemd/system
mount --bind "$BOARD/fstab" /etc/fstab
mount -t tmpfs -o "size=$SIZE" tmpfs "$BOARD/disk"
"""


class Board:
    """A folder with the data of an appliance, and a disk."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.old, self.new = folder, folder / "card/music", folder / "disk/music"
        for name in ("units", "disk", "card/music/kafka"):
            (folder / name).mkdir(parents=True)
        (folder / "fstab").write_text(f"LABEL=DISK {folder}/disk ext4 nofail 0 2\n")
        self.unit(self.old)
        (self.old / "kafka/log").write_bytes(os.urandom(100_000))
        (self.old / "kafka/log").chmod(0o640)
        (self.old / "lost+found").mkdir()

    def unit(self, data: Path, name: str = "kafka") -> None:
        text = f"[Unit]\nRequiresMountsFor={data}\n"
        (self.folder / f"units/music-{name}.service").write_text(text)

    def run(self, script: str, *, size: str = "3g") -> str:
        """What a shell script prints in the board's surroundings; LOOK, COPY, OLD and NEW are set."""
        names = {"BOARD": self.folder, "SIZE": size, "OLD": self.old, "NEW": self.new}
        names |= {"LOOK": SCRIPTS / "look", "COPY": SCRIPTS / "copy"}
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-c", SURROUND + script],
            env=os.environ | {name: str(value) for name, value in names.items()},
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture
def board(tmp_path: Path) -> Board:
    return Board(tmp_path)


LOOK = '"$LOOK" "$OLD" "$NEW" vfat exfat'


def test_a_disk_that_can_have_them(board):
    (line,) = board.run(LOOK).splitlines()
    assert line.startswith("bytes: ")
    assert int(line.removeprefix("bytes: ")) >= 100_000


@pytest.mark.parametrize(
    ("before", "words"),
    [
        ('umount "$BOARD/disk"', "on the disk of"),
        (": >/etc/fstab", "found no line for"),
        ('mount -t tmpfs -o remount,ro tmpfs "$BOARD/disk"', "mounted read-only"),
        ('mkdir "$NEW"; touch "$NEW/mine"', "wanted an empty folder"),
        ('mkdir "$NEW"; echo /other >"$NEW/.moving-from"', "wanted an empty folder"),
        ('mkdir "$OLD/in"; mount -t tmpfs tmpfs "$OLD/in"', "found the mount point"),
        ("rm /etc/systemd/system/music-kafka.service", "found no appliance"),
        ("sed -i s,card,usb, /etc/systemd/system/music-kafka.service", "wanted"),
        ('NEW="$OLD/kafka/in"', "in"),
    ],
)
def test_what_cannot_have_them_is_refused(board, before, words):
    found = board.run(f"{before}\n{LOOK}")
    assert found.startswith("refused: found ")
    assert words in found
    assert ", wanted " in found


def test_a_small_disk_and_one_that_keeps_no_owners_are_refused(board):
    assert " MB of room at " in board.run(LOOK, size="500m")
    assert "found the file system tmpfs" in board.run(LOOK.replace("vfat", "tmpfs"))


def test_the_switch_that_was_begun_is_seen(board):
    board.unit(board.new, "postgres")
    assert board.run(LOOK) == "switched\n"


def test_the_copy_is_equal_and_goes_on_where_it_was_cut_off(board):
    said = board.run(
        'mkdir "$NEW" "$NEW/lost+found"; echo "$OLD" >"$NEW/.moving-from"; echo gone >"$NEW/gone"\n'
        '"$COPY" at-work "$OLD" "$NEW"\n'
        f"{LOOK}\n"
        'echo more >>"$OLD/kafka/log"; "$COPY" at-rest "$OLD" "$NEW"\n'
        '"$COPY" compare "$OLD" "$NEW"; echo compared\n'
        'cmp "$OLD/kafka/log" "$NEW/kafka/log"; stat -c %a "$NEW/kafka/log"; ls -A "$NEW"\n'
        # Of the same size and time.
        'printf x | dd of="$NEW/kafka/log" conv=notrunc status=none; touch -r "$OLD/kafka/log" "$NEW/kafka/log"\n'
        '"$COPY" compare "$OLD" "$NEW"\n'
    ).splitlines()
    assert said[0].startswith("bytes: ")
    assert said[1:6] == ["compared", "640", ".moving-from", "kafka", "lost+found"]
    (differs,) = said[6:]
    assert differs.endswith(" kafka/log")
