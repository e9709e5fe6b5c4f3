"""Folding, proving and expiring on a real PostgreSQL: no sum changes, and the equality holds at every commit."""

import contextlib
import datetime as dt
import itertools
import random
import threading
from collections.abc import Iterator
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from psycopg2 import sql

from music_streaming import event
from music_streaming.board.validate import validate
from music_streaming.metrics import ROLL_UPS, SHOWN, TABLES, stored_plays
from music_streaming.retention import Ages, housekeep, set_zone
from music_streaming.settings import Settings
from music_streaming.table import Rules, prepare_session, write
from music_streaming.testing.postgres import Database
from test_table import NOW, batch, exact, play, rows

DAY = dt.timedelta(days=1)
# Nothing expires or folds; sketches are kept as they are.
NEVER = Ages(10_000, 10_000, 10_000)


@pytest.fixture
def writer(database: Database) -> Iterator[Any]:
    with contextlib.closing(database.connect()) as connection:
        prepare_session(connection)
        yield connection


class Stream:
    """Plays given to the job's transaction, each with the next offset."""

    def __init__(self, writer: Any) -> None:
        self.writer, self.offset = writer, 0

    def send(self, moments: list[dt.datetime], source: str = "scrobble", **changes: Any) -> None:
        numbers = range(self.offset, self.offset + len(moments))
        sent = [
            play(n, event_time=event.format_time(at), source=source, **changes)
            for n, at in zip(numbers, moments, strict=True)
        ]
        assert write(self.writer, batch(rows(*sent, start=self.offset)), Rules()).accepted == len(sent)
        self.offset += len(sent)


def unfold(database: Database, zone: str = "UTC") -> None:
    """As a board is whose plays are all young: 5-minute windows as far back as any play can be."""
    database.rows(
        "UPDATE metrics_folding SET zone = %(zone)s, hour_origin = date_trunc('hour', now(), %(zone)s), "
        "hours_before = day_start('2002-10-01Z'), days_before = day_start('2002-10-01Z')",
        {"zone": zone},
        role="music_owner",
    )


def fold(database: Database, hours_before: dt.datetime, days_before: dt.datetime) -> None:
    """Fold up to two moments, day by day, and nothing older than the oldest play."""
    with contextlib.closing(database.connect("music_owner")) as connection, connection:
        cursor = connection.cursor()
        cursor.execute("SELECT day_start(min(event_time)) FROM stream_events")
        oldest = cursor.fetchone()[0]
        cursor.execute("UPDATE metrics_folding SET hours_before = %s, days_before = %s", (oldest, oldest))
    now = dt.datetime.now(dt.UTC)
    ages = Ages(10_000, max(1, (now - hours_before).days), max(1, (now - days_before).days))
    with contextlib.closing(database.connect()) as connection:
        # A round takes a limited time.
        while housekeep(connection, ages).folded_days:
            pass


def sums(database: Database, since: dt.datetime, until: dt.datetime) -> dict[str, list[tuple[Any, ...]]]:
    """Each count, and each sketch, of the windows that begin in [since, until), by key."""
    found = {}
    for table in SHOWN:
        counts = ", ".join(f"sum({name})" for name in table.count_names)
        sketches = ", ".join(f"hll_union_agg({name})::text" for name in table.sketch_names)
        key = ", ".join(("source", *table.keys))
        found[table.name] = database.rows(
            f"SELECT {key}, {counts}, {sketches} FROM {table.name} "
            f"WHERE window_start >= %s AND window_start < %s GROUP BY {key} ORDER BY {key}",
            (since, until),
        )
    found["songs"] = database.rows("SELECT * FROM song_streams(%s, %s) ORDER BY 1, 2, 3", (since, until))
    return found


def moments_of(days: int, number: int, seed: int, zone: str = "UTC") -> list[dt.datetime]:
    chance = random.Random(seed)
    midnight = NOW.astimezone(ZoneInfo(zone)).replace(hour=0, minute=0, second=0) - days * DAY
    return [midnight + dt.timedelta(seconds=chance.randrange(days * 86_400)) for _ in range(number)]


