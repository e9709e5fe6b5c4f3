"""Players that nobody here wrote: Debian's mpd plays real audio, and two clients of it send what was heard.

listenbrainz-mpd speaks ListenBrainz, mpdscribble AudioScrobbler 1.2. Each is set up as the server's page says. `make test-long`
installs them; where one is missing, the test fails.
"""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import socket
import struct
import subprocess
import time
import wave
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from served import Board, make_board

from docs import PROJECT
from music_streaming.scrobble.page import recipes
from music_streaming.testing import free_port, wait_for
from music_streaming.testing.broker import Broker
from music_streaming.testing.driver import LIMIT_SECONDS, Driver
from music_streaming.testing.postgres import Database
from music_streaming.topic import ensure_topics

ARTIST, ALBUM = "Die Ärzte – 東京", "Ænema"
# Neither client reports a song of 30 seconds or less.
HEARD, SKIPPED = ("Heard to its end", 32), ("Skipped", 90)


def program(name: str) -> str:
    """The path of a client; they are what this test is about, so a missing one is a failure."""
    found = shutil.which(name, path=f"{os.environ['PATH']}:{PROJECT}/.cache/clients/bin")
    assert found, f"found no {name}, wanted it for this test: make test-long installs it"
    return found


def song(folder: Path, title: str, seconds: int) -> None:
    """A song as a tagged FLAC file: a tone."""
    with wave.open(str(folder / "tone.wav"), "wb") as file:
        file.setparams((1, 2, 8_000, 0, "NONE", ""))
        tone = b"".join(struct.pack("<h", int(8_000 * math.sin(at / 3))) for at in range(8_000))
        file.writeframes(tone * seconds)
    tags = [
        f"--tag={name}={value}" for name, value in (("ARTIST", ARTIST), ("ALBUM", ALBUM), ("TITLE", title))
    ]
    command = [program("flac"), "--silent", *tags, "--output-name", f"{title}.flac", "tone.wav"]
    subprocess.run(command, cwd=folder, check=True, env=os.environ | {"LC_ALL": "C.UTF-8"})
    (folder / "tone.wav").unlink()


class Mpd:
    """A running mpd, by its protocol (https://mpd.readthedocs.io/en/stable/protocol.html)."""

    def __init__(self, port: int) -> None:
        self._connection = socket.create_connection(("127.0.0.1", port), 10)
        self._lines = self._connection.makefile("rw", encoding="utf-8", newline="\n")
        assert self._lines.readline().startswith("OK MPD")

    def ask(self, command: str) -> dict[str, str]:
        """The answer's fields."""
        self._lines.write(command + "\n")
        self._lines.flush()
        found = {}
        while (line := self._lines.readline().rstrip("\n")) != "OK":
            assert line, f"{command}: the connection is closed"
            assert not line.startswith("ACK"), f"{command}: {line}"
            name, _, value = line.partition(": ")
            found[name] = value
        return found

    def close(self) -> None:
        """End the connection."""
        self._lines.close()
        self._connection.close()


@contextlib.contextmanager
def running(folder: Path, name: str, *options: str, **environment: str) -> Iterator[Path]:
    """A program as a process; its output's file."""
    output = folder / f"{name}.log"
    with output.open("wb") as file:
        process = subprocess.Popen(
            [program(name), *options],
            stdout=file,
            stderr=file,
            env=os.environ | {"HOME": str(folder)} | environment,
        )
    try:
        yield output
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture
def mpd(tmp_path: Path) -> Iterator[tuple[int, Mpd]]:
    """mpd with two songs and an output that plays to nobody, in the time that the songs take."""
    folder, port = tmp_path / "mpd", free_port()
    (folder / "music").mkdir(parents=True)
    for title, seconds in (HEARD, SKIPPED):
        song(folder / "music", title, seconds)
    (folder / "mpd.conf").write_text(
        f"""
        music_directory "{folder}/music"
        db_file "{folder}/database"
        bind_to_address "127.0.0.1"
        port "{port}"
        zeroconf_enabled "no"
        audio_output {{
            type "null"
            name "nobody"
        }}
        """
    )
    with running(folder, "mpd", "--no-daemon", "--stderr", str(folder / "mpd.conf")) as output:

        def answers() -> Mpd | None:
            try:
                return Mpd(port)
            except OSError:
                return None

        player = wait_for(answers, bool, 60)
        assert player, output.read_text()
        player.ask("update")
        known = wait_for(lambda: player.ask("stats")["songs"], lambda count: count == "2", 60)
        assert known == "2", output.read_text()
        yield port, player
        player.close()


