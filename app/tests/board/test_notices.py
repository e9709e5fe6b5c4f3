"""The owner is told of what turns red and of what is green again, once an hour at most; over real HTTP."""

from __future__ import annotations

import http.server
import json
import threading
import warnings
from datetime import UTC, datetime, timedelta

import pytest
from click.testing import CliRunner

from music_streaming import cli
from music_streaming.board import health, notices
from music_streaming.board.commands import health as command
from music_streaming.board.doctor import BROKEN, Diagnosis, Step
from music_streaming.board.health import RED, Finding
from music_streaming.board.machine import Board
from music_streaming.board.notices import Notice, NoticeError, Told, notice, send
from music_streaming.board.status import Status

# Apprise tries a module that Python 3.11 calls deprecated; once, at its first import.
with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    import apprise.utils.pgp  # noqa: F401

NOW = datetime(2026, 11, 28, 2, tzinfo=UTC)
HOUR = timedelta(hours=1)
DISK = Finding(RED, "disk", "full in 3 days", "sudo musicctl status")
KAFKA = Finding(RED, "kafka: unit-stopped", "stopped", "sudo systemctl start music-kafka")


@pytest.fixture
def owner():
    """An HTTP server of the owner's: its address for Apprise, the messages that it got, and what it answers."""

    class Handler(http.server.BaseHTTPRequestHandler):
        got: list[dict] = []  # noqa: RUF012
        answer = 200

        def do_POST(self) -> None:
            self.got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(type(self).answer)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    Handler.address = f"json://127.0.0.1:{server.server_port}/hook"
    yield Handler
    server.shutdown()
    thread.join()
    server.server_close()


def test_what_changed_is_told_once():
    first = notice("pi", Told(), [DISK], NOW)
    assert first == Notice("pi: 1 red", "RED disk: full in 3 days\nsudo musicctl status")
    told = Told(("disk",), NOW)
    assert notice("pi", told, [DISK], NOW + 5 * HOUR) is None
    more = notice("pi", told, [KAFKA], NOW + HOUR)
    assert more.title == "pi: 1 red"
    assert "RED kafka: unit-stopped: stopped" in more.text
    assert "green again: disk" in more.text
    assert notice("pi", told, [], NOW + HOUR) == Notice("pi: green again", "green again: disk")
    assert notice("pi", Told(), [], NOW) is None


def test_never_more_than_one_message_an_hour():
    told = Told(("disk",), NOW)
    assert notice("pi", told, [KAFKA], NOW + timedelta(minutes=59)) is None
    assert notice("pi", told, [KAFKA], NOW + HOUR) is not None
    # A clock that was ahead does not silence the board.
    assert notice("pi", told, [KAFKA], NOW - 5 * HOUR) is not None


def test_a_message_arrives(owner):
    send(owner.address, Notice("pi: 1 red", "RED disk"))
    assert [(got["title"], got["message"]) for got in owner.got] == [("pi: 1 red", "RED disk")]


def test_who_does_not_take_it_and_what_is_no_address_are_told_without_the_address(owner):
    owner.answer = 500
    with pytest.raises(NoticeError) as refused:
        send(owner.address, Notice("a", "b"))
    assert "hook" not in str(refused.value)
    with pytest.raises(NoticeError, match="Remedy: correct pipeline_notices_url"):
        send("nonsense", Notice("a", "b"))


@pytest.fixture
def board(tmp_path, monkeypatch, settings, owner):
    """A board whose doctor and status say what the test wants, and whose owner wants notices."""
    (tmp_path / "notices_url").write_text(owner.address)
    made = Board(settings, root=tmp_path)
    found: list[Step] = []
    monkeypatch.setattr(command.Settings, "load", lambda: settings)
    monkeypatch.setattr(command, "Board", lambda _: made)
    monkeypatch.setattr(command, "collect", lambda _: Status(at=NOW))
    monkeypatch.setattr(command, "examine", lambda _: Diagnosis(list(found)))
    monkeypatch.setattr(health, "written_now", lambda _: {"disk": 7})
    return found


def run(*options: str):
    return CliRunner().invoke(cli.main, ["health", *options])


def test_the_hourly_run_notes_tells_and_remembers(board, owner, tmp_path, monkeypatch):
    board.append(Step("kafka", BROKEN, "stopped", remedy="start it", kind="unit-stopped"))
    done = run("--note")
    assert done.exit_code == 0, done.output
    assert [got["message"] for got in owner.got] == ["RED kafka: unit-stopped: stopped\nstart it"]
    assert "RED    kafka" in (tmp_path / "run/motd.d/music").read_text()
    assert run("--note").exit_code == 0
    assert len(owner.got) == 1
    # Green again within the hour: told when it is over.
    board.clear()
    run("--note")
    assert len(owner.got) == 1
    monkeypatch.setattr(notices, "BETWEEN", timedelta())
    run("--note")
    assert [got["message"] for got in owner.got[1:]] == ["green again: kafka: unit-stopped"]
    assert "all is well" in (tmp_path / "run/motd.d/music").read_text()


def test_a_message_that_fails_is_tried_again(board, owner):
    board.append(Step("kafka", BROKEN, "stopped", remedy="start it", kind="unit-stopped"))
    owner.answer = 500
    assert run("--note").exit_code == 0
    owner.answer = 200
    run("--note")
    assert len(owner.got) == 2
    run("--note")
    assert len(owner.got) == 2


def test_without_an_address_nothing_is_sent(board, owner, tmp_path):
    (tmp_path / "notices_url").unlink()
    board.append(Step("kafka", BROKEN, "stopped", remedy="start it", kind="unit-stopped"))
    assert run("--note").exit_code == 0
    assert owner.got == []
    done = run("--test-notice")
    assert done.exit_code == 1
    assert "pipeline_notices_url" in done.output


def test_the_owner_can_try_the_address_and_look(board, owner):
    assert run("--test-notice").output == "sent\n"
    assert owner.got[0]["message"] == "It works."
    assert run().output.startswith("all is well")
    board.append(Step("kafka", BROKEN, "stopped", remedy="start it", kind="unit-stopped"))
    done = run("--json")
    assert (done.exit_code, json.loads(done.output)["findings"][0]["level"]) == (1, "red")
    assert "red kafka" in run().output