@pytest.mark.parametrize(
    "zone", ["UTC", "Asia/Kolkata", "America/St_Johns", "Asia/Kathmandu", "Europe/Berlin"]
)
def test_local_days_and_hours_are_the_same_after_folding(database: Database, writer: Any, zone: str) -> None:
    """With zones whose hours begin at a half and at three quarters, and one whose clock changes."""
    unfold(database, zone)
    stream = Stream(writer)
    stream.send(moments_of(40, 300, 1, zone))
    here = ZoneInfo(zone)
    local = NOW.astimezone(here).replace(hour=0, minute=0, second=0, tzinfo=None)
    days = [(local - n * DAY).replace(tzinfo=here).astimezone(dt.UTC) for n in (41, 33, 30, 20, 3, 0)]
    ranges = [*itertools.pairwise(days), (days[0], days[-1])]
    hours = [(days[2] + dt.timedelta(hours=n), days[2] + dt.timedelta(hours=n + 5)) for n in (0, 7, 19)]
    before = [sums(database, *span) for span in [*ranges, *hours]]
    assert all(found["geographic_metrics"] for found in before[:4])
    rows_before = database.value("SELECT count(*) FROM device_usage_metrics")
    fold(database, days[3], days[3] - 1000 * DAY)
    assert [sums(database, *span) for span in [*ranges, *hours]] == before
    fold(database, days[3], days[2])
    assert exact(database) == 300
    assert [sums(database, *span) for span in ranges] == before[: len(ranges)]
    assert database.value("SELECT count(*) FROM device_usage_metrics") < rows_before
    starts = "SELECT DISTINCT window_start AT TIME ZONE %s FROM content_performance WHERE window_start < %s"
    assert all(start.time() == dt.time() for (start,) in database.rows(starts, (zone, days[2])))
    # What comes late goes to the day or hour that is there, and changes no other.
    stream.send([days[1] + dt.timedelta(hours=3), days[2] + dt.timedelta(hours=30, minutes=31)])
    assert exact(database) == 302
    assert all(start.time() == dt.time() for (start,) in database.rows(starts, (zone, days[2])))


_offset = st.integers(0, 20 * 86_400 - 1)


@examples(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seconds=st.lists(_offset, min_size=1, max_size=30),
    late=st.lists(_offset, max_size=8),
    days=st.tuples(*[st.integers(0, 20)] * 4),
)
def test_any_sum_over_whole_days_is_the_same_before_and_after(
    database: Database,
    writer: Any,
    seconds: list[int],
    late: list[int],
    days: tuple[int, int, int, int],
) -> None:
    database.rows(
        f"TRUNCATE {', '.join(table.name for table in TABLES)}, stream_events, ingest_periods, ingest_offsets, "
        "ingest_state, genre_metrics, country_hour_streams, song_days, song_months;"
        "UPDATE ingest_totals SET accepted = 0, duplicates = 0",
        role="music_owner",
    )
    unfold(database)
    first = NOW.replace(hour=0, minute=0, second=0) - 21 * DAY
    stream = Stream(writer)
    stream.send([first + dt.timedelta(seconds=n) for n in seconds])
    since, until = first + min(days[:2]) * DAY, first + max(days[:2]) * DAY
    if late:
        stream.send([first + dt.timedelta(seconds=n) for n in late], source="import")
    wanted = sums(database, since, until)
    fold(database, first + max(days[2:]) * DAY, first + min(days[2:]) * DAY)
    assert sums(database, since, until) == wanted
    assert exact(database) == len(seconds) + len(late)
    stream.send([first + dt.timedelta(seconds=n) for n in late])
    assert exact(database) == len(seconds) + 2 * len(late)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_years_of_days_pass(database: Database, writer: Any, settings: Settings) -> None:
    """In fast motion: the ages shrink by a day at a time, so the plays grow older by it. All adds up at each step."""
    unfold(database)
    stream = Stream(writer)
    days = 730
    midnight = NOW.replace(hour=0, minute=0, second=0)
    chance = random.Random(7)
    for start in range(days, 0, -10):
        at = [midnight - start * DAY + dt.timedelta(seconds=chance.randrange(10 * 86_400)) for _ in range(12)]
        stream.send([moment for moment in at if moment < NOW])
    for age in range(60):
        at = [midnight - age * DAY + dt.timedelta(seconds=chance.randrange(86_400)) for _ in range(12)]
        stream.send([moment for moment in at if moment < NOW], source="demo")
    accepted = exact(database)
    years = sums(database, midnight - 731 * DAY, midnight)
    mine = {name: [row for row in found if row[0] != "demo"] for name, found in years.items()}
    oldest = midnight - (days + 1) * DAY
    database.rows(
        "UPDATE metrics_folding SET hours_before = %s, days_before = %s", (oldest, oldest), role="music_owner"
    )
    expired = proved = folded = 0
    for age in range(days, 0, -5):
        done = housekeep(writer, Ages(age, max(1, age - 14), max(1, age - 7)))
        assert done.expired is not None
        expired, proved, folded = expired + done.expired, proved + done.proved, folded + done.folded_days
        assert exact(database) == accepted, f"after plays of {age} days and more"
        recent = database.rows("SELECT source, exact FROM ingest_exactness_recent")
        assert all(found for _, found in recent), (age, recent)
    assert (expired > 300, proved > 300, folded > 1000) == (True, True, True), (expired, proved, folded)
    after = sums(database, midnight - 731 * DAY, midnight)
    assert {name: [row for row in found if row[0] != "demo"] for name, found in after.items()} == mine
    sample = validate(settings, full=True)
    assert [check for check in sample.checks if not check.ok] == []


