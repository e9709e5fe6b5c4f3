"""The way back: a new PostgreSQL gets every row, the job goes on where it was, and what does not fit is refused."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import hmac
import json
import shutil
import subprocess
from pathlib import Path

import pytest
from boards import PASSPHRASE, board_of, take

from music_streaming.backup import contents, databases, restoring
from music_streaming.backup.archive import BackupError, Manifest, Reader, Writer
from music_streaming.testing.postgres import Database, Postgres, new_database, throw_away_cluster

QUICK = {"passphrase": None}


@pytest.fixture
def new_board(postgres, secrets, tmp_path):
    """Another board that site.yml has given empty databases and secrets of its own."""
    with new_database(postgres) as music, new_database(postgres) as metadata:
        folder = tmp_path / "new"
        folder.mkdir()
        yield board_of(music, metadata, secrets, folder, files=False)


def named(postgres: Postgres, name: str) -> Database:
    return Database(postgres, name)


def content(postgres: Postgres, name: str) -> dict[str, object]:
    with contextlib.closing(postgres.connect("postgres", name)) as connection:
        return databases.sums(connection)


def test_row_by_row_equal_with_dashboards_secrets_and_position(
    board, new_board, database, metadata, postgres
):
    taken = take(board, passphrase=PASSPHRASE)
    changes = restoring.restore(new_board, taken.path, passphrase=PASSPHRASE)
    music, superset = new_board.postgres.database, new_board.postgres.superset_database
    assert changes == [
        "secret postgres_music_owner",
        "secret postgres_superset_reader",
        "secret superset_secret_key",
        f"database {music}",
        f"database {superset}",
        "producer/history.json",
        "superset/dashboards.json",
    ]
    before = content(postgres, database.name)
    del before["public.backups"]
    after = content(postgres, music)
    assert after.pop("public.backups").rows == 0
    assert after == before
    assert content(postgres, superset) == content(postgres, metadata.name)
    new = named(postgres, music)
    assert new.rows(
        "SELECT topic, partition, topic_id, next_offset FROM ingest_offsets", role="music_writer"
    ) == [("stream_events", 0, "abcdefg", 5001)]
    # Rights, too: the job writes, the readers read, nobody else gets in.
    new.rows("INSERT INTO ingest_reject_totals (reason, rejected) VALUES ('x', 1)", role="music_writer")
    with pytest.raises(Exception, match="permission denied"):
        new.rows("DELETE FROM stream_events", role="superset_reader")
    assert new.value("SELECT hll_cardinality(hll_union_agg(listeners)) > 400 FROM user_engagement_metrics")
    folder = new_board.postgres.secrets_dir
    assert (folder / "superset_secret_key").read_text() == "key of the first board"
    assert oct((folder / "superset_secret_key").stat().st_mode)[-3:] == "600"
    assert json.loads((new_board.paths.data / "producer/history.json").read_text()) == {"seed": 42}
    assert named(postgres, superset).value("SELECT password FROM dbs", role="postgres") is not None
    # Again changes nothing.
    assert restoring.restore(new_board, taken.path, passphrase=PASSPHRASE) == []


def test_a_board_with_data_is_refused_unless_told(board, new_board, database, postgres):
    taken = take(board)
    other = named(postgres, new_board.postgres.database)
    other.rows("CREATE TABLE mine AS SELECT 1 AS n", role="music_owner")
    with pytest.raises(
        BackupError, match=rf"found 1 tables in {other.name}, wanted a fresh board.*nothing was changed"
    ):
        restoring.restore(new_board, taken.path, **QUICK)
    assert other.rows("SELECT n FROM mine", role="music_owner") == [(1,)]
    # Somebody who is connected is sent away.
    with contextlib.closing(other.connect("music_owner")):
        restoring.restore(new_board, taken.path, passphrase=None, over=True)
    assert other.value("SELECT to_regclass('mine') IS NULL")
    assert other.value("SELECT count(*) FROM stream_events") == 5000
    leftover = "SELECT datname FROM pg_database WHERE datname ~ '_(restoring|before|verifying)$'"
    assert other.rows(leftover) == []


def test_a_wrong_passphrase_is_refused_before_anything_is_changed(board, new_board, postgres):
    taken = take(board, passphrase=PASSPHRASE)
    for passphrase, words in (
        ("wrong", "a passphrase that does not open them"),
        (None, "encrypted secrets and no passphrase"),
    ):
        with pytest.raises(BackupError, match=words):
            restoring.restore(new_board, taken.path, passphrase=passphrase)
    assert databases.table_count(new_board.postgres, new_board.postgres.database) == 0
    assert list(new_board.postgres.secrets_dir.iterdir()) == []


def test_other_secrets_are_not_overwritten_unless_told(board, new_board, postgres):
    """A board that was set up once has passwords that its data know."""
    taken = take(board, passphrase=PASSPHRASE)
    mine = new_board.postgres.secrets_dir / "superset_secret_key"
    mine.write_text("key of this board")
    for dry_run in (True, False):
        with pytest.raises(
            BackupError, match="found other secrets on this board: superset_secret_key, wanted none"
        ):
            restoring.restore(
                new_board, taken.path, passphrase=PASSPHRASE, secrets_only=True, dry_run=dry_run
            )
    assert mine.read_text() == "key of this board"
    restoring.restore(new_board, taken.path, passphrase=PASSPHRASE, secrets_only=True, over=True)
    assert mine.read_text() == "key of the first board"


def test_a_server_that_is_stopped_has_no_data_to_refuse(board, new_board, tmp_path):
    """As where the folder of an older PostgreSQL was moved away; its socket's folder stays."""
    taken = take(board)
    stopped = new_board.with_changes(postgres={"admin_host": str(tmp_path)})
    (found,) = restoring.restore(stopped, taken.path, passphrase=None, dry_run=True)
    assert found.startswith("the backup of ")


