"""Imports in the browser: a file of the page's form becomes plays, and what must not be taken is not."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import re
import signal
import socket
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import sync_playwright
from served import Board, make_board, rights
from starlette.requests import Request

from export_files import EXPORTS
from music_streaming.scrobble import history
from music_streaming.scrobble.plays import RefusedError
from music_streaming.testing import FILES, wait_for
from music_streaming.testing.broker import Broker
from music_streaming.testing.driver import LIMIT_SECONDS, Driver
from music_streaming.testing.postgres import Database, Postgres, new_database
from music_streaming.topic import ensure_topics

SECONDS = 60
SPOTIFY = EXPORTS / "spotify_extended.json"


def served(folder: Path, broker: Broker, database: Database, topic: str) -> Board:
    """A server, not yet started, whose uploads lie in a folder of its own."""
    folder.mkdir()
    made = make_board(folder, broker, database, topic)
    (folder / "uploads").mkdir()
    made.environment.update(
        MUSIC_PATHS__FILES=str(FILES), MUSIC_PATHS__DATA=str(folder / "none"), TMPDIR=str(folder / "uploads")
    )
    return made


@pytest.fixture(scope="module")
def board(
    tmp_path_factory: pytest.TempPathFactory, postgres: Postgres, _template: Database, broker: Broker
) -> Iterator[Board]:
    """A server that runs; no job stores its plays."""
    with new_database(postgres, _template.name) as database:
        rights(database)
        made = served(tmp_path_factory.mktemp("history") / "server", broker, database, "test_history")
        ensure_topics(made.settings)
        made.start()
        yield made
        made.process.end(signal.SIGTERM)
        assert "Traceback" not in made.process.log.read_text(), made.process.log.read_text()
        assert list((made.folder / "uploads").iterdir()) == []


@pytest.fixture
def ada(board: Board) -> Iterator[httpx.Client]:
    """A listener's browser."""
    with httpx.Client(base_url=board.url, auth=board.token(), timeout=SECONDS) as client:
        yield client


def address(client: httpx.Client) -> str:
    """Where the form of the page goes."""
    (found,) = re.findall('action="([^"]+)"', client.get("/import").text)
    return str(found)


def post(client: httpx.Client, content: Any, name: str = "export.json", **fields: str) -> httpx.Response:
    return client.post(address(client), files={"file": (name, content)}, data=fields)


def ended(client: httpx.Client) -> str:
    """The page, once the import has ended."""
    page: str = wait_for(lambda: client.get("/import").text, lambda text: "At work" not in text, SECONDS)
    assert "At work" not in page, page
    return page


def test_what_would_be_sent_is_said_and_nothing_is(board: Board, ada: httpx.Client) -> None:
    (name,) = re.findall("listening history of ([^<]+)<", ada.get("/import").text)
    answer = post(ada, SPOTIFY.read_bytes(), "my <b>history</b>.json", dry_run="yes")
    assert (answer.status_code, answer.headers["location"]) == (303, "/import")
    page = ended(ada)
    assert "rows of my &lt;b&gt;history&lt;/b&gt;.json (Spotify extended streaming history)" in page
    assert "2 plays" in page
    assert "would be sent; nothing was changed" in page
    assert board.records(name) == []


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"<html>a page of a login</html>", "no file that is a known export"),
        (b"PK\x03\x04 a zip that is broken off", "no file that is a known export"),
        ("ROCKBOX", "wanted the zone that it was set to"),
        ("BOMB", "at most 200 to 1"),
    ],
)
def test_what_is_no_export_is_explained(ada: httpx.Client, content: Any, says: str) -> None:
    if content == "ROCKBOX":
        content = (EXPORTS / "rockbox.log").read_bytes()
    elif content == "BOMB":
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a.json", b"[" + b" " * (8 << 20))
        content = packed.getvalue()
    assert post(ada, content).status_code == 303
    assert says in ended(ada)


def test_a_players_own_clock_needs_its_zone(ada: httpx.Client) -> None:
    log = (EXPORTS / "rockbox.log").read_bytes()
    assert post(ada, log, timezone="Mars/Base", dry_run="yes").status_code == 400
    assert post(ada, log, timezone="Europe/Berlin", dry_run="yes").status_code == 303
    assert "would be sent" in ended(ada)


def test_only_the_page_of_a_listener_may_send(board: Board, ada: httpx.Client) -> None:
    assert httpx.get(f"{board.url}/import").status_code == 401
    assert httpx.post(f"{board.url}/import", files={"file": b"[]"}).status_code == 401
    for proof in ("", "?proof=x", "?proof=é"):
        assert ada.post(f"/import{proof}", files={"file": b"[]"}).status_code == 403
    with httpx.Client(base_url=board.url, auth=board.token(), timeout=SECONDS) as bob:
        assert ada.post(address(bob), files={"file": b"[]"}).status_code == 403
        post(ada, SPOTIFY.read_bytes(), "ada.json", dry_run="yes")
        ended(ada)
        assert "ada.json" not in bob.get("/import").text


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        ({"data": {"file": "no file"}}, 400),
        ({"files": {"file": ("empty.json", b"")}}, 400),
        ({"files": {"other": b"[]"}}, 400),
        ({"files": [("file", b"[]"), ("file", b"[]")]}, 400),
        ({"content": b"--x", "headers": {"Content-Type": "multipart/form-data; boundary=x"}}, 400),
        ({"content": b"--x", "headers": {"Content-Type": "multipart/form-data"}}, 400),
        ({"content": b"[]"}, 400),
    ],
)
def test_what_is_no_file_of_the_form_is_refused(ada: httpx.Client, sent: dict[str, Any], status: int) -> None:
    answer = ada.post(address(ada), **sent)
    assert answer.status_code == status, answer.text
    assert "Import: found " in answer.text


