"""The page: who sees it, what it shows, and that what players send is text on it and nothing else."""

from __future__ import annotations

import json
import time

import httpx
import pytest
from playwright.sync_api import sync_playwright
from relay import relay

EVIL = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"


@pytest.fixture
def ada(board):
    name, token = board.token()
    with httpx.Client(base_url=board.url, auth=(name, token), timeout=30) as client:
        yield name, token, client


def test_the_page_is_for_those_who_have_a_token(board, ada):
    name, token, client = ada
    assert client.get("/").status_code == 200
    other, _ = board.token()
    for login in (None, (name, "x"), (other, token), ("", token), ("é" * 5, "☃")):
        answer = httpx.get(board.url, auth=login)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith("Basic ")
        assert token not in answer.text
    assert httpx.get(board.url, headers={"Authorization": "Basic ???"}).status_code == 401


def test_it_shows_each_players_settings_with_this_boards_address(board, ada):
    _, token, client = ada
    content = client.get("/").text
    for wanted in (
        f"{board.url}/1/submit-listens",
        f"{board.url}/2.0/",
        "listenbrainz-mpd",
        "mpdscribble",
        token,
    ):
        assert wanted in content
    assert content.count("data:image/svg+xml;base64,") == 2


def test_it_shows_what_became_of_the_last_requests(board, ada):
    name, token, client = ada
    other, _ = board.token()
    listen = {
        "listened_at": int(time.time()) - 60,
        "track_metadata": {"track_name": EVIL, "artist_name": "A"},
    }
    headers = {"User-Agent": f"Player {EVIL}"}
    with board.client(token) as player:
        body = json.dumps({"listen_type": "single", "payload": [listen]})
        assert player.post("/1/submit-listens", content=body, headers=headers).status_code == 200
        assert player.post(f"/api/{EVIL}/submit-listens", headers=headers).status_code == 404
        assert player.post("/1/submit-listens", content=b"{}", headers=headers).status_code == 400
    content = client.get("/").text
    for wanted in ("ok: 1 listens", "Wanted /1/submit-listens", "400: listen_type: found None"):
        assert wanted in content
    assert "<img src=x" not in content
    assert "<script" not in content
    assert other not in content
    assert name in content


def test_in_a_browser_titles_are_text(board, ada):
    name, token, _ = ada
    test_it_shows_what_became_of_the_last_requests(board, ada)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        try:
            page = browser.new_context(http_credentials={"username": name, "password": token}).new_page()
            asked: list[str] = []
            page.on("request", lambda request: asked.append(request.url))
            page.goto(f"{board.url}/")
            assert "onerror" in page.inner_text("table >> nth=0")
            assert page.title() == "Your players"
            shown = page.evaluate("[...document.images].every(one => one.complete && one.naturalWidth > 0)")
            assert shown is True
            assert [url for url in asked if not url.startswith(("data:", board.url))] == []
            # A browser scrobbler on a page of another origin.
            with relay(board.settings.scrobble.port) as another:
                page.goto(f"http://127.0.0.1:{another.port}/1/validate-token?token=none")
                answer = page.evaluate(
                    """async ([url, token]) => (await (await fetch(url + '/1/validate-token',
                       {headers: {Authorization: 'Token ' + token}})).json()).valid""",
                    [board.url, token],
                )
            assert answer is True
        finally:
            browser.close()


def test_a_programs_login_wants_the_listeners_yes_on_this_page(board, ada):
    name, _, client = ada

    def ask(method: str, **fields: str) -> dict:
        return httpx.post(f"{board.url}/2.0/", data={"method": method, "format": "json", **fields}).json()

    token = ask("auth.getToken")["token"]
    assert httpx.get(f"{board.url}/api/auth/", params={"token": token}).status_code == 401
    shown = client.get("/api/auth/", params={"api_key": "k", "token": token}).text
    proof = shown.partition('name="proof" value="')[2].partition('"')[0]
    assert client.post("/api/auth", data={"token": token, "proof": "another"}).status_code == 403
    assert ask("auth.getSession", token=token)["error"] == 14
    assert client.post("/api/auth", data={"token": token, "proof": proof}).status_code == 200
    assert ask("auth.getSession", token=token)["session"]["name"] == name
    assert ask("auth.getSession", token=token)["error"] == 14
    assert client.get("/api/auth", params={"token": token}).status_code == 404
