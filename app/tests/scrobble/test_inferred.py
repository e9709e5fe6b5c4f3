"""What was playing and is never reported: a play only with the switch, for long enough, flagged and once."""

from __future__ import annotations

import signal
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from served import Board, make_board

from music_streaming.listener import Listener
from music_streaming.scrobble.directory import Player
from music_streaming.scrobble.inferred import Playing
from music_streaming.scrobble.plays import Heard
from music_streaming.testing import wait_for
from music_streaming.testing.broker import Broker
from music_streaming.testing.postgres import Database
from music_streaming.topic import ensure_topics

START = datetime(2026, 11, 20, 12, tzinfo=UTC)
PHONE, DESK = (Player(Listener("ada"), name, name) for name in ("phone", "desk"))
BOBS = Player(Listener("bob"), "phone", "bob's")


def at(second: float) -> datetime:
    return START + timedelta(seconds=second)


def song(title: str = "Song", started: float | None = None, length: float | None = 200) -> Heard:
    return Heard(
        title,
        "Artist",
        started=None if started is None else at(started),
        duration_ms=None if length is None else length * 1000,
    )


@pytest.fixture
def playing() -> Playing:
    return Playing(timedelta(seconds=60))


def due(playing: Playing, second: float) -> list[tuple[str, datetime | None, bool]]:
    return [(heard.title, heard.started, heard.inferred) for _, heard in playing.due(at(second))]


def test_after_its_end_and_the_grace(playing: Playing) -> None:
    playing.begins(PHONE, song(), at(0))
    assert due(playing, 259) == []
    assert due(playing, 260) == [("Song", at(0), True)]
    # Until it is sent.
    assert due(playing, 300) == [("Song", at(0), True)]
    playing.reported(PHONE, [song(started=0)])
    assert due(playing, 300) == []


@pytest.mark.parametrize(("heard", "counts"), [(99, False), (100, True), (150, True)])
def test_half_of_it_has_to_be_heard(playing: Playing, heard: float, counts: bool) -> None:
    playing.begins(PHONE, song(), at(0))
    playing.begins(PHONE, song("Next"), at(heard))
    assert due(playing, heard + 59) == []
    assert due(playing, heard + 60) == ([("Song", at(0), True)] if counts else [])


@pytest.mark.parametrize("reported_at", [-29, 0, 30, 200, 229])
def test_a_report_of_it_is_no_second_play(playing: Playing, reported_at: float) -> None:
    """Also by another player, and by one that tells the end for the start."""
    playing.begins(PHONE, song(), at(0))
    playing.reported(DESK, [song(started=reported_at)])
    assert due(playing, 1_000) == []


def test_other_reports_change_nothing(playing: Playing) -> None:
    playing.begins(PHONE, song(), at(0))
    playing.reported(BOBS, [song(started=0)])
    playing.reported(PHONE, [song("Other", started=0), song(started=-200), song(started=400)])
    assert due(playing, 1_000) == [("Song", at(0), True)]


def test_what_is_said_again_while_it_plays_is_one_play(playing: Playing) -> None:
    for second in (0, 50, 120):
        playing.begins(PHONE, song(), at(second))
    assert due(playing, 1_000) == [("Song", at(0), True)]


def test_a_repeat_is_a_play_of_its_own(playing: Playing) -> None:
    playing.begins(PHONE, song(), at(0))
    playing.begins(PHONE, song(), at(200))
    assert due(playing, 1_000) == [("Song", at(0), True), ("Song", at(200), True)]


def test_two_players_play_side_by_side(playing: Playing) -> None:
    playing.begins(PHONE, song("One"), at(0))
    playing.begins(DESK, song("Two"), at(10))
    playing.stops(DESK, at(20))
    assert due(playing, 1_000) == [("One", at(0), True)]


def test_without_a_length_nothing_is_inferred(playing: Playing) -> None:
    playing.begins(PHONE, song(length=None), at(0))
    assert due(playing, 100_000) == []


def now_playing(board: Board, token: str, title: str) -> None:
    metadata = {"artist_name": "Artist", "track_name": title, "additional_info": {"duration_ms": 2_000}}
    with board.client(token) as client:
        sent = {"listen_type": "playing_now", "payload": [{"track_metadata": metadata}]}
        client.post("/1/submit-listens", json=sent).raise_for_status()


def test_by_the_real_server_with_the_switch_alone(
    board: Board, tmp_path: Path, broker: Broker, database: Database
) -> None:
    topic = f"test_{uuid.uuid4().hex[:12]}"
    with_it = make_board(tmp_path, broker, database, topic, infer_plays=True, infer_grace_seconds=1)
    ensure_topics(with_it.settings)
    try:
        with_it.start()
        (name, token), (other, others) = with_it.token(), board.token()
        now_playing(board, others, "Song")
        now_playing(with_it, token, "Song")
        found = wait_for(lambda: with_it.records(name), bool, 60, every=1)
        assert [(one["title"], one["reason_end"]) for one in found] == [("Song", "inferred")]
        assert (found[0]["source"], found[0]["duration_ms"]) == ("scrobble", 2_000)
        assert board.records(other) == []
        with_it.process.end(signal.SIGTERM)
        assert "Traceback" not in with_it.process.log.read_text(), with_it.process.log.read_text()
    finally:
        with_it.process.close()