def begin(board: Board, client: httpx.Client, length: int) -> socket.socket:
    """The beginning of a file of `length` bytes, of which the rest is still to come."""
    made = client.build_request("POST", address(client))
    request = next(client.auth.auth_flow(made))
    opened = socket.create_connection(("127.0.0.1", board.settings.scrobble.port), SECONDS)
    head = (
        f"POST {made.url.raw_path.decode()} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n"
        f"Authorization: {request.headers['authorization']}\r\n"
        "Content-Type: multipart/form-data; boundary=x\r\n\r\n"
        '--x\r\nContent-Disposition: form-data; name="file"; filename="a.json"\r\n\r\n[\r\n'
    )
    opened.sendall(head.encode())
    return opened


def test_a_file_that_is_too_long_is_refused_before_it_comes(board: Board, ada: httpx.Client) -> None:
    with contextlib.closing(begin(board, ada, 2 * history.UPLOAD_BYTES)) as opened:
        assert opened.recv(100).startswith(b"HTTP/1.1 413 ")


def test_a_file_of_unknown_length_is_refused_where_it_is_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "UPLOAD_BYTES", 10)

    begun = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.json"\r\n\r\n'

    async def receive() -> dict[str, Any]:
        nonlocal begun
        body, begun = begun + b" " * 6_000, b""
        return {"type": "http.request", "body": body, "more_body": True}

    head = [(b"content-type", b"multipart/form-data; boundary=x"), (b"transfer-encoding", b"chunked")]
    request = Request({"type": "http", "method": "POST", "path": "/import", "headers": head}, receive)
    with pytest.raises(RefusedError, match="more than 10 bytes"):
        asyncio.run(history.read_form(request))


def test_one_at_a_time_and_what_breaks_off_makes_room(board: Board, ada: httpx.Client) -> None:
    opened = begin(board, ada, 1_000_000)
    with contextlib.closing(opened):
        busy = wait_for(
            lambda: post(ada, b"[]").status_code, lambda status: status == 409, SECONDS, every=0.2
        )
        assert busy == 409
    free = wait_for(lambda: post(ada, b"[]").status_code, lambda status: status == 303, SECONDS, every=0.2)
    assert free == 303
    ended(ada)


def most_memory(pid: int) -> int:
    """The most that a process has held so far, in kB."""
    (found,) = re.findall(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found)


def test_a_large_file_goes_to_disk(board: Board, ada: httpx.Client) -> None:
    before = most_memory(board.process.pid)
    post(ada, io.BytesIO(b" " * (100 << 20)), dry_run="yes")
    assert "no file that is a known export" in ended(ada)
    assert most_memory(board.process.pid) - before < 20_000


@pytest.mark.slow
def test_a_browser_shows_the_report_of_musicctl_import(
    tmp_path: Path, broker: Broker, database: Database, topic: str, driver: Driver
) -> None:
    board = served(tmp_path / "server", broker, database, topic)
    ensure_topics(board.settings)
    driver.start()
    board.start()
    name, token = board.token()
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
            page = browser.new_context(http_credentials={"username": name, "password": token}).new_page()

            def imported() -> list[str]:
                page.goto(f"{board.url}/")
                page.click("text=Import a listening history")
                page.set_input_files("input[type=file]", SPOTIFY)
                page.click("button")
                # The page asks again by itself.
                page.wait_for_selector("ul.ok", timeout=1000 * LIMIT_SECONDS)
                return page.locator("ul.ok li").all_inner_texts()

            first = imported()
            assert first[-1] == f"2 plays of {name} sent: 2 new in the tables"
            driver.wait_until(lambda: database.value("SELECT count(*) FROM stream_events"), 2)
            again = imported()
            browser.close()
        command = [sys.executable, "-m", "music_streaming.cli", "import", str(SPOTIFY)]
        said = subprocess.check_output(command, env=os.environ | board.environment, text=True)
        assert again == said.splitlines()
    finally:
        board.process.close()
