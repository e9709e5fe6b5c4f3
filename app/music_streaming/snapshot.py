"""Reading PostgreSQL as it was at one moment, with the read-only role."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from psycopg2.extras import RealDictCursor
from psycopg2.sql import Composable

from music_streaming.settings import Role, Settings

Row = Mapping[str, Any]


class Snapshot:
    """Queries that all see the database at one moment."""

    def __init__(self, cursor: Any) -> None:
        self._cursor = cursor

    def rows(self, sql: str | Composable, parameters: Mapping[str, Any] | None = None) -> list[Row]:
        """The rows, by column name."""
        self._cursor.execute(sql, parameters)
        return list(self._cursor.fetchall())

    def stream(self, sql: str | Composable, parameters: Mapping[str, Any] | None = None) -> Iterator[Row]:
        """The rows, a few thousand at a time: for more than memory should hold."""
        connection = self._cursor.connection
        with connection.cursor("stream", cursor_factory=type(self._cursor)) as cursor:
            cursor.itersize = 5_000
            cursor.execute(sql, parameters)
            yield from cursor

    def row(self, sql: str | Composable, parameters: Mapping[str, Any] | None = None) -> Row:
        """The only row."""
        (row,) = self.rows(sql, parameters)
        return row


@contextlib.contextmanager
def snapshot(settings: Settings, application: str) -> Iterator[Snapshot]:
    """One repeatable-read transaction as the read-only role; psycopg2.Error as it comes."""
    with settings.postgres.connection(Role.READER, application=application) as connection:
        connection.set_session(isolation_level="REPEATABLE READ", readonly=True)
        with connection.cursor(cursor_factory=RealDictCursor) as cursor:
            yield Snapshot(cursor)
