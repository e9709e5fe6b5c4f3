"""A backup of a real PostgreSQL: whole or not there, refused before it fills a disk, and every row of it back."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from boards import PASSPHRASE, take
from click.testing import CliRunner

from music_streaming import cli
from music_streaming.backup import copying, databases, place, taking
from music_streaming.backup.archive import BackupError, Reader
from music_streaming.board.status import counted
from music_streaming.testing import wait_for

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system of its own")


def test_it_holds_one_moment_of_both_databases_and_what_belongs_to_it(board, database, metadata):
    steps = []
    taken = take(
        board, passphrase=PASSPHRASE, progress=lambda name, done, total: steps.append((name, done, total))
    )
    assert taken.path.stat().st_size == taken.size
    assert oct(taken.path.stat().st_mode)[-3:] == "600"
    reader = Reader(taken.path)
    assert reader.names() == [
        f"{database.name}.dump",
        f"{metadata.name}.dump",
        "files.tar",
        "secrets.tar.age",
    ]
    manifest = reader.manifest
    assert manifest.position == [("stream_events", 0, "abcdefg", 5001)]
    assert "011_backups.sql" in manifest.migrations
    assert manifest.databases[database.name].tables["public.stream_events_own"].rows == 5000
    assert manifest.databases[metadata.name].tables["public.dashboards"].rows == 1
    assert manifest.databases[database.name].owner == "music_owner"
    assert ("music_writer", "connect") in manifest.databases[database.name].grants
    assert b"key of the first board" not in taken.path.read_bytes()
    assert b"display_time_zone" in reader.read("files.tar")
    # Every step is told, and each that has a size reaches it.
    last = {name: (done, total) for name, done, total in steps}
    assert f"copying {database.name}" in last
    assert [
        name for name, (done, total) in last.items() if total and "read" not in name and done != total
    ] == []
    row = database.rows("SELECT file, bytes, secrets, verified_at FROM backups")
    assert row == [(str(taken.path), taken.size, True, None)]


def test_rows_that_come_meanwhile_are_not_in_it(board, database, monkeypatch):
    """The sums are of the moment that the dump holds, whatever is written in between."""
    summed = databases.sums

    def slowly(connection, progress=lambda _: None):
        found = summed(connection, progress)
        database.rows("INSERT INTO listeners (name) VALUES ('guest ' || gen_random_uuid())", role="postgres")
        return found

    monkeypatch.setattr(databases, "sums", slowly)
    taken = take(board)
    monkeypatch.undo()
    assert database.value("SELECT count(*) FROM listeners") > 1
    assert Reader(taken.path).manifest.databases[database.name].tables["public.listeners"].rows == 1
    taking.verify(board, taken.path)


def test_status_and_pipeline_health_know_its_age(board, database, files):
    dataset = yaml.safe_load(
        (files / "dashboards/datasets/music_streaming/music_disk_growth.yaml").read_text()
    )
    row = f"SELECT bytes, remark FROM ({dataset['sql']}) AS d WHERE part = 'newest backup'"
    assert database.rows(row) == [(None, "none yet: sudo musicctl backup")]
    taken = take(board)
    assert database.rows(row) == [(taken.size, "0 h old")]
    newest = counted(board).newest_backup
    assert (newest.taken_at, newest.file, newest.size, newest.secrets) == (
        taken.at,
        str(taken.path),
        taken.size,
        False,
    )


def test_verify_restores_beside_and_leaves_nothing(board, database, postgres):
    taken = take(board)
    manifest = taking.verify(board, taken.path)
    assert manifest.databases[database.name].tables["public.stream_events_own"].rows == 5000
    assert database.value("SELECT verified_at IS NOT NULL FROM backups")
    assert database.rows(f"SELECT datname FROM pg_database WHERE datname LIKE '%{databases.VERIFYING}'") == []


def test_a_table_that_differs_is_named(board, database):
    """A dump of another moment than its sums: as if a row had been lost on the way."""
    taken = take(board)
    reader = Reader(taken.path)
    content = json.loads(reader.manifest.to_json())
    content["databases"][database.name]["tables"]["public.listeners"]["rows"] = 2
    taken.path.write_bytes(
        taken.path.read_bytes().replace(b'"rows": 1,\n          "hashes"', b'"rows": 2,\n          "hashes"')
    )
    with pytest.raises(BackupError, match=r"table public\.\w+: found .*rows=1.* wanted .*rows=2"):
        taking.verify(board, taken.path)


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda content: content[: len(content) // 2], "no manifest at its end, so that it is cut short"),
        (lambda content: b"", "no manifest at its end"),
        (
            lambda content: content[:100_000] + bytes([content[100_000] ^ 1]) + content[100_001:],
            "its part music_",
        ),
    ],
    ids=["cut short", "empty", "one bit"],
)
def test_a_harmed_file_is_named(board, harm, words):
    taken = take(board)
    taken.path.write_bytes(harm(taken.path.read_bytes()))
    with pytest.raises(BackupError, match=words) as refused:
        taking.verify(board, taken.path)
    assert str(taken.path) in str(refused.value)


def test_killed_in_the_middle_it_leaves_nothing_that_looks_whole(board, database, tmp_path):
    """kill -9 while the dump is written; the next one removes what was left."""
    folder = Path(board.backup.place)
    database.rows(
        "CREATE TABLE large AS SELECT repeat(md5(n::text), 30) AS t FROM generate_series(1, 60000) n",
        role="music_owner",
    )
    config = tmp_path / "music.toml"
    config.write_text(
        f'[postgres]\nport = {board.postgres.port}\ndatabase = "{database.name}"\nadmin_host = "127.0.0.1"\n'
        f'superset_database = "{board.postgres.superset_database}"\nsecrets_dir = "{board.postgres.secrets_dir}"\n'
        f'[paths]\ndata = "{board.paths.data}"\nfiles = "{board.paths.files}"\n[backup]\nplace = "{folder}"\n'
    )
    environment = os.environ | {
        "MUSIC_CONFIG": str(config),
        "PYTHONPATH": str(board.paths.files.parent / "app"),
    }
    argv = [sys.executable, "-m", "music_streaming.cli", "backup"]
    process = subprocess.Popen(argv, env=environment, stderr=subprocess.DEVNULL, start_new_session=True)

    def written() -> int:
        return sum(path.stat().st_size for path in folder.glob("*.partial"))

    grown = wait_for(
        written, lambda size: size > 300_000, 60, ended=lambda: process.poll() is not None, every=0.002
    )
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert grown > 300_000
    assert [path.suffix for path in folder.iterdir()] == [".partial"]
    assert place.kept(folder) == []
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "read back and whole" in done.stdout
    assert "secrets: left out, as there is no passphrase" in done.stdout
    assert [path.suffix for path in folder.iterdir()] == [".tar"]
    taking.verify(board, place.kept(folder)[0].path)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 80 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=80m", "tmpfs", folder], check=True)
    yield folder
    subprocess.run(["umount", folder], check=True)


@needs_root
def test_a_disk_with_too_little_room_is_refused_beforehand(board, database, small_disk):
    (small_disk / "film").write_bytes(bytes(20_000_000))
    with pytest.raises(BackupError, match=r"found 6\d MB free, wanted \d+ MB\. Remedy: delete old backups"):
        take(board, small_disk)
    assert [path.name for path in small_disk.iterdir()] == ["film"]
    assert database.rows("SELECT * FROM backups") == []


@needs_root
def test_a_disk_that_fills_meanwhile_stops_it_and_keeps_the_others(board, database, small_disk):
    """The last one was small, so that this one is begun."""
    database.rows(
        "CREATE TABLE large AS SELECT encode(sha512(n::text::bytea), 'base64') AS t FROM generate_series(1, 400000) n",
        role="music_owner",
    )
    hostname = os.uname().nodename.partition(".")[0]
    before = small_disk / place.file_name(hostname, taking.datetime(2026, 1, 1, tzinfo=taking.UTC))
    before.write_bytes(bytes(1000))
    (small_disk / "film").write_bytes(bytes(8_000_000))
    with pytest.raises(BackupError, match="MB free, wanted"):
        take(board, small_disk)
    assert {path.name for path in small_disk.iterdir()} == {"film", before.name}


@needs_root
@pytest.mark.skipif(not shutil.which("mkfs.ext4"), reason="makes a file system")
def test_a_disk_is_found_by_its_label_and_released(board, tmp_path):
    image = tmp_path / "disk"
    with image.open("wb") as file:
        file.truncate(200_000_000)
    label = f"M{os.getpid()}"
    subprocess.run(["mkfs.ext4", "-q", "-L", label, image], check=True)
    device = subprocess.run(
        ["losetup", "--find", "--show", image], check=True, capture_output=True, text=True
    ).stdout.strip()
    try:
        taken = take(board, f"label:{label}/music")
        assert not taken.path.exists()
        assert device not in Path("/proc/mounts").read_text()
        with place.opened(f"label:{label}/music") as folder:
            assert [item.size for item in place.kept(folder)] == [taken.size]
        with pytest.raises(BackupError, match=rf"Disk nothere: found labels .*{label}"):
            take(board, "label:nothere")
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


def test_two_at_once_are_refused(board):
    with place.alone(board.paths.data), pytest.raises(BackupError, match="another backup or restore at work"):
        take(board)


def test_a_place_that_is_not_there_is_refused(board, tmp_path):
    with pytest.raises(BackupError, match=r"/not/there: found No such file or directory"):
        take(board, "/not/there")
    assert not (tmp_path / "not").exists()


def test_seven_days_and_four_weeks_stay(tmp_path):
    """A year of nights, one of them twice."""
    first = taking.datetime(2026, 1, 1, 3, tzinfo=taking.UTC)
    nights = [first + day * (first.replace(day=2) - first) for day in range(365)]
    made = [place.Kept(tmp_path / place.file_name("pi", at), "pi", at, 1) for at in nights]
    twice = nights[-1].replace(hour=12)
    made.append(place.Kept(tmp_path / place.file_name("pi", twice), "pi", twice, 1))
    gone = {item.path for item in place.superfluous(made, 7, 4)}
    stay = sorted(item.at for item in made if item.path not in gone)
    # The Thursday of the running week and three Sundays, of which one is within the seven days.
    assert [f"{at:%m-%d %H}" for at in stay] == ["12-13 03", "12-20 03", "12-25 03", "12-26 03", "12-27 03", "12-28 03",
                                                 "12-29 03", "12-30 03", "12-31 12"]  # fmt: skip
    assert place.superfluous(made[:3], 7, 4) == []


def test_rotation_keeps_the_one_just_taken_and_other_boards(board):
    folder = Path(board.backup.place)
    mine = os.uname().nodename.partition(".")[0]
    for name in (mine, "other"):
        for day in range(1, 29):
            (folder / place.file_name(name, taking.datetime(2026, 1, day, tzinfo=taking.UTC))).write_bytes(
                b"x"
            )
    (folder / "letter.tar").write_bytes(b"mine")
    taken = take(board, rotate=True)
    kept = place.kept(folder)
    assert kept[0].path == taken.path
    # Seven days, and the newest of a fourth week.
    assert len([item for item in kept if item.board == mine]) == 8
    assert len([item for item in kept if item.board == "other"]) == 28
    assert (folder / "letter.tar").exists()
    assert len(taken.removed) == 28 + 1 - 8


def test_list_shows_them(board, monkeypatch):
    taken = take(board)
    monkeypatch.setenv("MUSIC_BACKUP__PLACE", board.backup.place)
    done = CliRunner().invoke(cli.main, ["backup", "--list", "--json"])
    assert done.exit_code == 0, done.output
    assert [item["file"] for item in json.loads(done.output)] == [str(taken.path)]
    done = CliRunner().invoke(cli.main, ["backup", "--list"])
    assert taken.path.name in done.output


def test_it_needs_the_socket_of_postgresql(board):
    away = board.with_changes(postgres={"admin_host": "/run/nowhere"})
    began = time.monotonic()
    with pytest.raises(BackupError, match="no socket of PostgreSQL in /run/nowhere"):
        take(away)
    assert time.monotonic() - began < 5


def test_a_second_copy_follows_and_loses_nothing_else(board, tmp_path):
    """rsync to a folder: what rotation took here goes there, what only lies there stays."""
    other = tmp_path / "other"
    other.mkdir()
    (other / "music-pi-20200101T000000Z.tar").write_bytes(b"of another board")
    settings = board.model_copy(update={"backup": board.backup.model_copy(update={"copy_to": str(other)})})
    first, second = take(settings), take(settings)
    copying.copy(settings, first.path.parent, [])
    assert {path.name for path in other.iterdir()} == {
        "music-pi-20200101T000000Z.tar", first.path.name, second.path.name
    }  # fmt: skip
    first.path.unlink()
    copying.copy(settings, first.path.parent, [first.path.name])
    assert {path.name for path in other.iterdir()} == {"music-pi-20200101T000000Z.tar", second.path.name}
    assert (other / second.path.name).read_bytes() == second.path.read_bytes()
    away = board.model_copy(
        update={"backup": board.backup.model_copy(update={"copy_to": str(tmp_path / "a/b/c")})}
    )
    with pytest.raises(
        BackupError, match=r"Second copy to .*/a/b/c: found .*wanted the backups there; those on the board"
    ):
        copying.copy(away, first.path.parent, [])