def test_what_was_proved_is_not_counted_again_until_a_play_comes(
    database: Database, writer: Any, settings: Settings
) -> None:
    stream = Stream(writer)
    stream.send([NOW - dt.timedelta(hours=n) for n in (3, 6, 9)])
    stream.send([NOW])
    done = housekeep(writer, NEVER)
    assert (done.counted, done.proved) == (3, 3)
    assert housekeep(writer, NEVER).counted == 0
    damage = (
        "UPDATE geographic_metrics SET streams = streams + 1 WHERE window_start < now() - interval '8 hours'"
    )
    database.rows(damage, role="music_owner")
    assert [check.name for check in validate(settings).checks if not check.ok] == []
    assert any(
        "counted again" in check.name for check in validate(settings, full=True).checks if not check.ok
    )
    stream.send([NOW - dt.timedelta(hours=9)])
    assert any(
        check.name.startswith("scrobble: accepted") for check in validate(settings).checks if not check.ok
    )
    # Counted and found to differ, it stays open, and the tile shows it.
    done = housekeep(writer, NEVER)
    assert (done.counted, done.proved) == (1, 0)
    differing = "SELECT source FROM ingest_exactness_recent WHERE NOT exact"
    assert database.rows(differing) == [("scrobble",)]
    database.rows(damage.replace("+ 1", "- 1"), role="music_owner")
    assert housekeep(writer, NEVER).proved == 1
    assert database.rows(differing) == []


def test_a_play_goes_from_windows_of_any_age(database: Database, writer: Any) -> None:
    """What stays is what the plays that stay would make, sketches too."""
    stream = Stream(writer)
    stream.send(moments_of(120, 60, 3))
    chosen = database.rows("SELECT event_id, user_id FROM stream_events ORDER BY kafka_offset LIMIT 40")
    for event_id, user in chosen:
        removed = "SELECT remove_own_play(%s, %s)"
        assert database.value(removed, (event_id, user), "music_scrobble")
        exact(database)
    assert exact(database) == 20
    names = [table.name for table in (*TABLES, *ROLL_UPS)]
    contents = [f"SELECT to_jsonb(t) - 'updated_at' FROM {name} AS t ORDER BY 1" for name in names]
    left = [database.rows(content) for content in contents]
    with contextlib.closing(database.connect("music_owner")) as connection, connection:
        cursor = connection.cursor()
        cursor.execute(f"TRUNCATE {', '.join(names)}, ingest_periods")
        for statement in stored_plays(sql.Identifier("stream_events")):
            cursor.execute(statement)
    assert left == [database.rows(content) for content in contents]


def test_beside_the_job_at_work(database: Database, writer: Any) -> None:
    """Batches with late plays go on while windows fold, days expire and periods are proved."""
    unfold(database)
    midnight = NOW.replace(hour=0, minute=0, second=0)
    Stream(writer).send([midnight - n * DAY for n in range(60)])
    database.rows(
        "UPDATE metrics_folding SET hours_before = %s, days_before = %s",
        (midnight - 60 * DAY,) * 2,
        "music_owner",
    )
    stop, errors = threading.Event(), []

    def job() -> None:
        stream, chance = Stream(writer), random.Random(5)
        stream.offset = 60
        try:
            while not stop.is_set():
                moments = [NOW - dt.timedelta(seconds=chance.randrange(60 * 86_400)) for _ in range(20)]
                stream.send(moments, source=chance.choice(["demo", "scrobble"]))
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=job)
    thread.start()
    try:
        with contextlib.closing(database.connect()) as connection:
            for age in range(50, 5, -3):
                housekeep(connection, Ages(age + 5, age, age + 4))
                exact(database)
    finally:
        stop.set()
        thread.join(60)
    assert errors == []
    assert exact(database) > 60


def test_the_zone_holds_once_a_play_is_stored(database: Database, writer: Any) -> None:
    assert set_zone(writer, "Asia/Kolkata") == "Asia/Kolkata"
    assert database.value("SELECT extract(minute FROM hour_origin) FROM metrics_folding") == 30
    Stream(writer).send([NOW])
    assert set_zone(writer, "Europe/Berlin") == "Asia/Kolkata"


def test_parents_of_partitions_are_analyzed(database: Database, writer: Any) -> None:
    Stream(writer).send([NOW])
    housekeep(writer, NEVER)
    seen = "SELECT reltuples FROM pg_class WHERE relname = 'user_engagement_metrics'"
    assert database.value(seen) == 1
