"""The server's connections to PostgreSQL: few, kept, and made anew after an outage."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import psycopg2
from starlette.concurrency import run_in_threadpool

from music_streaming.error import connection_failed
from music_streaming.settings import PostgresSettings, Role

if TYPE_CHECKING:
    from psycopg2.extensions import connection

T = TypeVar("T")

CONNECTIONS = 4
STATEMENT_SECONDS = 10


class Database:
    """Runs work in transactions of their own, as music_scrobble; psycopg2.Error as it comes."""

    def __init__(self, postgres: PostgresSettings) -> None:
        self._postgres = postgres
        self._idle: list[connection] = []
        self._room = threading.BoundedSemaphore(CONNECTIONS)

    async def run(self, work: Callable[[Any], T]) -> T:
        """What `work(cursor)` gives; committed when it returns."""
        return await run_in_threadpool(self._run, work)

    def _run(self, work: Callable[[Any], T]) -> T:
        with self._room:
            kept = self._take()
            if kept is not None:
                try:
                    return self._transaction(kept, work)
                except psycopg2.Error as error:
                    # A kept one may be older than an outage: nothing was committed by it.
                    if not connection_failed(error):
                        raise
            return self._transaction(self._connect(), work)

    def _take(self) -> connection | None:
        try:
            return self._idle.pop()
        except IndexError:
            return None

    def _connect(self) -> connection:
        opened = self._postgres.connect(Role.SCROBBLE, application="music-scrobble")
        with opened, opened.cursor() as cursor:
            cursor.execute("SELECT set_config('statement_timeout', %s, false)", (f"{STATEMENT_SECONDS}s",))
        return opened

    def _transaction(self, opened: connection, work: Callable[[Any], T]) -> T:
        try:
            with opened, opened.cursor() as cursor:
                found = work(cursor)
        finally:
            if not opened.closed:
                self._idle.append(opened)
        return found

    def close(self) -> None:
        """Close what is kept."""
        while (kept := self._take()) is not None:
            kept.close()
