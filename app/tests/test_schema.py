"""Migrations against a real PostgreSQL."""

import contextlib
import shutil
import threading
from pathlib import Path

import psycopg2
import pytest

from music_streaming.schema import SchemaError, migrate, migrations, pending
from music_streaming.testing import FILES
from music_streaming.testing.postgres import Database


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of files/schema to tamper with."""
    return Path(shutil.copytree(FILES / "schema", tmp_path / "schema"))


def test_applied_once_in_order(empty_database: Database) -> None:
    names = [migration.name for migration in migrations(FILES / "schema")]
    with contextlib.closing(empty_database.connect("music_owner")) as connection:
        assert migrate(connection, FILES / "schema") == names
        assert migrate(connection, FILES / "schema") == []
        assert pending(connection, FILES / "schema") == []
    recorded = empty_database.rows("SELECT name FROM schema_migrations ORDER BY name")
    assert [name for (name,) in recorded] == names


def test_two_at_once_wait_for_each_other(empty_database: Database) -> None:
    applied: list[str] = []

    def run() -> None:
        with contextlib.closing(empty_database.connect("music_owner")) as connection:
            applied.extend(migrate(connection, FILES / "schema"))

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(applied) == [migration.name for migration in migrations(FILES / "schema")]


def test_edited_file_is_refused_by_name(database: Database, folder: Path) -> None:
    with (folder / "002_metrics.sql").open("a") as file:
        file.write("-- one more word\n")
    with (
        contextlib.closing(database.connect("music_owner")) as connection,
        pytest.raises(SchemaError, match=r"002_metrics\.sql edited after it was applied"),
    ):
        migrate(connection, folder)


def test_failing_file_leaves_nothing_behind(database: Database, folder: Path) -> None:
    number = len(migrations(folder)) + 1
    path = folder / f"{number:03d}_broken.sql"
    path.write_text("CREATE TABLE half (x int); SELECT 1/0;")
    with contextlib.closing(database.connect("music_owner")) as connection:
        with pytest.raises(psycopg2.errors.DivisionByZero):
            migrate(connection, folder)
        assert database.value("SELECT to_regclass('half')") is None
        path.write_text("CREATE TABLE half (x int);")
        assert migrate(connection, folder) == [path.name]


def test_older_program_on_newer_database_is_refused(database: Database, folder: Path) -> None:
    newest = migrations(folder)[-1].name
    (folder / newest).unlink()
    with (
        contextlib.closing(database.connect("music_owner")) as connection,
        pytest.raises(SchemaError, match=f"{newest} applied to the database but not in"),
    ):
        migrate(connection, folder)


def test_database_of_before_the_first_release_is_refused(database: Database, folder: Path) -> None:
    """Eight files stood where five stand now; nothing leads from there to here, and nothing is touched."""
    old = [migration.name for migration in migrations(folder)]
    with contextlib.closing(database.connect("music_owner")) as connection:
        with connection, connection.cursor() as cursor:
            cursor.execute("UPDATE schema_migrations SET sha256 = repeat('0', 64)")
            cursor.executemany(
                "INSERT INTO schema_migrations (name, sha256) VALUES (%s, repeat('0', 64))",
                [("006_dashboards.sql",), ("007_content_rollups.sql",), ("008_removed_plays.sql",)],
            )
        with pytest.raises(SchemaError) as refused:
            migrate(connection, folder)
    for said in (
        old[0],
        "006_dashboards.sql, 007_content_rollups.sql, 008_removed_plays.sql",
        "remove_data=true",
    ):
        assert said in str(refused.value)
    assert database.value("SELECT count(*) FROM schema_migrations") == len(old) + 3


def test_hole_in_the_numbers_is_refused(folder: Path) -> None:
    (folder / "002_metrics.sql").rename(folder / "099_metrics.sql")
    with pytest.raises(SchemaError, match=r"found migration 003_\w+\.sql, wanted 002_"):
        migrations(folder)


def test_missing_hll_is_named(postgres: object, empty_database: Database) -> None:
    with contextlib.closing(empty_database.connect("postgres")) as connection, connection:
        connection.cursor().execute("DROP EXTENSION hll")
    with (
        contextlib.closing(empty_database.connect("music_owner")) as connection,
        pytest.raises(SchemaError, match="no extension hll"),
    ):
        migrate(connection, FILES / "schema")


@pytest.mark.parametrize(
    ("role", "statement"),
    [
        ("superset_reader", "DELETE FROM stream_events"),
        ("superset_reader", "INSERT INTO ingest_reject_totals VALUES ('x', 1)"),
        ("superset_reader", "CREATE TABLE mine (x int)"),
        ("superset_reader", "CREATE TEMP TABLE mine (x int)"),
        ("superset_reader", "SELECT expire_demo_events(1)"),
        ("superset_reader", "SELECT make_demo_partitions('{2030-01-01}')"),
        ("music_writer", "DELETE FROM stream_events"),
        ("music_writer", "TRUNCATE user_engagement_metrics"),
        ("music_writer", "CREATE TABLE mine (x int)"),
        ("music_writer", "UPDATE schema_migrations SET sha256 = ''"),
        ("music_writer", "DROP TABLE stream_events_demo_old"),
    ],
)
def test_role_cannot(database: Database, role: str, statement: str) -> None:
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        database.rows(statement, role=role)


def test_reader_reads_every_table_and_view(database: Database) -> None:
    names = database.rows(
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace "
        "AND relkind IN ('r', 'p', 'v') AND NOT relispartition AND relname <> 'listener_tokens'"  # it has hashes
    )
    for (name,) in names:
        database.rows(f'SELECT * FROM "{name}" LIMIT 1')