def settings_of(board: Board, player: str, name: str, token: str) -> str:
    """What the page says is to be typed into a player's file."""
    (recipe,) = [one for one in recipes(board.url, name, token) if one.player.startswith(player)]
    return recipe.values[0][1]


@pytest.fixture
def server(tmp_path: Path, broker: Broker, database: Database, topic: str, driver: Driver) -> Iterator[Board]:
    """A scrobble server, and the job that stores its plays."""
    (tmp_path / "server").mkdir()
    board = make_board(tmp_path / "server", broker, database, topic)
    ensure_topics(board.settings)
    board.start()
    driver.start()
    yield board
    board.process.close()


@pytest.mark.slow
@pytest.mark.clients
def test_what_mpd_plays_is_in_the_tables(
    tmp_path: Path, server: Board, database: Database, mpd: tuple[int, Mpd]
) -> None:
    port, player = mpd
    mine, scrobbler = server.token("lb", "listenbrainz-mpd"), server.token("as", "mpdscribble")
    listens, submissions = tmp_path / "lb.toml", tmp_path / "as.conf"
    listens.write_text(settings_of(server, "listenbrainz-mpd", *mine))
    submissions.write_text(
        f"verbose = 2\n{settings_of(server, 'mpdscribble', *scrobbler)}\njournal = {tmp_path}/journal\n"
    )
    where = {"MPD_HOST": "127.0.0.1", "MPD_PORT": str(port)}
    with (
        running(tmp_path, "listenbrainz-mpd", "--config", str(listens), **where) as first,
        running(
            tmp_path, "mpdscribble", "--no-daemon", "--log=-", f"--conf={submissions}", **where
        ) as second,
    ):

        def logs() -> str:
            return "\n".join(path.read_text() for path in (first, second, server.process.log))

        ready = wait_for(second.read_text, lambda text: "connected to mpd" in text, 60)
        assert "connected to mpd" in ready, logs()
        started = time.time()
        play(player, server, (mine, scrobbler), logs)
        rows = wait_for(lambda: stored(database), lambda found: len(found) >= 2, LIMIT_SECONDS, every=1)
        assert len(rows) == 2, f"{rows}\n{logs()}"
    assert [row[:5] for row in rows] == [
        ("as", HEARD[0], ARTIST, ALBUM, 32_000),
        ("lb", HEARD[0], ARTIST, ALBUM, 32_000),
    ]
    # mpdscribble tells when a song ended for when it began.
    ended = started + HEARD[1]
    assert [abs(row[5] - wanted) < 10 for row, wanted in zip(rows, (ended, started), strict=True)] == [
        True,
        True,
    ], rows
    assert [row[6] for row in rows] == ["scrobble", "scrobble"]


def play(player: Mpd, server: Board, listeners: tuple[tuple[str, str], ...], logs: Callable[[], str]) -> None:
    """One song to its end and the beginning of another; meanwhile the listeners' clients say what plays."""
    for title, _ in (HEARD, SKIPPED):
        player.ask(f'add "{title}.flac"')
    player.ask("play")
    for name, token in listeners:
        playing = wait_for(lambda name=name, token=token: now_playing(server, name, token), bool, 20)
        assert playing == HEARD[0], logs()
    title = wait_for(
        lambda: player.ask("currentsong").get("Title"), lambda found: found == SKIPPED[0], 60, every=0.5
    )
    assert title == SKIPPED[0], logs()
    player.ask("stop")


def now_playing(board: Board, name: str, token: str) -> str | None:
    """What the server says that the listener hears now."""
    with board.client(token) as client:
        listens = client.get(f"/1/user/{name}/playing-now").json()["payload"]["listens"]
    return listens[0]["track_metadata"]["track_name"] if listens else None


def stored(database: Database) -> list[Any]:
    """Every play in the tables."""
    return database.rows(
        "SELECT user_id, title, artist, album, duration_ms, extract(epoch FROM event_time)::float8, source "
        "FROM stream_events ORDER BY user_id"
    )
