"""What the job does by a clock that is right, on a real PostgreSQL."""

import contextlib
import datetime as dt
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from music_streaming import event
from music_streaming.board.ahead import Ahead, ahead, beyond, delete_rows
from music_streaming.board.validate import validate
from music_streaming.clock import kernel_synchronised, synchronised
from music_streaming.housekeeping import make_good
from music_streaming.retention import Ages, housekeep
from music_streaming.settings import Settings
from music_streaming.table import Rules, prepare_session, write
from music_streaming.testing.postgres import Database
from test_table import NOW, TOPIC, batch, exact, play, rows

DELAY = Rules().watermark_delay
MONTH = dt.timedelta(days=30)


@pytest.fixture
def writer(database: Database) -> Iterator[Any]:
    with contextlib.closing(database.connect()) as connection:
        prepare_session(connection)
        yield connection


def at(moment: dt.datetime) -> str:
    return event.format_time(moment)


def failing(settings: Settings) -> dict[str, str]:
    return {check.name: check.found for check in validate(settings).checks if not check.ok}


def test_a_reject_whose_time_has_come_is_judged_again_and_counts_once(
    database: Database, writer: Any, settings: Settings
) -> None:
    hours = [at(NOW + dt.timedelta(hours=hours)) for hours in (1, 2, 30)]
    sent = [play(n, event_time=moment, source="scrobble") for n, moment in enumerate(hours)]
    too_long = play(7, event_time=hours[0], more="x" * 9_000)
    write(writer, batch(rows(*sent, too_long, b"{", fast=False)), Rules())
    reasons = "SELECT reason, rejected FROM ingest_reject_totals ORDER BY reason"
    assert database.rows(reasons) == [("in_future", 4), ("not_json", 1)]
    make_good(writer, TOPIC, Rules(), NOW + dt.timedelta(minutes=50))
    assert database.rows(reasons) == [("in_future", 4), ("not_json", 1)]
    # The sender tried again meanwhile: that one play is not counted twice.
    write(writer, batch(rows(sent[1] | {"event_time": at(NOW)}, start=5)), Rules())
    for _ in range(2):
        make_good(writer, TOPIC, Rules(), NOW + dt.timedelta(hours=3))
        assert database.rows(reasons) == [("in_future", 2), ("not_json", 1)]
        assert database.value("SELECT count(*) FROM rejected_events") == 3
        assert exact(database) == 2
    make_good(writer, TOPIC, Rules(), NOW + dt.timedelta(days=2))
    # Of the one that is too long to be kept not all is there to judge.
    kept = database.rows("SELECT reason, raw_length > 8192, due IS NULL FROM rejected_events ORDER BY 1")
    assert kept == [("in_future", True, True), ("not_json", False, True)]
    state = database.rows("SELECT records, accepted, duplicates, rejected FROM ingest_state")
    assert state == [(6, 3, 1, 2)]
    assert state == database.rows(
        "SELECT sum(records), sum(accepted), sum(duplicates), sum(rejected) FROM ingest_batches"
    )
    # By this test's own clock they are still ahead; all else holds.
    assert list(failing(settings)) == ["no play is dated further ahead than the tolerance"]


def leave_a_month_ahead(database: Database, writer: Any) -> None:
    """What the job writes while the board takes now for a month later."""
    future = [
        play(number, event_time=at(NOW + MONTH), source=source)
        for number, source in ((3, "demo"), (4, "scrobble"))
    ]
    write(writer, batch(rows(*future, start=2)), Rules())
    database.rows(
        "UPDATE ingest_batches SET read_at = read_at + interval '30 days', committed_at = committed_at "
        "+ interval '30 days', ingested_at = ingested_at + interval '30 days' WHERE batch = 2;"
        "UPDATE stream_events SET ingested_at = ingested_at + interval '30 days' "
        "WHERE event_time > now() + interval '1 day'",
        role="music_owner",
    )
    assert database.value("SELECT watermark FROM ingest_state") == NOW + MONTH - DELAY