def test_without_secrets_superset_forgets_what_it_cannot_decrypt(board, new_board, postgres):
    taken = take(board, passphrase=PASSPHRASE)
    restoring.restore(new_board, taken.path, passphrase=None, without_secrets=True)
    superset = named(postgres, new_board.postgres.superset_database)
    assert superset.rows("SELECT password FROM dbs", role="postgres") == [(None,)]
    assert superset.rows("SELECT name FROM music_prepared", role="postgres") == [("program",)]
    assert superset.rows("SELECT password FROM ab_user", role="postgres") == [("scrypt:1",)]
    assert list(new_board.postgres.secrets_dir.iterdir()) == []


def test_the_board_that_encrypted_it_can_decrypt_it_still(board, metadata, postgres):
    """Back on the same board without a passphrase, as after an update that failed."""
    key = b"key of the first board"
    mark = hmac.new(key, b"music_prepared", hashlib.sha256).hexdigest()
    metadata.rows("UPDATE music_prepared SET value = %s WHERE name = 'secret key'", (mark,), role="postgres")
    taken = take(board)
    restoring.restore(board, taken.path, passphrase=None, over=True)
    superset = named(postgres, board.postgres.superset_database)
    assert superset.rows("SELECT password IS NULL FROM dbs", role="postgres") == [(False,)]
    (board.postgres.secrets_dir / "superset_secret_key").write_text("another key")
    restoring.restore(board, taken.path, passphrase=None, over=True)
    assert superset.rows("SELECT password IS NULL FROM dbs", role="postgres") == [(True,)]


def test_secrets_come_first_where_there_is_no_database_yet(board, new_board):
    taken = take(board, passphrase=PASSPHRASE)
    bare = new_board.with_changes(postgres={"admin_host": "/run/nowhere"})
    changes = restoring.restore(bare, taken.path, passphrase=PASSPHRASE, secrets_only=True)
    assert len(changes) == 3
    assert changes[-1] == "secret superset_secret_key"


def rewritten(path: Path, **changes: object) -> Path:
    """The same backup with other words in its manifest."""
    reader = Reader(path)
    writer = Writer(path.with_name(f"other-{path.name}"), 0)
    for name in reader.names():
        writer.add(name, reader.chunks(name))
    manifest: Manifest = dataclasses.replace(reader.manifest, members=writer.members, **changes)
    writer.finish(manifest.to_json())
    return writer.path


