"""The ListenBrainz API, asked of the real server: rules, answers, and that Kafka has what was acknowledged."""

import json
import time

import httpx
import liblistenbrainz
import pytest

NOW = int(time.time())


def listen(title: str = "Song", at: int = NOW - 600, **more) -> dict:
    metadata = {"track_name": title, "artist_name": "Artist"} | more.pop("metadata", {})
    return {"listened_at": at, "track_metadata": metadata | ({"additional_info": more} if more else {})}


def submit(client: httpx.Client, *listens: dict, kind: str = "single", path: str = "/1/submit-listens"):
    return client.post(path, content=json.dumps({"listen_type": kind, "payload": list(listens)}))


@pytest.fixture
def ada(board):
    """Name and client of a listener of her own."""
    name, token = board.token(age_group="35-44", country="DE", subscription_type="family")
    with board.client(token) as client:
        yield name, client


def test_a_listen_is_in_kafka_when_it_is_acknowledged(board, ada):
    name, client = ada
    answer = submit(
        client,
        listen(
            metadata={"release_name": "Album"},
            duration_ms=180_000,
            media_player="Player",
            tags=["Rock", "Pop"],
        ),
    )
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
    (event,) = board.records(name)
    assert event == {
        "event_id": event["event_id"],
        "event_time": event["event_time"],
        "source": "scrobble",
        "user_id": name,
        "title": "Song",
        "artist": "Artist",
        "album": "Album",
        "genre": "Rock",
        "duration_ms": 180_000,
        "subscription_type": "family",
        "age_group": "35-44",
        "country": "DE",
        "device_type": "mobile",
        "player": "Player",
    }


def test_sent_again_it_has_the_same_id(board, ada):
    name, client = ada
    for _ in range(2):
        assert submit(client, listen("Again")).status_code == 200
    first, second = board.records(name)
    assert first["event_id"] == second["event_id"]
    assert board.store(name) == 1


@pytest.mark.parametrize(
    ("length", "stored"),
    [
        ({"duration_ms": 0}, None), ({"duration_ms": 180000.0}, 180_000), ({"duration_ms": "180000"}, 180_000),
        ({"duration": 180}, 180_000), ({"duration": "3.5"}, 3_500), ({"duration": -1}, None),
        ({"duration_ms": None}, None), ({"duration_ms": [1]}, None), ({"duration_ms": "1e999"}, None),
        ({"duration": "long"}, None), ({"duration_ms": 10**20}, None),
    ],
)  # fmt: skip
def test_an_odd_length_costs_the_field_alone(board, length, stored):
    name, token = board.token()
    with board.client(token) as client:
        answer = submit(client, listen(**length))
    assert answer.status_code == 200, answer.text
    (event,) = board.records(name)
    assert event.get("duration_ms") == stored


@pytest.mark.parametrize(
    "at",
    [1_033_410_600, NOW + 3_500, str(NOW - 60), NOW - 60.0],
    ids=["oldest", "newest", "as text", "as a fraction"],
)
def test_times_at_the_limits_are_plays_that_the_job_takes(board, at):
    name, token = board.token()
    with board.client(token) as client:
        assert submit(client, listen(at=at)).status_code == 200
    assert board.store(name) == 1


