"""What is written can be read again, by us and by ListenBrainz: the same plays."""

from __future__ import annotations

import io
import json
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from music_streaming import event, listener
from music_streaming.cli import main as musicctl
from music_streaming.imports.exporter import COLUMNS, export
from music_streaming.imports.formats import recognise
from music_streaming.imports.plays import Play, Reading
from music_streaming.settings import Settings
from music_streaming.testing import events
from music_streaming.testing.postgres import Database

PLAYS = [
    Play(1_677_657_600_123, "Harbour Lights", "The Paper Lanterns", "Low Tide", "pop", 204_000, 200_000, False, True, True,
         "DE", "mobile", "Android", "Spotify", "session 1", "clickrow", "trackdone"),
    Play(1_677_657_804_000, "Ämter & Würden", "東雲カルテット", skipped=True, listened_ms=0),
    Play(1_677_658_000_999, '=1+1 "quoted"\\', "👩‍👩‍👧‍👦"),
]  # fmt: skip


def stored_form(play: Play, number: int) -> dict[str, Any]:
    """The row that the job stores of a play of Ada's."""
    started = datetime.fromtimestamp(play.started_ms / 1000, UTC)
    sent = {name: getattr(play, name) for name in Play.__slots__ if name != "started_ms"} | {
        "event_id": event.play_id("Ada", started, play.artist, play.title),
        "event_time": event.format_time(started),
        "source": "import",
        "user_id": "Ada",
    }
    row = event.parse_event(json.dumps(sent).encode(), events.NOW).play
    return row | {"late": False, "kafka_partition": 0, "kafka_offset": number}


@pytest.fixture
def stored(database: Database) -> Database:
    """A database with the plays, as the job would have stored them."""
    with closing(database.connect("music_owner")) as connection:
        listener.add(connection, listener.Listener("Ada"))
    with closing(database.connect("music_owner")) as connection, connection, connection.cursor() as cursor:
        for number, play in enumerate(PLAYS):
            row = stored_form(play, number)
            names, marks = ", ".join(row), ", ".join(["%s"] * len(row))
            cursor.execute(f"INSERT INTO stream_events ({names}) VALUES ({marks})", list(row.values()))
    return database


def exported(database: Database) -> bytes:
    file = io.BytesIO()
    with closing(database.connect("superset_reader")) as connection:
        assert export(connection, "Ada", file) == len(PLAYS)
    return file.getvalue()


def test_a_round_trip_gives_the_same_plays(stored: Database) -> None:
    file = io.BytesIO(exported(stored))
    found = recognise(file)
    assert found is not None
    assert found[0].name == "ListenBrainz"
    read = [row for row in found[0].parse(file, Reading.at(events.NOW), found[1]) if isinstance(row, Play)]
    assert read == PLAYS
    ids = [stored_form(play, number)["event_id"] for number, play in enumerate(read)]
    rows = stored.rows("SELECT event_id::text FROM stream_events ORDER BY event_time")
    assert ids == [row[0] for row in rows]


def test_each_line_is_a_listen_of_the_api(stored: Database) -> None:
    rows = [json.loads(line) for line in exported(stored).splitlines()]
    assert [row["listened_at"] for row in rows] == [1_677_657_600, 1_677_657_804, 1_677_658_000]
    track = rows[0]["track_metadata"]
    assert (track["artist_name"], track["track_name"], track["release_name"]) == (
        "The Paper Lanterns", "Harbour Lights", "Low Tide",
    )  # fmt: skip
    assert track["additional_info"]["duration_ms"] == 204_000
    assert "release_name" not in rows[1]["track_metadata"]


def test_every_field_of_a_play_is_written() -> None:
    mine = {name for name in Play.__slots__ if name != "started_ms"} | {"event_time"}
    assert set(COLUMNS) == mine


def test_the_command_writes_a_file(
    stored: Database, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Settings, "load", lambda: settings)
    done = CliRunner().invoke(musicctl, ["export", str(tmp_path / "plays.jsonl"), "--listener", "ada"])
    assert done.exit_code == 0, done.output
    assert "3 plays of Ada" in done.output
    assert (tmp_path / "plays.jsonl").read_bytes() == exported(stored)


def test_whose_plays_must_be_known(
    stored: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Settings, "load", lambda: settings)
    with closing(stored.connect("music_owner")) as connection:
        listener.add(connection, listener.Listener("Bob"))
    done = CliRunner().invoke(musicctl, ["export"])
    assert done.exit_code == 1
    assert "found 2 listeners (Ada, Bob), wanted to know whose plays are meant" in done.output
