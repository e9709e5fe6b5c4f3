"""The server when its neighbours or itself die: what was acknowledged is there, once."""

from __future__ import annotations

import json
import signal
import time

import httpx
import pytest
from relay import relay

from music_streaming.board.validate import validate as take_sample
from music_streaming.scrobble.protection import tidy
from music_streaming.scrobble.server import ROUTES, near_miss
from music_streaming.testing import wait_for
from music_streaming.topic import ensure_topics

NOW = int(time.time())


def body(title: str = "Song", at: int = NOW - 600) -> str:
    listen = {"listened_at": at, "track_metadata": {"track_name": title, "artist_name": "Artist"}}
    return json.dumps({"listen_type": "single", "payload": [listen]})


def send(client: httpx.Client, title: str = "Song") -> int:
    return client.post("/1/submit-listens", content=body(title)).status_code


@pytest.mark.slow
def test_while_kafka_is_away_players_keep_their_plays(own_board, own_broker):
    board = own_board()
    board.start()
    name, token = board.token()
    with board.client(token) as client:
        answer = client.post("/1/submit-listens", content=body())
        assert (answer.status_code, answer.json()["code"]) == (503, 503)
        assert "found Kafka away" in answer.json()["error"]
        own_broker.start()
        ensure_topics(board.settings)
        assert wait_for(lambda: send(client), lambda status: status == 200, 60) == 200
        own_broker.pause()
        begun = time.monotonic()
        assert send(client, "While it hangs") == 503
        assert time.monotonic() - begun < 30
        own_broker.resume()
        assert wait_for(lambda: send(client, "While it hangs"), lambda status: status == 200, 60) == 200
        own_broker.kill()
        assert send(client, "After its death") == 503
        own_broker.start()
        assert wait_for(lambda: send(client, "After its death"), lambda status: status == 200, 60) == 200
    events = board.records(name)
    assert {event["title"] for event in events} == {"Song", "While it hangs", "After its death"}
    assert len({event["event_id"] for event in events}) == 3
    assert "Traceback" not in board.process.log.read_text()


def test_while_postgresql_is_away_known_players_are_served(board):
    name, token = board.token()
    with board.client(token) as client:
        assert send(client) == 200
        board.database.rows("ALTER ROLE music_scrobble NOLOGIN", role="postgres")
        try:
            board.database.rows(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE usename = 'music_scrobble' AND datname = current_database()",
                role="postgres",
            )
            assert send(client, "Another") == 200
            answer = client.get(f"/1/user/{name}/listen-count")
            assert (answer.status_code, answer.json()["code"]) == (503, 503)
        finally:
            board.database.rows("ALTER ROLE music_scrobble LOGIN", role="postgres")
        assert client.get(f"/1/user/{name}/listen-count").status_code == 200
    assert len(board.records(name)) == 2


@pytest.mark.slow
def test_killed_between_kafkas_acknowledgement_and_the_answer_it_counts_once(
    board, broker, driver, database, settings
):
    """The client never hears the answer, sends the play again, and the job counts it once."""
    driver.environment["MUSIC_KAFKA__TOPIC"] = board.settings.kafka.topic
    name, token = board.token()
    killed = []
    with (
        relay(
            board.settings.scrobble.port, at_answer=lambda: killed.append(board.process.end(signal.SIGKILL))
        ) as between,
        httpx.Client(headers={"Authorization": f"Token {token}"}, timeout=60) as client,
    ):
        address = f"http://127.0.0.1:{between.port}/1/submit-listens"
        with pytest.raises(httpx.HTTPError):
            client.post(address, content=body())
        assert wait_for(lambda: killed, bool, 30) == [-signal.SIGKILL]
        board.start()
        assert client.post(address, content=body()).status_code == 200
        assert client.post(address, content=body("Next")).status_code == 200
    first, again, following = board.records(name)
    assert first["event_id"] == again["event_id"] != following["event_id"]
    driver.start()
    counted = wait_for(
        lambda: database.rows(
            "SELECT accepted, duplicates FROM ingest_totals WHERE source = 'scrobble' AND accepted > 0"
        ),
        lambda rows: bool(rows) and sum(rows[0]) >= broker.count(board.settings.kafka.topic),
        150,
        every=1,
    )
    titles = database.rows("SELECT title FROM stream_events WHERE user_id = %s ORDER BY title", (name,))
    assert titles == [("Next",), ("Song",)], driver.log.read_text()[-3000:]
    (accepted, duplicates), exact = counted[0], database.rows("SELECT exact FROM ingest_exactness")
    assert duplicates >= 1
    assert accepted == database.value("SELECT count(*) FROM stream_events")
    assert exact == [(True,)] * 3
    removed = "SELECT remove_own_play(%s, %s)"
    assert database.value(removed, (first["event_id"], "another"), "music_scrobble") is False
    assert database.value(removed, (first["event_id"], name), "music_scrobble") is True
    assert database.value(removed, (first["event_id"], name), "music_scrobble") is False
    sample = take_sample(settings)
    assert sample.ok, [check for check in sample.checks if not check.ok]
    assert database.value("SELECT accepted FROM ingest_totals WHERE source = 'scrobble'") == accepted - 1


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        ("/", "/"), ("//1//submit-listens//", "/1/submit-listens"), ("/1/1/submit-listens", "/1/submit-listens"),
        ("/apis/listenbrainz/1/validate-token", "/1/validate-token"), ("/1/user/a/listens", "/1/user/a/listens"),
        ("/apis/listenbrainzX/1", "/apis/listenbrainzX/1"), ("/11/submit", "/11/submit"),
    ],
)  # fmt: skip
def test_paths_are_tidied(path, wanted):
    assert tidy(path) == wanted


@pytest.mark.parametrize(
    ("path", "right"),
    [
        ("/submit-listens", "/1/submit-listens"),
        ("/api/1/submit-listens", "/1/submit-listens"),
        ("/2/submit-listens", "/1/submit-listens"),
        ("/user/ada/playing-now", "/1/user/{name}/playing-now"),
        ("/1/validate_token", "/1/validate-token"),
        ("/index.php", None),
        ("/x", None),
    ],
)
def test_a_near_miss_is_told_the_right_path(path, right):
    assert near_miss(path, ROUTES) == right
