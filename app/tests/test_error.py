"""Each fault of a real PostgreSQL is told as what it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import psycopg2
import pytest

from music_streaming.error import connection_failed, database_error
from music_streaming.settings import PostgresSettings
from music_streaming.testing.postgres import Database


def fault_of(database: Database, sql: str) -> psycopg2.Error:
    with pytest.raises(psycopg2.Error) as caught:
        database.rows(sql)
    return caught.value


@pytest.mark.parametrize(
    ("sql", "wanted"),
    [
        ("SET statement_timeout = 50; SELECT pg_sleep(9)", "wanted a query that ends in time"),
        (
            "SET default_transaction_read_only = off; DELETE FROM ingest_state",
            "wanted a role with that right",
        ),
        ("SELECT 1 FROM of_a_later_version", "Remedy: sudo musicctl schema"),
        ("SELECT of_a_later_version FROM ingest_state", "Remedy: sudo musicctl schema"),
    ],
)
def test_what_a_server_refuses_is_not_called_silence(database: Database, sql: str, wanted: str) -> None:
    error = fault_of(database, sql)
    assert not connection_failed(error)
    told = str(database_error(error))
    assert wanted in told
    assert "does not answer" not in told


@pytest.mark.parametrize("sql", ["SELECT FROM FROM", "SELECT 1/0", "SELECT 'x'::integer", "SELECT %s"])
def test_a_mistake_of_the_program_is_no_fault_of_the_server(database: Database, sql: str) -> None:
    error = fault_of(database, sql)
    assert database_error(error) is None
    assert not connection_failed(error)


def test_a_connection_that_fails_or_is_cut_is_no_answer(
    database: Database, tmp_path: Path, secrets: Callable[[Database], object]
) -> None:
    secrets(database)
    with pytest.raises(psycopg2.OperationalError) as refused:
        PostgresSettings(port=1, secrets_dir=tmp_path).connect("music_writer")
    connection = database.connect()
    pid = connection.info.backend_pid
    database.rows("SELECT pg_terminate_backend(%s)", (pid,), role="postgres")
    with pytest.raises(psycopg2.Error) as cut, connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    between = database.connect()
    database.rows("SELECT pg_terminate_backend(%s)", (between.info.backend_pid,), role="postgres")
    with pytest.raises(psycopg2.Error) as begun, between, between.cursor() as cursor:
        cursor.execute("SELECT 1")
    # Whichever the client notices first, not that the connection "is already closed".
    words = ("terminating connection", "server closed the connection")
    assert any(word in str(database_error(begun.value)) for word in words)
    with pytest.raises(psycopg2.InterfaceError) as closed:
        connection.cursor()
    for caught in (refused, cut, begun, closed):
        assert connection_failed(caught.value)
        assert "PostgreSQL does not answer: found" in str(database_error(caught.value))
