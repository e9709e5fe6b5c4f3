"""Charts on tables that a few rows fill: axes, whole minutes, nothing at all."""

from __future__ import annotations

import csv
import datetime as dt
from zoneinfo import ZoneInfo

import pytest
from asking import CHARTS, last_hour, shown

from chart_sql import Board
from music_streaming.testing import FILES
from music_streaming.testing.postgres import Database

BERLIN = "Europe/Berlin"


@pytest.mark.parametrize(
    ("zone", "since", "hours", "points"),
    [
        (BERLIN, "2026-10-25 00:00", 2, 12),  # 02:00 to 02:50, twice
        (BERLIN, "2026-03-29 00:30", 1, 6),  # 01:30 to 01:50, then 03:00 to 03:20
        ("Australia/Lord_Howe", "2026-04-04 14:30", 1, 6),  # back by half an hour: 01:30 to 01:50, twice
    ],
)
def test_a_repeated_minute_is_two_points_and_a_missing_one_none(
    database: Database, zone: str, since: str, hours: int, points: int
) -> None:
    database.rows(
        "INSERT INTO ingest_batches (topic, records, accepted, duplicates, late, rejected, tombstones, read_at, "
        "committed_at) SELECT 't', 60, 0, 0, 0, 0, 0, moment, moment FROM generate_series(%s::timestamptz, "
        "%s::timestamptz + make_interval(hours => %s) - interval '1 second', interval '10 minutes') AS moment",
        (since, since, hours),
        role="music_owner",
    )
    start = dt.datetime.fromisoformat(since).replace(tzinfo=dt.UTC)
    # From before the change: a range that begins within the repeated hour begins in its second pass.
    board = Board(start - dt.timedelta(hours=2), start + dt.timedelta(hours=hours), zone=zone)
    got = shown(database, CHARTS["health/throughput"], board)
    assert len(got) == len(dict(got)) == points
    assert {float(rate) for _, rate in got} == {1.0}
    local = {
        f"{(start + n * dt.timedelta(minutes=10)).astimezone(ZoneInfo(zone)):%H:%M}" for n in range(points)
    }
    assert {f"{minute:%H:%M}" for minute, _ in got} == local


def test_throughput_is_of_whole_minutes(database: Database) -> None:
    """The running minute is left out: it would look like a fall."""
    database.rows(
        "INSERT INTO ingest_batches (topic, records, accepted, duplicates, late, rejected, tombstones, "
        "read_at, committed_at) SELECT 't', 120 * minutes, 0, 0, 0, 0, 0, moment, moment "
        "FROM (SELECT minutes, now() - make_interval(mins => minutes) AS moment "
        "FROM generate_series(0, 2) AS minutes) AS batches",
        role="music_owner",
    )
    got = shown(database, CHARTS["health/throughput"], last_hour())
    assert sorted(float(rate) for _, rate in got) == [2.0, 4.0]


def test_charts_of_an_empty_database_answer(database: Database) -> None:
    for chart in CHARTS.values():
        shown(database, chart, last_hour())


def test_names_of_countries_are_those_of_the_app(database: Database) -> None:
    with (FILES.parent / "app/music_streaming/countries.csv").open(encoding="utf-8", newline="") as file:
        wanted = {row["code"]: row["name"] for row in csv.DictReader(file)} | {"ZZ": "unknown"}
    assert dict(database.rows("SELECT code, name FROM countries")) == wanted