def test_a_newer_version_is_refused_by_name(board, new_board):
    taken = take(board)
    manifest = Reader(taken.path).manifest
    newer = rewritten(
        taken.path,
        migrations=manifest.migrations | {"999_of_next_year.sql": "0" * 64},
        versions=manifest.versions | {"music-streaming": "0.9.0"},
    )
    with pytest.raises(
        BackupError, match=r"music-streaming 0\.9\.0 made, with 999_of_next_year\.sql, wanted one of"
    ):
        restoring.restore(new_board, newer, **QUICK)
    edited = rewritten(taken.path, migrations=manifest.migrations | {"001_events.sql": "0" * 64})
    with pytest.raises(BackupError, match=r"found another 001_events\.sql"):
        restoring.restore(new_board, edited, **QUICK)


def test_an_older_schema_passes_through_the_migrations(board, new_board, postgres, files, tmp_path):
    """The board has a migration that the backup's did not have."""
    old = tmp_path / "files"
    shutil.copytree(files / "schema", old / "schema")
    newest = f"{len(list(old.glob('schema/*.sql'))) + 1:03d}_of_today.sql"
    (old / "schema" / newest).write_text("CREATE TABLE of_today (n int);")
    taken = take(board)
    now = new_board.with_changes(paths={"files": old})
    changes = restoring.restore(now, taken.path, **QUICK)
    assert f"migration {newest}" in changes
    new = named(postgres, new_board.postgres.database)
    owner = "SELECT pg_get_userbyid(relowner) FROM pg_class WHERE relname = 'of_today'"
    assert new.value(owner) == "music_owner"
    assert new.value("SELECT count(*) FROM stream_events") == 5000


def test_cut_off_in_the_middle_leaves_the_old_one_and_a_second_run_passes(
    board, new_board, postgres, monkeypatch
):
    taken = take(board)
    other = named(postgres, new_board.postgres.database)
    other.rows("CREATE TABLE mine AS SELECT 1 AS n", role="music_owner")

    def cut(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(databases, "put_in_place", cut)
    with pytest.raises(KeyboardInterrupt):
        restoring.restore(new_board, taken.path, passphrase=None, over=True)
    monkeypatch.undo()
    assert other.rows("SELECT n FROM mine", role="music_owner") == [(1,)]
    restoring.restore(new_board, taken.path, passphrase=None, over=True)
    assert other.value("SELECT count(*) FROM stream_events") == 5000


def test_a_cluster_of_another_board(board, postgres, secrets, tmp_path):
    """A PostgreSQL that was made a minute ago, with roles and nothing else, as on a fresh card."""
    with throw_away_cluster() as cluster:
        taken = take(board)
        with new_database(cluster) as music, new_database(cluster) as superset:
            fresh = board_of(music, superset, secrets, tmp_path / "fresh", files=False)
            restoring.restore(fresh, taken.path, **QUICK)
            before, after = content(postgres, board.postgres.database), content(cluster, music.name)
            assert after.keys() == before.keys()
            assert {name for name in after if after[name] != before[name]} == {"public.backups"}
            dumps = [
                schema_of(pg, name)
                for pg, name in ((postgres, board.postgres.database), (cluster, music.name))
            ]
            assert dumps[0] == dumps[1]


def schema_of(postgres: Postgres, name: str) -> str:
    argv = ["pg_dump", "--schema-only", "--restrict-key=x", f"--dbname={postgres.dsn('postgres', name)}"]
    if (
        "--restrict-key"
        not in subprocess.run(["pg_dump", "--help"], check=True, capture_output=True, text=True).stdout
    ):
        argv.remove("--restrict-key=x")
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


def test_secrets_are_as_age_encrypts_them(board):
    encrypted = contents.secrets_tar(board, PASSPHRASE)
    assert encrypted.startswith(b"age-encryption.org/v1\n-> scrypt ")
