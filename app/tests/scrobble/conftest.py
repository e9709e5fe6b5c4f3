"""The scrobble server with a real Kafka and a real PostgreSQL; one for the tests of a module."""

from __future__ import annotations

import signal
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from served import Board, make_board, served_board

from music_streaming.testing.broker import Broker
from music_streaming.testing.postgres import Database, Postgres


@pytest.fixture(scope="module")
def board(
    tmp_path_factory: pytest.TempPathFactory, postgres: Postgres, _template: Database, broker: Broker
) -> Iterator[Board]:
    """A server that runs."""
    with served_board(tmp_path_factory.mktemp("scrobble"), broker, postgres, _template) as made:
        yield made
        made.process.end(signal.SIGTERM)
        assert "Traceback" not in made.process.log.read_text(), made.process.log.read_text()


@pytest.fixture
def own_board(tmp_path: Path, own_broker: Broker, database: Database) -> Callable[..., Board]:
    """Make a board whose broker is the test's own; nothing of it is started."""
    boards: list[Board] = []

    def make(**scrobble: Any) -> Board:
        boards.append(make_board(tmp_path, own_broker, database, f"test_{uuid.uuid4().hex[:12]}", **scrobble))
        return boards[-1]

    yield make
    for one in boards:
        one.process.close()