BAD = {
    "no json": (b"{", "found no JSON document"),
    "not utf-8": (b'{"a": "\xff"}', "found no JSON document"),
    "deep": (b"[" * 100_000, "found no JSON document"),
    "nan": (b'{"listen_type": NaN}', "NaN is no JSON"),
    "a list": (b"[]", "found no JSON object"),
    "no type": ({"payload": [listen()]}, "listen_type: found None"),
    "odd type": ({"listen_type": "album", "payload": [listen()]}, "wanted one of single, import, playing_now"),
    "no payload": ({"listen_type": "single"}, "payload: found no listens"),
    "empty": ({"listen_type": "import", "payload": []}, "payload: found no listens"),
    "two singles": ({"listen_type": "single", "payload": [listen(), listen("Two")]}, "found 2 listens, wanted one"),
    "a text": ({"listen_type": "single", "payload": ["x"]}, "payload[0]: found no object"),
    "no time": ({"listen_type": "single", "payload": [{"track_metadata": {}}]}, "payload[0]: found no listened_at"),
    "more": ({"listen_type": "single", "payload": [listen() | {"user_name": "a"}]}, "payload[0]: found user_name"),
    "too early": ({"listen_type": "single", "payload": [listen(at=1_033_410_599)]}, "wanted 1033410600"),
    "too late": ({"listen_type": "single", "payload": [listen(at=NOW + 7_300)]}, "wanted at most an hour from now"),
    "odd time": ({"listen_type": "single", "payload": [listen(at="today")]}, "wanted Unix seconds"),
    "true": ({"listen_type": "single", "payload": [listen(at=True)]}, "wanted Unix seconds"),
    "no title": ({"listen_type": "single", "payload": [listen(" \u200b")]}, "track_name: found an empty text"),
    "number": ({"listen_type": "single", "payload": [listen(1999)]}, "track_name: found a number, wanted a text"),
    "long": ({"listen_type": "single", "payload": [listen("x" * 1025)]}, "found 1025 bytes, wanted at most 1024"),
    "nul": ({"listen_type": "single", "payload": [listen(note="a\0b")]}, "additional_info.note: found a NUL"),
    "surrogate": ({"listen_type": "single", "payload": [listen("\ud800")]}, "half of a surrogate pair"),
    "both": ({"listen_type": "single", "payload": [listen(duration=1, duration_ms=1)]}, "duration and duration_ms"),
    "mbid": ({"listen_type": "single", "payload": [listen(recording_mbid="x")]}, "recording_mbid: found 'x'"),
    "mbids": ({"listen_type": "single", "payload": [listen(artist_mbids=["x"])]}, "artist_mbids: found 'x'"),
    "tags": ({"listen_type": "single", "payload": [listen(tags=["a"] * 51)]}, "found 51 tags"),
    "tag": ({"listen_type": "single", "payload": [listen(tags=["a" * 65])]}, "found a longer tag"),
    "large": ({"listen_type": "single", "payload": [listen(note="x" * 10_240)]}, "wanted at most 10240 each"),
    "1001": ({"listen_type": "import", "payload": [listen()] * 1_001}, "found 1001 listens"),
    "now with time": ({"listen_type": "playing_now", "payload": [listen()]}, "payload[0]: found listened_at"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_what_breaks_a_rule_is_refused_with_the_reason(board, ada, case):
    name, client = ada
    sent, reason = BAD[case]
    answer = client.post("/1/submit-listens", content=sent if isinstance(sent, bytes) else json.dumps(sent))
    content = answer.json()
    assert (answer.status_code, content["code"]) == (400, 400), content
    assert reason in content["error"]
    assert board.records(name) == []


def test_a_batch_is_taken_or_refused_as_a_whole(board, ada):
    name, client = ada
    good = [listen(f"Song {number}", NOW - 10_000 + number) for number in range(1_000)]
    assert (
        submit(client, *good[:3], listen(at=5), kind="import")
        .json()["error"]
        .startswith("payload[3].listened_at")
    )
    assert board.records(name) == []
    assert submit(client, *good, kind="import").status_code == 200
    titles = [event["title"] for event in board.records(name)]
    assert sorted(titles) == sorted(one["track_metadata"]["track_name"] for one in good)


def test_a_body_over_the_limit_is_refused_before_it_is_parsed(board, ada):
    _, client = ada
    body = b"[" + b" " * 10_240_000 + b"]"
    for content in (body, (part for part in (body[:5_000_000], body[5_000_000:]))):
        answer = client.post("/1/submit-listens", content=content)
        assert (answer.status_code, answer.json()["code"]) == (413, 413)


@pytest.mark.parametrize(
    "path",
    [
        "//1/submit-listens", "/1//submit-listens/", "/1/submit-listens/", "/apis/listenbrainz/1/submit-listens",
        "/1/1/submit-listens",
    ],
)  # fmt: skip
def test_the_root_may_be_written_in_several_ways(board, path):
    _, token = board.token()
    with board.client(token) as client:
        assert submit(client, listen(), path=f"{board.url}{path}").status_code == 200


@pytest.mark.parametrize("scheme", ["Token", "token", "TOKEN", "Bearer"])
def test_whose_token_it_is(board, scheme):
    name, token = board.token()
    answer = httpx.get(
        f"{board.url}/1/validate-token", headers={"Authorization": f"{scheme} {token.upper()}"}
    )
    assert answer.json() == {"code": 200, "message": "Token valid.", "valid": True, "user_name": name}


def test_a_token_of_nobody_is_told_apart_from_none(board):
    ask = f"{board.url}/1/validate-token"
    answer = httpx.get(ask, headers={"Authorization": "Token nobody"})
    assert (answer.status_code, answer.json()) == (
        200,
        {"code": 200, "message": "Token invalid.", "valid": False},
    )
    assert httpx.get(ask, params={"token": "nobody"}).json()["valid"] is False
    assert httpx.get(ask).json()["code"] == 400
    for header in (
        {},
        {"Authorization": "Token nobody"},
        {"Authorization": "nobody"},
        {"Authorization": "Basic x"},
    ):
        answer = httpx.post(f"{board.url}/1/submit-listens", headers=header, content=b"{}")
        assert (answer.status_code, answer.json()["code"]) == (401, 401)


def test_every_error_is_json_and_names_the_right_way(board, ada):
    _, client = ada
    answer = client.get("/1/submit-listens")
    assert (answer.status_code, answer.json()["code"]) == (405, 405)
    assert "wanted POST" in answer.json()["error"]
    for path, right in (
        ("/api/submit-listens", "/1/submit-listens"),
        ("/submit-listens", "/1/submit-listens"),
        ("/1/submit-listen", "/1/submit-listens"),
        ("/listenbrainz/1/user/ada/listens", "/1/user/{name}/listens"),
        ("/nowhere", None),
    ):
        answer = client.post(path)
        assert (answer.status_code, answer.json()["code"]) == (404, 404)
        said = answer.json()["error"]
        assert (
            f"set the server's address in the player to {board.url}" in said if right else board.url in said
        )
        assert right is None or f"Wanted {right}:" in said, said


def test_browsers_may_ask_from_any_page(board, ada):
    name, client = ada
    asked = {
        "Origin": "https://music.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type",
    }
    answer = client.options("/1/submit-listens", headers=asked)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "authorization" in answer.headers["access-control-allow-headers"].lower()
    for path in ("/1/validate-token", f"/1/user/{name}/listens", "/nowhere"):
        answer = client.get(path, headers={"Origin": "https://music.example"})
        assert answer.headers["access-control-allow-origin"] == "*", path


def test_nobody_reads_or_changes_what_another_one_hears(board, ada):
    name, _ = ada
    _, other = board.token()
    with board.client(other) as mallory, board.client() as stranger:
        for path in (
            "user/{}/listens", "user/{}/listen-count", "user/{}/playing-now", "stats/user/{}/artists",
            "stats/user/{}/daily-activity", "feedback/user/{}/get-feedback",
        ):  # fmt: skip
            assert mallory.get(f"/1/{path.format(name)}").status_code == 403, path
            assert stranger.get(f"/1/{path.format(name)}").status_code == 401, path
        assert stranger.get("/1/stats/sitewide/artists").status_code == 401


def test_a_revoked_token_is_useless_within_seconds(board):
    from music_streaming import listener  # noqa: PLC0415
    from music_streaming.testing import wait_for  # noqa: PLC0415

    name, token = board.token()
    with board.client(token) as client:
        assert submit(client, listen()).status_code == 200
        connection = board.database.connect("music_owner")
        listener.revoke(connection, name)
        connection.close()
        assert wait_for(lambda: submit(client, listen()).status_code, lambda code: code == 401, 10) == 401


def test_liblistenbrainz_is_content(board):
    """The client that ListenBrainz's own people keep."""
    name, token = board.token()
    client = liblistenbrainz.ListenBrainz(api_base_url=board.url)
    client.set_auth_token(token)
    with pytest.raises(liblistenbrainz.errors.InvalidAuthTokenException):
        liblistenbrainz.ListenBrainz(api_base_url=board.url).set_auth_token("nobody")
    songs = [
        liblistenbrainz.Listen("One", "Artist", listened_at=NOW - 900, release_name="Album", tags=["Jazz"]),
        liblistenbrainz.Listen("Two", "Björk", listened_at=NOW - 600),
        liblistenbrainz.Listen("One", "Artist", listened_at=NOW - 300, release_name="Album"),
    ]
    assert client.submit_multiple_listens(songs[:2]) == {"status": "ok"}
    assert client.submit_single_listen(songs[2]) == {"status": "ok"}
    assert client.submit_playing_now(liblistenbrainz.Listen("Three", "Artist")) == {"status": "ok"}
    assert client.get_playing_now(name).track_name == "Three"
    assert client.get_user_artists(name) is None
    assert board.store(name) == 3
    found = client.get_listens(name)
    assert [(one.track_name, one.artist_name, one.listened_at) for one in found] == [
        ("One", "Artist", NOW - 300), ("Two", "Björk", NOW - 600), ("One", "Artist", NOW - 900),
    ]  # fmt: skip
    assert [one.listened_at for one in client.get_listens(name, max_ts=NOW - 300, count=1)] == [NOW - 600]
    assert [one.listened_at for one in client.get_listens(name, min_ts=NOW - 900, count=1)] == [NOW - 600]
    for get, entity, first in (
        (client.get_user_artists, "artists", {"artist_name": "Artist", "listen_count": 2}),
        (
            client.get_user_recordings,
            "recordings",
            {"track_name": "One", "release_name": "Album", "listen_count": 2},
        ),
        (
            client.get_user_releases,
            "releases",
            {"release_name": "Album", "artist_name": "Artist", "listen_count": 2},
        ),
    ):
        payload = get(name, time_range="this_year")["payload"]
        assert first.items() <= payload[entity][0].items()
        assert payload["user_id"] == name
    with pytest.raises(liblistenbrainz.errors.ListenBrainzAPIException) as refused:
        client.submit_single_listen(liblistenbrainz.Listen("Old", "Artist", listened_at=1))
    assert (refused.value.status_code, "wanted 1033410600" in refused.value.message) == (400, True)
    client.submit_user_feedback(1, "0f8fad5b-d9cb-469f-a165-70867728950e")
    with board.client(token) as plain:
        assert plain.get(f"/1/feedback/user/{name}/get-feedback").json()["total_count"] == 1


def test_activity_adds_up(board, ada):
    name, client = ada
    times = [NOW - 3_600 * 24 * days - 600 for days in range(3)]
    assert submit(client, *(listen(f"S{at}", at) for at in times), kind="import").status_code == 200
    assert client.get(f"/1/stats/user/{name}/listening-activity").status_code == 204
    assert board.store(name) == 3
    assert client.get(f"/1/user/{name}/listen-count").json() == {"payload": {"count": 3}}
    activity = client.get(f"/1/stats/user/{name}/listening-activity").json()["payload"]["listening_activity"]
    assert sum(part["listen_count"] for part in activity) == 3
    daily = client.get(f"/1/stats/user/{name}/daily-activity", params={"range": "all_time"}).json()
    hours = [hour for day in daily["payload"]["daily_activity"].values() for hour in day]
    assert (len(hours), sum(hour["listen_count"] for hour in hours)) == (168, 3)
    top = client.get("/1/stats/sitewide/recordings", params={"count": 1000}).json()["payload"]["recordings"]
    assert {"track_name": f"S{times[0]}", "artist_name": "Artist", "listen_count": 1} in top
    assert client.get("/1/stats/sitewide/listening-activity").json()["payload"]["listening_activity"]
    assert client.get(f"/1/stats/user/{name}/artists", params={"range": "ever"}).json()["code"] == 400
    assert client.get(f"/1/stats/user/{name}/artists", params={"count": "-1"}).json()["code"] == 400


def test_a_play_is_taken_out_again(board, ada):
    name, client = ada
    assert submit(client, listen("Wrong"), listen("Right", NOW - 300), kind="import").status_code == 200
    assert board.store(name) == 2
    shown = {
        one["track_metadata"]["track_name"]: one
        for one in client.get(f"/1/user/{name}/listens").json()["payload"]["listens"]
    }
    meant = {key: shown["Wrong"][key] for key in ("listened_at", "recording_msid")}
    _, token = board.token()
    with board.client(token) as mallory:
        assert mallory.post("/1/delete-listen", json=meant).status_code == 404
    assert client.post("/1/delete-listen", json=meant).json() == {"status": "ok"}
    assert client.post("/1/delete-listen", json=meant).status_code == 404
    assert client.post("/1/delete-listen", json={"listened_at": 5}).status_code == 400
    assert client.get(f"/1/user/{name}/listen-count").json() == {"payload": {"count": 1}}
    for table in ("user_engagement", "geographic", "device_usage", "content_performance"):
        streams = board.database.value(f"SELECT sum(streams) FROM {table}_metrics")
        assert streams == board.database.value("SELECT count(*) FROM stream_events"), table
        assert board.database.value(f"SELECT count(*) FROM {table}_metrics WHERE streams = 0") == 0
    assert board.database.value("SELECT count(*) FROM song_day_streams WHERE title = 'Wrong'") == 0


def test_what_plays_now_is_replaced_and_cleared(board, ada):
    name, client = ada
    now = {
        "track_metadata": {
            "track_name": "Now",
            "artist_name": "Artist",
            "additional_info": {"submission_client": "c"},
        }
    }
    answer = client.post(
        "/1/submit-listens?return_msid=true",
        content=json.dumps({"listen_type": "playing_now", "payload": [now]}),
    )
    assert answer.json()["recording_msid"]
    (shown,) = client.get(f"/1/user/{name}/playing-now").json()["payload"]["listens"]
    assert (shown["playing_now"], shown["track_metadata"]["track_name"]) == (True, "Now")
    assert client.post("/1/playing-now/delete", json={"client": "another"}).status_code == 404
    assert client.post("/1/playing-now/delete", json={"client": "c"}).status_code == 200
    assert client.get(f"/1/user/{name}/playing-now").json()["payload"]["count"] == 0
    assert client.post("/1/playing-now/delete").status_code == 200
    assert board.records(name) == []


def test_an_importer_notes_how_far_it_is(ada):
    name, client = ada
    ask = {"user_name": name, "service": "lastfm"}
    assert client.get("/1/latest-import", params=ask).json()["latest_import"] == 0
    for newest in (NOW, NOW - 50):
        assert client.post("/1/latest-import", json={"ts": newest}).json() == {"status": "ok"}
    assert client.get("/1/latest-import", params=ask).json()["latest_import"] == NOW
    assert client.post("/1/latest-import", json={"ts": "soon"}).status_code == 400
    assert client.get("/1/metadata/lookup", params={"recording_name": "x", "artist_name": "y"}).json() == {}
