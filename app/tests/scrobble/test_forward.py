"""Plays passed on from one real scrobble server to another: by ListenBrainz's protocol and by Last.fm's."""

from __future__ import annotations

import contextlib
import hashlib
import json
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaProducer
from served import Board, served_board

from music_streaming import event
from music_streaming.scrobble.destinations import AwayError, Destination, NeverError, signed
from music_streaming.scrobble.forward import ForwardError, Recent, deliver, destinations, wanted
from music_streaming.testing import wait_for
from music_streaming.testing.broker import Broker
from music_streaming.testing.driver import Driver
from music_streaming.testing.postgres import Database, Postgres

NOW = datetime.now(UTC).replace(microsecond=0)
SECONDS = 60


@pytest.fixture(scope="module")
def other(
    tmp_path_factory: pytest.TempPathFactory, postgres: Postgres, _template: Database, broker: Broker
) -> Iterator[Board]:
    """The server of the other service: its own topic and database."""
    with served_board(tmp_path_factory.mktemp("other"), broker, postgres, _template) as made:
        yield made


@pytest.fixture
def service(board: Board, tmp_path: Path) -> Iterator[Callable[..., Driver]]:
    """Start music-forward on `board` with these destinations, and wait until it is at work."""
    running: list[Driver] = []

    def start(*those: dict[str, str]) -> Driver:
        (board.folder / "forward").write_text(json.dumps(those))
        made = Driver(
            tmp_path, board.environment, "music_streaming.scrobble.forward", f"forward-{len(running)}"
        )
        running.append(made)
        made.start()
        begun = wait_for(lambda: made.log.read_text().count("begins at"), lambda n: n == len(those), SECONDS)
        assert begun == len(those), made.log.read_text()
        return made

    yield start
    for one in running:
        assert "Traceback" not in one.log.read_text(), one.log.read_text()
        one.close()


def play(listener: str, number: int, **changes: Any) -> dict[str, Any]:
    named = {"artist": "Artist", "title": f"Song {number}", "user_id": listener} | changes
    started = NOW - timedelta(hours=4) + timedelta(seconds=200 * number)
    return {
        "event_id": event.play_id(named["user_id"], started, named["artist"], named["title"]),
        "event_time": event.format_time(started),
        "source": "scrobble",
        "player": "phone",
        "duration_ms": 180_000,
        **named,
    }


def produce(board: Board, *plays: dict[str, Any]) -> None:
    """What a player, the demo audience and an import put into the topic."""
    with contextlib.closing(
        KafkaProducer(bootstrap_servers=board.settings.kafka.bootstrap, acks="all")
    ) as kafka:
        for one in plays:
            kafka.send(
                board.settings.kafka.topic, key=one["user_id"].encode(), value=json.dumps(one).encode()
            )
        kafka.flush(30)


def arrived(other: Board, name: str, count: int) -> list[dict[str, Any]]:
    """The plays of the account there, once there are so many."""
    found: list[dict[str, Any]] = wait_for(
        lambda: other.records(name), lambda those: len(those) >= count, SECONDS, every=1
    )
    assert len(found) >= count, f"{len(found)} of {count} arrived"
    return found


def titles(records: list[dict[str, Any]]) -> list[str]:
    return [record["title"] for record in records]


def listenbrainz(listener: str, other: Board, token: str, **changes: str) -> dict[str, str]:
    return {"listener": listener, "service": "listenbrainz", "token": token, "url": other.url} | changes


def test_a_listeners_own_plays_go_on_once_and_no_others(
    board: Board, other: Board, service: Callable[..., Driver]
) -> None:
    (mine, token), (there, theirs) = board.token(), other.token()
    process = service(listenbrainz(mine, other, theirs))
    again, late = play(mine, 1), play(mine, 1)
    late |= {"player": "desk", "event_time": event.format_time(event.parse_time(late["event_time"]) + timedelta(seconds=9)),
             "event_id": str(uuid.uuid4())}  # fmt: skip
    produce(
        board,
        play("somebody else", 0),
        play(mine, 0, source="demo"),
        play(mine, 0, source="import"),
        play(mine, 0, skipped=True),
        {"user_id": mine, "source": "scrobble"},  # a reject
        again,
        again,
        late,
        play(mine, 2, title="Ænema – (ライブ)", album="Ä", player="mpd"),
    )
    # And one by the real server.
    with board.client(token) as client:
        listen = {
            "listened_at": int(NOW.timestamp()) - 30,
            "track_metadata": {"artist_name": "A", "track_name": "Sent"},
        }
        client.post(
            "/1/submit-listens", json={"listen_type": "single", "payload": [listen]}
        ).raise_for_status()
    found = arrived(other, there, 3)
    assert sorted(titles(found)) == ["Sent", "Song 1", "Ænema – (ライブ)"]
    (long,) = [one for one in found if one["title"].startswith("Æ")]
    assert (long["album"], long["duration_ms"], long["player"]) == ("Ä", 180_000, "mpd")
    assert long["event_time"] == play(mine, 2)["event_time"]
    assert process.end(signal.SIGTERM) == 0


@pytest.mark.slow
def test_what_was_played_while_the_other_service_or_this_one_was_away_comes_later(
    board: Board, other: Board, service: Callable[..., Driver]
) -> None:
    mine, (there, theirs) = f"l-{uuid.uuid4().hex[:8]}", other.token()
    process = service(listenbrainz(mine, other, theirs))
    produce(board, play(mine, 0))
    arrived(other, there, 1)
    other.process.end(signal.SIGTERM)
    produce(board, *(play(mine, number) for number in range(1, 6)))
    told = wait_for(process.log.read_text, lambda text: "again in" in text, SECONDS)
    assert "again in" in told, told
    # Killed while it waits, with plays that it has read.
    process.end(signal.SIGKILL)
    produce(board, play(mine, 6))
    service(listenbrainz(mine, other, theirs))
    other.start()
    wanted_titles = [f"Song {number}" for number in range(7)]
    found = wait_for(
        lambda: other.records(there), lambda those: set(titles(those)) >= set(wanted_titles), SECONDS
    )
    assert set(titles(found)) == set(wanted_titles)
    # At least once; the other side tells what came twice by its id.
    assert len({record["event_id"] for record in found}) == 7


