"""The archive has what a helper needs and no secret, wherever one was planted."""

from __future__ import annotations

import json
import stat
import tarfile
from datetime import UTC, datetime

import pytest
from surroundings import IMAGE

from music_streaming.board import support
from music_streaming.board.machine import Board
from music_streaming.board.support import HIDDEN, without_secrets, write
from music_streaming.board.systemd import Systemd
from music_streaming.error import MusicError
from music_streaming.settings import PathSettings, PostgresSettings, Settings

NOW = datetime(2026, 11, 28, 2, tzinfo=UTC)
PLANTED = "Xq7pLanted0fSecrets"
BEARER = "eyJhbGciOiJIUzI1NiJ9.planted-bearer"
JOURNAL = [
    f"2026-11-28 01:00:00 FATAL: password {PLANTED} refused",
    "2026-11-28 01:00:01 env SUPERSET_SECRET_KEY=planted-by-name-1 started",
    '2026-11-28 01:00:02 {"api_key": "planted-by-name-2", "user": "anna"}',
    "2026-11-28 01:00:03 connecting to postgresql://music:planted-by-address@127.0.0.1/x",
    f"2026-11-28 01:00:04 GET /1/validate-token Authorization: Token {BEARER}",
    "2026-11-28 01:00:05 token: planted-by-name-3",
    "2026-11-28 01:00:06 the harmless line stays",
]


@pytest.fixture
def board(units, tmp_path, monkeypatch):
    """A board with a secret in its folder, in its journal, on its kernel's command line and in what status says."""
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "postgres_music_writer").write_text(PLANTED + "\n")
    (secrets / "superset_guest").write_text("two-planted words-planted\n")
    for name in support.FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{name} words-planted {PLANTED}\n")
    monkeypatch.setattr(support, "journal", lambda unit, lines, kernel: [f"of {unit}", *JOURNAL])
    settings = Settings(postgres=PostgresSettings(secrets_dir=secrets), paths=PathSettings(data=tmp_path))
    return Board(settings, Systemd(units.address, 5), root=tmp_path)


def written(board, tmp_path):
    place = tmp_path / "out"
    place.mkdir()
    path = write(
        board,
        place,
        NOW,
        status=lambda: {"problems": [f"PostgreSQL: {PLANTED}"], "at": NOW},
        diagnosis=lambda: {"ok": True},
    )
    with tarfile.open(path) as archive:
        return path, {member.name: archive.extractfile(member).read().decode() for member in archive}


def test_no_secret_is_in_the_archive(board, tmp_path):
    path, files = written(board, tmp_path)
    whole = "\n".join(files.values())
    for planted in (PLANTED, BEARER, "planted"):
        assert planted not in whole, next(name for name, text in files.items() if planted in text)
    assert whole.count("the harmless line stays") == len([name for name in files if "/journal/" in name]) > 10
    assert "anna" in whole
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_the_archive_has_what_a_helper_needs(board, tmp_path):
    _, files = written(board, tmp_path)
    read = {name.removeprefix("music-support/"): text for name, text in files.items()}
    assert {unit["name"] for unit in json.loads(read["units.json"])} >= {"music-kafka", "music-superset"}
    assert json.loads(read["versions.json"])["images"] == {"music-kafka": IMAGE}
    assert json.loads(read["settings.json"])["kafka"]["topic"] == "stream_events"
    assert json.loads(read["doctor.json"]) == {"ok": True}
    assert json.loads(read["status.json"])["problems"] == [f"PostgreSQL: {HIDDEN}"]
    assert "journal/kernel.txt" in read
    assert read["journal/music-kafka.txt"].startswith("of music-kafka\n")


def test_a_part_that_cannot_be_had_says_why(board, tmp_path):
    def broken():
        raise MusicError("Kafka is away")

    place = tmp_path / "out"
    place.mkdir()
    path = write(board, place, NOW, status=broken, diagnosis=broken)
    with tarfile.open(path) as archive:
        text = archive.extractfile("music-support/status.json").read().decode()
    assert text == "not to be had: MusicError: Kafka is away\n"


def test_a_folder_that_takes_no_file_is_an_error_and_leaves_nothing(board, tmp_path):
    with pytest.raises(MusicError, match="Remedy: sudo musicctl support FOLDER"):
        write(board, tmp_path / "nowhere", NOW, status=dict, diagnosis=dict)


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("password=a1 b", f"password={HIDDEN} b"),
        ("MUSIC_TOKEN='a b' c", f"MUSIC_TOKEN={HIDDEN} c"),
        ("http://anna:pw@host/", f"http://anna:{HIDDEN}@host/"),
        ("http://host:8088/", "http://host:8088/"),
        ("Bearer abcdef123456", f"Bearer {HIDDEN}"),
        ("42 plays stored", "42 plays stored"),
    ],
)
def test_what_looks_like_a_secret_is_hidden(text, clean):
    assert without_secrets(text, []) == clean
