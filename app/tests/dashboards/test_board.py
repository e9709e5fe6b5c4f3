"""The board's own charts on Pipeline health, from what the hourly look has noted."""

from __future__ import annotations

from typing import Any

from asking import CHARTS, last_hour, shown

from music_streaming.testing.postgres import Database


def test_nothing_a_look_and_one_that_is_the_last_for_too_long(database: Database) -> None:
    def rows(name: str) -> list[tuple[Any, ...]]:
        return shown(database, CHARTS[f"health/{name}"], last_hour())

    assert [row[:2] for row in rows("board")] == [("-", "hourly look")]
    assert rows("board_writes") == [("all", "known after two hourly looks", None)]
    note = (
        "INSERT INTO board_findings (board, position, level, name, found, command) VALUES "
        "('pi', 0, 'yellow', 'wear', 'much', 'a'), "
        "('pi', 1, 'red', 'disk', 'full in 3 days', 'sudo musicctl status'); "
        "INSERT INTO board_writes (board, service, bytes_a_day) VALUES ('pi', 'disk', 5000)"
    )
    database.rows(note, role="music_writer")
    found = [("red", "disk", "full in 3 days", "sudo musicctl status"), ("yellow", "wear", "much", "a")]
    assert rows("board") == found
    assert rows("board_writes") == [("disk", "", 5000)]
    database.rows("UPDATE board_findings SET noted_at = now() - interval '4 hours'", role="music_owner")
    late = ("yellow", "hourly look", "the last one 4 h ago", "journalctl -u music-health -n 50")
    assert set(rows("board")) == {*found, late}
    assert rows("board")[0] == found[0]
