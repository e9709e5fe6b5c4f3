"""Two players that report one play: it counts once, and every number stays exact."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from docs import PROJECT
from music_streaming import event
from music_streaming.table import Rules, prepare_session, write
from music_streaming.testing.postgres import Database
from on_board import reported_elsewhere
from test_table import batch, exact, rows

START = dt.datetime(2026, 11, 20, 12, tzinfo=dt.UTC)


@pytest.fixture
def writer(database: Database) -> Iterator[Any]:
    with contextlib.closing(database.connect()) as connection:
        prepare_session(connection)
        yield connection


def scrobble(player: str, second: float, **changes: Any) -> dict[str, Any]:
    started = START + dt.timedelta(seconds=second)
    named = {"user_id": "Ada", "artist": "Artist", "title": "Song"} | changes
    return {
        "event_id": event.play_id(named["user_id"], started, named["artist"], named["title"]),
        "event_time": event.format_time(started),
        "source": "scrobble",
        "player": player,
        **named,
    }


def reports(cell: str, listener: str) -> list[dict[str, Any]]:
    """ "phone 0, desk 2/15, import 5" as plays; a number behind / is the song's length in seconds."""
    made = []
    for player, second, length, inferred in re.findall(r"([a-z]+) (\d+)(?:/(\d+))?( inferred)?", cell):
        known: dict[str, Any] = {"duration_ms": int(length) * 1000} if length else {}
        known |= {"source": "import"} if player == "import" else {}
        known |= {"reason_end": "inferred"} if inferred else {}
        made.append(scrobble(player, int(second), user_id=listener, **known))
    return made


def cases() -> list[tuple[str, str, int]]:
    """The rows of the contract's table: what, reports in the order of their arrival, how many plays they are."""
    text = (PROJECT / "docs/contract.md").read_text(encoding="utf-8")
    (table,) = re.findall(r"<!-- cases of two players -->\n(.*?)\n\n", text, flags=re.DOTALL)
    found = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
    return [(what, sent, int(count)) for what, sent, count in found]


@pytest.mark.parametrize("together", [True, False], ids=["one batch", "a batch each"])
def test_the_cases_of_the_contract(database: Database, writer: Any, together: bool) -> None:
    assert len(cases()) >= 8
    before, at = 0, 0
    for number, (what, sent, wanted) in enumerate(cases()):
        # A listener for each case, so that they do not meet.
        those = reports(sent, f"Ada {number}")
        for group in [those] if together else [[one] for one in those]:
            outcome = write(writer, batch(rows(*group, start=at)), Rules())
            assert outcome.records == outcome.accepted + outcome.duplicates == len(group)
            at += len(group)
        assert exact(database) - before == wanted, what
        before = exact(database)


def test_the_recount_on_a_board_knows_the_rule_by_itself(database: Database, writer: Any) -> None:
    """Of the contract's cases it excuses what the job left out, and of plays that are lost none."""
    for number, (what, sent, _) in enumerate(cases()):
        those = reports(sent, f"Ada {number}")
        write(writer, batch(rows(*those, start=10 * number)), Rules())
        plays = {one["event_id"]: event.parse_event(json.dumps(one).encode(), START).play for one in those}
        stored = {found for (found,) in database.rows("SELECT event_id::text FROM stream_events")}
        left_out = plays.keys() - stored
        with database.connect() as connection, connection.cursor() as cursor:
            assert reported_elsewhere(cursor, [plays[found] for found in left_out]) == left_out, what
            lost = scrobble("phone", 200, user_id=f"Ada {number}")
            assert not reported_elsewhere(cursor, [event.parse_event(json.dumps(lost).encode(), START).play])


def test_others_songs_and_generated_plays_are_not_compared(database: Database, writer: Any) -> None:
    those = [
        scrobble("phone", 0),
        scrobble("desk", 1, user_id="Bob"),
        scrobble("desk", 1, title="Other"),
        scrobble("desk", 1, source="demo", user_id="Carol"),
        scrobble("phone", 2, source="demo", user_id="Carol"),
    ]
    assert write(writer, batch(rows(*those)), Rules()).accepted == 5
    assert exact(database) == 5