def test_a_token_that_is_nobodys_holds_up_no_other_destination(
    board: Board, other: Board, service: Callable[..., Driver]
) -> None:
    mine, (there, theirs) = f"l-{uuid.uuid4().hex[:8]}", other.token()
    process = service(
        listenbrainz(mine, other, str(uuid.uuid4()), url=f"{other.url}/"),
        {"listener": mine, "service": "maloja", "token": theirs, "url": other.url},
    )
    produce(board, play(mine, 0), play(mine, 1))
    assert titles(arrived(other, there, 2)) == ["Song 0", "Song 1"]
    told = wait_for(process.log.read_text, lambda text: "nobody's or revoked" in text, SECONDS)
    assert f"{mine} to listenbrainz: 401" in told, told
    begun = time.monotonic()
    assert process.end(signal.SIGTERM) == 0
    assert time.monotonic() - begun < 20


def test_lastfm(board: Board, other: Board, service: Callable[..., Driver]) -> None:
    mine, (there, theirs) = f"l-{uuid.uuid4().hex[:8]}", other.token()
    with other.client() as client:
        login = {"method": "auth.getMobileSession", "username": there, "password": theirs, "format": "json"}
        key = client.post("/2.0/", data=login).raise_for_status().json()["session"]["key"]
    lastfm = {"service": "lastfm", "url": f"{other.url}/2.0/", "api_key": "k", "api_secret": "s"}
    service({"listener": mine, "token": key} | lastfm)
    produce(board, *(play(mine, number, album="Album") for number in range(60)))
    found = arrived(other, there, 60)
    assert sorted(titles(found)) == sorted(f"Song {number}" for number in range(60))
    assert {(one["album"], one["duration_ms"]) for one in found} == {("Album", 180_000)}


def test_the_signature_is_that_of_the_specification() -> None:
    fields = {"method": "auth.getSession", "api_key": "xxxxxxxx", "token": "yyyyyy"}
    text = "api_keyxxxxxxxxmethodauth.getSessiontokenyyyyyyilovecher"
    sent = signed(fields, "ilovecher")
    assert sent["api_sig"] == hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
    assert sent["format"] == "json"


def test_a_play_that_is_never_taken_is_left_out_and_the_others_go_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    values = [json.dumps(play("ada", number)).encode() for number in range(9)]
    plays = wanted(values, "ada", Recent(), NOW)
    taken: list[str] = []

    def send(some: Any) -> None:
        names = titles(some)
        if "Song 5" in names:
            raise NeverError("400: no such song")
        taken.extend(names)

    assert deliver(plays, send) == 8
    assert sorted(taken) == [f"Song {number}" for number in range(9) if number != 5]
    assert "left out: Artist – Song 5" in caplog.text


def test_a_play_that_its_player_reports_after_it_was_inferred_goes_on_once() -> None:
    inferred = play("ada", 1, reason_end=event.INFERRED)
    later = event.format_time(event.parse_time(inferred["event_time"]) + timedelta(seconds=12))
    reported = play("ada", 1, event_id=str(uuid.uuid4()), event_time=later)
    found = [json.dumps(one).encode() for one in (inferred, reported)]
    assert [one["reason_end"] for one in wanted(found, "ada", Recent(), NOW)] == [event.INFERRED]
    # Without the mark it is a repeat by the same player.
    found[0] = json.dumps(inferred | {"reason_end": "trackdone"}).encode()
    assert len(wanted(found, "ada", Recent(), NOW)) == 2


def test_what_is_away_is_not_left_out() -> None:
    def send(_: Any) -> None:
        raise AwayError("503")

    with pytest.raises(AwayError):
        deliver([{"title": "Song"}], send)


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ({"service": "listenbrainz", "token": "t"}, "listener"),
        ({"listener": "ada", "service": "myspace", "token": "t"}, "service"),
        ({"listener": "ada", "service": "lastfm", "token": "t"}, "api_key"),
        ({"listener": "ada", "service": "maloja", "token": "t"}, "url of Maloja"),
        ({"listener": "ada", "service": "listenbrainz", "token": "t", "tokn": "secret-1"}, "tokn"),
    ],
)
def test_a_mistake_in_the_settings_is_named_without_a_token(
    board: Board, entry: dict[str, str], says: str
) -> None:
    (board.folder / "forward").write_text(json.dumps([entry]))
    with pytest.raises(ForwardError, match="pipeline_forwards") as caught:
        destinations(board.settings)
    assert says in str(caught.value)
    assert "secret-1" not in str(caught.value)


def test_each_destination_has_a_group_of_its_own() -> None:
    def to(listener: str, service: str, token: str, url: str = "") -> Destination:
        sent = {"listener": listener, "service": service, "token": token, "url": url}
        return Destination.model_validate(sent)

    one = to("ada", "listenbrainz", "t")
    assert one.address == "https://api.listenbrainz.org"
    assert one.group == to("ada", "listenbrainz", "other").group
    others = [
        to("bob", "listenbrainz", "t"),
        to("ada", "maloja", "t", "http://192.0.2.7:42010/"),
    ]
    assert others[1].address == "http://192.0.2.7:42010/apis/listenbrainz"
    assert len({one.group, *(other.group for other in others)}) == 3