def test_what_a_clock_that_was_ahead_left_is_drawn_back(
    database: Database, writer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "music-metrics")
    earlier = NOW - dt.timedelta(minutes=1)
    write(writer, batch(rows(play(1, event_time=at(earlier)), play(2, source="scrobble"))), Rules())
    real = database.value("SELECT max(event_time) FROM stream_events")
    leave_a_month_ahead(database, writer)
    make_good(writer, TOPIC, Rules())
    assert "the clock was ahead; drawn back: the watermark of" in caplog.text
    assert database.value("SELECT watermark FROM ingest_state") == real - DELAY
    newest = "SELECT source, newest_event_time FROM ingest_totals ORDER BY source"
    assert database.rows(newest) == [("demo", earlier), ("import", None), ("scrobble", real)]
    for table in ("ingest_batches", "stream_events"):
        assert database.value(f"SELECT max(ingested_at) < now() + interval '1 minute' FROM {table}")
    assert database.value("SELECT max(committed_at) < now() + interval '1 minute' FROM ingest_batches")
    # A new play is not late, and nothing more is to be drawn back.
    caplog.clear()
    assert write(writer, batch(rows(play(5), start=9)), Rules()).late == 0
    make_good(writer, TOPIC, Rules())
    assert caplog.text == ""
    assert exact(database) == 5


def test_plays_of_the_future_are_found_and_removed(
    database: Database, writer: Any, settings: Settings
) -> None:
    write(writer, batch(rows(play(1), play(2, source="scrobble"))), Rules())
    leave_a_month_ahead(database, writer)
    make_good(writer, TOPIC, Rules())
    (found,) = failing(settings).values()
    assert found.endswith("; 2 ahead: musicctl clock")
    since, moment = beyond(settings, NOW), NOW + MONTH
    assert since - NOW <= dt.timedelta(hours=1, minutes=5)
    assert ahead(settings, since) == [Ahead("demo", 1, moment, moment), Ahead("scrobble", 1, moment, moment)]
    with contextlib.closing(database.connect("music_owner")) as connection:
        assert delete_rows(connection, since, 600) == 2
        assert delete_rows(connection, since, 600) == 0
    assert exact(database) == 2
    assert ahead(settings, since) == []
    assert failing(settings) == {}


def test_the_kernel_is_asked_whether_its_clock_is_right() -> None:
    assert synchronised(trusted=True)
    assert synchronised() is kernel_synchronised()


def test_expiry_keeps_the_sums(database: Database, writer: Any) -> None:
    ages = [0, 1, 5, 6, 7, 8, 30, 4000]
    moments = [event.format_time(NOW - dt.timedelta(days=age)) for age in ages]
    events = [play(n, event_time=moment) for n, moment in enumerate(moments)]
    old = [play(99, event_time=moments[-1], source="scrobble")]
    write(writer, batch(rows(*events, *old)), Rules())
    assert housekeep(writer, Ages(6)).expired == 4
    assert exact(database) == 9
    assert database.rows("SELECT expired FROM ingest_totals ORDER BY source") == [(4,), (0,), (0,)]
    again = [play(n + 200, event_time=moment) for n, moment in enumerate(moments)]
    write(writer, batch(rows(*again, start=9)), Rules())
    assert exact(database) == 17
    assert housekeep(writer, Ages(6)).expired == 4
    assert housekeep(writer, Ages(20)).expired == 0
    assert exact(database) == 17
    partitions = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'stream_events_demo'::regclass"
    assert database.value(partitions) == 6


def test_expiry_gives_way_to_a_long_query(database: Database, writer: Any) -> None:
    write(writer, batch(rows(play(1, event_time=event.format_time(NOW - dt.timedelta(days=50))))), Rules())
    with contextlib.closing(database.connect("superset_reader")) as reader:
        reader.cursor().execute("SELECT count(*) FROM stream_events")
        assert housekeep(writer, Ages(14)).expired is None
        assert exact(database) == 1
    assert housekeep(writer, Ages(14)).expired == 1
    assert exact(database) == 1


def test_old_batches_are_forgotten(database: Database, writer: Any) -> None:
    write(writer, batch(rows(play(1))), Rules())
    database.rows("UPDATE ingest_batches SET committed_at = now() - interval '8 days'", role="music_owner")
    housekeep(writer, Ages(14))
    assert database.value("SELECT count(*) FROM ingest_batches") == 0
    assert database.value("SELECT accepted FROM ingest_state") == 1
