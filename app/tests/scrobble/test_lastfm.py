"""Last.fm's API 2.0: asked by pylast, and by hand where pylast does not go."""

from __future__ import annotations

import ssl
import subprocess
import time

import httpx
import pylast
import pytest
from relay import relay

NOW = int(time.time())


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """Files of a certificate for 127.0.0.1 and its key."""
    folder = tmp_path_factory.mktemp("tls")
    made = [folder / "certificate.pem", folder / "key.pem"]
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=127.0.0.1",
         "-addext", "subjectAltName=IP:127.0.0.1", "-out", made[0], "-keyout", made[1]],
        check=True, capture_output=True,
    )  # fmt: skip
    return made


@pytest.fixture
def network(board, certificate, monkeypatch):
    """pylast's network of this server: it speaks TLS alone, so a proxy stands in front as it would at home."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(*certificate)
    monkeypatch.setattr(pylast, "SSL_CONTEXT", ssl.create_default_context(cafile=certificate[0]))
    with relay(board.settings.scrobble.port, tls=tls) as front:

        def made(name: str, token: str) -> pylast.LibreFMNetwork:
            found = pylast.LibreFMNetwork(api_key="key", api_secret="secret")  # noqa: S106
            found.ws_server = (f"127.0.0.1:{front.port}", "/2.0/")
            found.username, found.password_hash = name, pylast.md5(token)
            found.session_key = pylast.SessionKeyGenerator(found).get_session_key(name, found.password_hash)
            return found

        yield made


def test_pylast_is_content(board, network):
    name, token = board.token(player="desktop")
    client = network(name, token)
    client.scrobble("Artist", "One", NOW - 600, album="Album", duration=200)
    client.scrobble_many(
        [
            {"artist": "Björk", "title": f"Song {number} & <b>", "timestamp": NOW - 500 + number}
            for number in range(50)
        ]
    )
    client.update_now_playing("Artist", "Now", duration=100)
    client.get_track("Artist", "One").love()
    events = board.records(name)
    assert len(events) == 51
    assert {"title": "One", "album": "Album", "duration_ms": 200_000, "player": "desktop"}.items() <= events[
        0
    ].items()
    assert "Song 49 & <b>" in {event["title"] for event in events}
    with board.client(token) as plain:
        (shown,) = plain.get(f"/1/user/{name}/playing-now").json()["payload"]["listens"]
        assert shown["track_metadata"]["track_name"] == "Now"
        feedback = plain.get(f"/1/feedback/user/{name}/get-feedback").json()["feedback"]
        assert [(one["track_metadata"]["track_name"], one["score"]) for one in feedback] == [("One", 1)]
        client.get_track("artist", "one").unlove()
        assert plain.get(f"/1/feedback/user/{name}/get-feedback").json()["total_count"] == 0


def test_pylast_hears_that_the_password_is_wrong(board, network):
    name, _ = board.token()
    with pytest.raises(pylast.WSError, match="wanted the player's token"):
        network(name, "another")


def ask(board, **fields: str) -> httpx.Response:
    return httpx.post(f"{board.url}/2.0/", data={"api_key": "k", "format": "json", **fields}, timeout=30)


def session(board, name: str, token: str) -> str:
    answer = ask(board, method="auth.getMobileSession", username=name, password=token).json()
    assert answer["session"]["name"] == name
    return answer["session"]["key"]


def test_the_good_ones_of_a_batch_are_taken_and_the_others_explained(board):
    name, token = board.token()
    fields = {"method": "track.scrobble", "sk": session(board, name, token)}
    for number, (artist, track, at) in enumerate(
        [
            ("A", "Good", NOW - 60),
            ("", "No artist", NOW),
            ("A", "", NOW),
            ("A", "Old", 5),
            ("A", "New", NOW + 9_999),
        ]
    ):
        fields |= {f"artist[{number}]": artist, f"track[{number}]": track, f"timestamp[{number}]": str(at)}
    answer = ask(board, **fields).json()["scrobbles"]
    assert answer["@attr"] == {"accepted": 1, "ignored": 4}
    assert [one["ignoredMessage"]["code"] for one in answer["scrobble"]] == [0, 1, 2, 3, 4]
    assert [event["title"] for event in board.records(name)] == ["Good"]
    one = {"artist": "A", "track": "Alone", "timestamp": str(NOW)}
    shown = ask(board, method="track.scrobble", sk=fields["sk"], **one).json()["scrobbles"]["scrobble"]
    assert (shown["track"]["#text"], shown["timestamp"]) == ("Alone", str(NOW))


@pytest.mark.parametrize(
    ("fields", "number", "status"),
    [
        ({"method": "chart.getTopTracks"}, 3, 400),
        ({}, 3, 400),
        ({"method": "track.scrobble"}, 6, 400),
        ({"method": "track.scrobble", "sk": "nobody's"}, 9, 403),
        ({"method": "auth.getMobileSession", "username": "ada"}, 6, 400),
        ({"method": "auth.getMobileSession", "username": "ada", "password": "x"}, 4, 403),
        ({"method": "auth.getSession", "token": "x"}, 14, 403),
    ],
)
def test_errors_have_last_fms_numbers(board, fields, number, status):
    answer = ask(board, **fields)
    assert (answer.status_code, answer.json()["error"]) == (status, number)
    answer = ask(board, **fields, format="xml")
    assert f'<error code="{number}">' in answer.text
    assert '<lfm status="failed">' in answer.text


def test_a_session_is_of_one_listener_and_ends_with_the_token(board):
    name, token = board.token()
    other, _ = board.token()
    assert ask(board, method="auth.getMobileSession", username=other, password=token).json()["error"] == 4
    key = session(board, name, token)
    assert token not in key
    assert key != pylast.md5(token)


def test_a_token_waits_for_its_users_approval(board):
    token = ask(board, method="auth.getToken").json()["token"]
    assert ask(board, method="auth.getSession", token=token).json()["error"] == 14


# AudioScrobbler 1.2, the older protocol.


def handshake(board, name: str, token: str, at: int | None = None) -> list[str]:
    at = at or int(time.time())
    proof = pylast.md5(f"{pylast.md5(token)}{at}")
    asked = {"hs": "true", "p": "1.2.1", "c": "tst", "v": "1.0", "u": name, "t": str(at), "a": proof}
    return httpx.get(f"{board.url}/", params=asked).text.splitlines()


def test_an_older_player_shakes_hands_and_sends_plays(board):
    name, token = board.token()
    said, key, playing, submit = handshake(board, name, token)
    assert said == "OK"
    assert all(address.startswith(board.url) for address in (playing, submit))
    now = {"s": key, "a": "Artist", "t": "Now", "b": "", "l": "100", "n": "", "m": ""}
    assert httpx.post(playing, data=now).text == "OK\n"
    plays = {"s": key}
    for number in range(50):
        plays |= {
            f"a[{number}]": "Artist", f"t[{number}]": f"Song {number}", f"i[{number}]": str(NOW - 9_000 + number),
            f"o[{number}]": "P", f"r[{number}]": {0: "L", 1: "S"}.get(number, ""), f"l[{number}]": "120",
            f"b[{number}]": "Album", f"n[{number}]": "1", f"m[{number}]": "",
        }  # fmt: skip
    assert httpx.post(submit, data=plays).text == "OK\n"
    events = board.records(name)
    assert len(events) == 50
    assert {"liked": True, "duration_ms": 120_000, "album": "Album"}.items() <= events[0].items()
    assert events[1]["skipped"] is True
    assert board.store(name) == 50


def test_an_older_player_hears_why_not(board):
    name, token = board.token()
    assert handshake(board, name, "another") == ["BADAUTH"]
    assert handshake(board, "nobody", token) == ["BADAUTH"]
    assert handshake(board, name, token, at=NOW - 90_000) == ["BADTIME"]
    assert httpx.get(f"{board.url}/", params={"hs": "true", "p": "1.1"}).text.startswith(
        "FAILED found protocol 1.1"
    )
    assert httpx.post(f"{board.url}/audioscrobbler/submit", data={"s": "x"}).text == "BADSESSION\n"
    key = handshake(board, name, token)[1]
    plays = {"s": key} | {f"a[{number}]": "A" for number in range(51)}
    for fields in ({"s": key}, plays):
        answer = httpx.post(f"{board.url}/audioscrobbler/submit", data=fields).text
        assert answer.startswith("FAILED found")
    one = {"s": key, "a[0]": "A", "t[0]": "", "i[0]": str(NOW), "a[1]": "A", "t[1]": "Good", "i[1]": str(NOW)}
    assert httpx.post(f"{board.url}/audioscrobbler/submit", data=one).text == "OK\n"
    assert [event["title"] for event in board.records(name)] == ["Good"]
