"""Imports through a real broker and the real job into a real PostgreSQL: each play once, whatever happens."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from export_files import EXPORTS
from music_streaming import event, listener
from music_streaming.board.validate import validate
from music_streaming.broker import send_one
from music_streaming.cli import main as musicctl
from music_streaming.imports import importer
from music_streaming.imports.files import SourceError
from music_streaming.imports.importer import ImportFailedError, Reports, spooled
from music_streaming.imports.plays import Play
from music_streaming.imports.report import Report
from music_streaming.lag import Progress
from music_streaming.settings import KafkaSettings, Settings
from music_streaming.testing import wait_for
from music_streaming.testing.broker import Broker
from music_streaming.testing.driver import LIMIT_SECONDS, Driver
from music_streaming.testing.postgres import Database
from music_streaming.topic import ensure_topics

MANY = 6_000
IMPORTED = "SELECT count(*) FROM stream_events WHERE source = 'import'"
EIGHT = datetime(2023, 3, 1, 8, tzinfo=UTC)


def add_listener(database: Database, name: str, **known: str) -> None:
    with closing(database.connect("music_owner")) as connection:
        listener.add(connection, listener.Listener(name, **known))


@pytest.fixture
def away(settings: Settings, database: Database) -> Settings:
    """A board whose broker is away, and its one listener: for what is decided before anything is sent."""
    add_listener(database, "Ada", country="DE", age_group="25-34")
    return settings.model_copy(update={"kafka": KafkaSettings(bootstrap="127.0.0.1:1")})


@pytest.fixture
def board(away: Settings, broker: Broker, topic: str) -> Settings:
    """A board whose job (fixture driver) reads a topic of its own."""
    made = away.model_copy(update={"kafka": KafkaSettings(bootstrap=broker.bootstrap, topic=topic)})
    ensure_topics(made)
    return made


def run(board: Settings, path: Path | str, **options: Any) -> Report:
    return importer.run(board, str(path), stdin=io.BytesIO(options.pop("stdin", b"")), **options)


def scrobble(board: Settings, title: str, artist: str, started: datetime) -> None:
    sent = {
        "event_id": event.play_id("Ada", started, artist, title), "event_time": event.format_time(started),
        "source": "scrobble", "user_id": "Ada", "title": title, "artist": artist, "player": "Phone",
    }  # fmt: skip
    send_one(board.kafka.bootstrap, board.kafka.topic, b"Ada", json.dumps(sent).encode(), 30)


def history(count: int) -> bytes:
    """A Spotify export of as many plays, three minutes apart."""
    first = datetime(2024, 1, 1, tzinfo=UTC)
    rows = [
        {"ts": f"{first + timedelta(minutes=3 * at):%Y-%m-%dT%H:%M:%SZ}", "ms_played": 170_000,
         "master_metadata_track_name": f"Song {at % 500}", "master_metadata_album_artist_name": f"Artist {at % 90}"}
        for at in range(count)
    ]  # fmt: skip
    return json.dumps(rows).encode()


@pytest.mark.slow
def test_each_play_is_there_once_however_it_came(
    board: Settings, database: Database, driver: Driver, tmp_path: Path, files: Path
) -> None:
    driver.start()
    # Scrobbled two seconds later than Spotify says.
    scrobble(board, "HARBOUR LIGHTS", "The Paper Lanterns", EIGHT + timedelta(seconds=2))
    driver.wait_until(lambda: database.value("SELECT count(*) FROM stream_events"), 1)
    folder = tmp_path / "exports"
    folder.mkdir()
    for name in ("spotify_extended.json", "listenbrainz_old.json"):
        (folder / name).write_bytes((EXPORTS / name).read_bytes())

    dry = run(board, folder, dry_run=True)
    assert dry.new is None
    report = run(board, folder)
    # Spotify's skip is new. The whole song was scrobbled, and ListenBrainz has both a third time.
    assert (report.rows, report.taken, report.new) == (7, 1, 1), report.sentences()
    assert report.left == {"podcast": 1, "audiobook": 1, "no_title": 1, "same_play": 3}
    assert report.examples["podcast"] == ["Talks on Tides - Episode 12"]
    again = run(board, folder)
    assert (again.taken, again.new) == (0, 0)
    assert again.left == report.left | {"known": 1}
    stored = database.rows(
        "SELECT source, title, skipped, country, age_group, player, (extract(epoch FROM event_time) * 1000)::bigint "
        "FROM stream_events ORDER BY source"
    )
    assert stored == [
        ("import", "Ämter & Würden", True, "DE", "25-34", "Spotify", 1_677_657_804_000 - 3_100),
        ("scrobble", "HARBOUR LIGHTS", None, "ZZ", "unknown", "Phone", 1_677_657_602_000),
    ]

    environment = driver.environment | {"MUSIC_PATHS__FILES": str(files), "MUSIC_PATHS__DATA": str(tmp_path)}
    told = killed_and_begun_again(database, environment, tmp_path)
    assert told["taken"] == told["new"] == MANY - told["left"]["known"]["rows"]
    assert database.value(IMPORTED) == MANY + 1
    assert database.value("SELECT accepted FROM ingest_totals WHERE source = 'import'") == MANY + 1
    assert [check.name for check in validate(board).checks if not check.ok] == []


def killed_and_begun_again(database: Database, environment: dict[str, str], folder: Path) -> dict[str, Any]:
    """An import that is killed in the middle, and the report of the next one, from standard input."""
    (folder / "many.json").write_bytes(history(MANY))

    def start() -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "music_streaming.cli", "import", "-", "--json"]
        with (folder / "many.json").open("rb") as file:
            return subprocess.Popen(command, env=os.environ | environment, stdin=file, stdout=subprocess.PIPE)

    with start() as process:
        seen = wait_for(
            lambda: database.value(IMPORTED),
            lambda n: n > 100,
            LIMIT_SECONDS,
            ended=lambda: process.poll() is not None,
        )
        process.kill()
    assert process.returncode == -signal.SIGKILL, f"ended with {seen} of {MANY} stored"
    assert not list(folder.glob("import-*/plays"))
    with start() as process:
        output, _ = process.communicate(timeout=LIMIT_SECONDS)
    assert process.returncode == 0
    told: dict[str, Any] = json.loads(output)
    return told


def test_where_the_job_stands_still_nothing_is_sent(board: Settings, broker: Broker) -> None:
    scrobble(board, "Song", "Artist", EIGHT)
    hurried = board.with_changes(spark={"stall_seconds": 1})
    with pytest.raises(importer.MusicError, match="1 records that the job has not stored"):
        run(hurried, EXPORTS / "maloja.json")
    assert broker.count(board.kafka.topic) == 1


def test_whose_plays_they_are_must_be_known(away: Settings, database: Database) -> None:
    with pytest.raises(listener.ListenerError, match="nobody of the name Bob, wanted one of Ada"):
        run(away, EXPORTS / "maloja.json", name="Bob")
    add_listener(database, "Bob")
    with pytest.raises(
        listener.ListenerError, match=r"2 listeners .Ada, Bob., wanted to know whose.*--listener NAME"
    ):
        run(away, EXPORTS / "maloja.json")
    assert run(away, EXPORTS / "maloja.json", name="bob", dry_run=True).listener == "Bob"


def test_two_imports_of_a_listener_do_not_run_at_a_time(away: Settings, database: Database) -> None:
    with closing(database.connect("superset_reader")) as other:
        other.cursor().execute("SELECT pg_advisory_lock(hashtext('import'), hashtext('Ada'))")
        with pytest.raises(ImportFailedError, match="another import of Ada at work"):
            run(away, EXPORTS / "maloja.json", dry_run=True)


def test_what_is_no_export_names_those_that_are(away: Settings, tmp_path: Path) -> None:
    (tmp_path / "x.html").write_text("<html>")
    with pytest.raises(
        SourceError, match=r"no file that is a known export, wanted one of Spotify extended.*Rockbox"
    ):
        run(away, tmp_path / "x.html")


def test_a_dry_run_asks_the_tables_and_needs_no_broker(away: Settings) -> None:
    seen: list[tuple[int, int]] = []
    stopped: list[Progress] = []
    content = history(2_500) + b"\n"
    report = run(
        away, "-", stdin=content, dry_run=True, reports=Reports(lambda *at: seen.append(at), stopped.append)
    )
    assert (report.taken, report.new, stopped) == (2_500, None, [])
    assert seen[-1] == (len(content), len(content))
    assert len(seen) > 2
    assert report.sentences()[-1] == "2,500 plays of Ada would be sent; nothing was changed"


def test_the_job_takes_every_play_as_it_is_sent() -> None:
    ada = listener.Listener("Ada", "25-34", "DE", "family")
    play = Play(
        1_677_657_600_123,
        "Harbour Lights",
        "The Paper Lanterns",
        "Low Tide",
        duration_ms=204_000,
        skipped=False,
        country="AT",
    )
    made = spooled(play, ada)
    parsed = event.parse_event(made.value, EIGHT + timedelta(days=1))
    assert parsed.flaws == ()
    known = {name: value for name, value in parsed.play.items() if value not in (None, "unknown")}
    assert known == {
        "event_id": event.play_id("Ada", EIGHT, "the paper lanterns", "harbour lights"),
        "event_time": EIGHT + timedelta(milliseconds=123), "source": "import", "user_id": "Ada",
        "song_id": event.song_id("The Paper Lanterns", "Harbour Lights"), "title": "Harbour Lights",
        "artist": "The Paper Lanterns", "album": "Low Tide", "duration_ms": 204_000, "skipped": False,
        "subscription_type": "family", "age_group": "25-34", "country": "AT", "region": "Europe",
    }  # fmt: skip
    assert made.song_id == parsed.play["song_id"]


def test_the_command_asks_for_a_zone_that_exists() -> None:
    done = CliRunner().invoke(musicctl, ["import", "x", "--timezone", "Mars/Olympus"])
    assert done.exit_code == 2
    assert "wanted a name such as Europe/Berlin" in done.output
