"""Every chart of "My listening" against the same number worked out in Python from the plays that were sent."""

from __future__ import annotations

import contextlib
import datetime as dt
import random
from collections import Counter
from collections.abc import Iterator
from itertools import groupby
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import pytest
from asking import CHARTS, in_zone, shown

from chart_sql import Board
from music_streaming import event
from music_streaming.dashboards.bundle import load
from music_streaming.table import Rules, prepare_session, write
from music_streaming.testing import FILES
from music_streaming.testing.postgres import Database, Postgres, new_database
from test_retention import fold, unfold
from test_table import NOW, batch, play, rows

BERLIN = ZoneInfo("Europe/Berlin")
DAY = dt.timedelta(days=1)
MIDNIGHT = NOW.astimezone(BERLIN).replace(hour=0, minute=0, second=0)
LISTENERS = ("ada", "bob", "Zoë O'Neil")


def ago(days: int) -> dt.datetime:
    """The midnight in Berlin so many days ago."""
    return (MIDNIGHT.replace(tzinfo=None) - days * DAY).replace(tzinfo=BERLIN)


class Played(NamedTuple):
    """A play, with what the charts show of it."""

    at: dt.datetime
    listener: str
    song: str
    artist: str
    album: str | None
    genre: str
    player: str
    listened_ms: int | None
    skipped: bool

    @property
    def day(self) -> dt.date:
        return self.at.astimezone(BERLIN).date()


def _sent(number: int, chance: random.Random) -> dict[str, Any]:
    # Half of it lately; the rest as far back as 400 days, with songs that came up one after the other.
    days = chance.choice([1, 30, 100, 400])
    at = MIDNIGHT - chance.random() * days * DAY
    song = chance.randrange(60) if days < 400 else chance.randrange(30)
    sent: dict[str, Any] = play(
        number,
        event_time=event.format_time(at.astimezone(dt.UTC)),
        source=chance.choice(["scrobble", "import", "demo"]),
        user_id=chance.choice(LISTENERS),
        title=f"Song {song}",
        artist=f"Artist {song % 17}",
        album=chance.choice([None, f"Album {song % 23}"]),
        genre=chance.choice([None, "rock", "jazz", "folk"]),
        player=chance.choice([None, "phone", "mpd"]),
        duration_ms=chance.choice([None, 180_000, 240_000]),
        listened_ms=chance.choice([None, None, 30_000, 180_000]),
        skipped=chance.choice([None, True, False]),
    )
    return {name: value for name, value in sent.items() if value is not None}


def _played(sent: dict[str, Any]) -> Played:
    length = None if sent.get("skipped") else sent.get("duration_ms")
    return Played(
        event.parse_time(sent["event_time"]),
        sent["user_id"],
        f"{sent['title']} – {sent['artist']}",
        sent["artist"],
        f"{sent['album']} – {sent['artist']}" if "album" in sent else None,
        sent.get("genre", "unknown"),
        sent.get("player", "unknown"),
        sent.get("listened_ms", length),
        sent.get("skipped", False),
    )


class Household(NamedTuple):
    database: Database
    plays: list[Played]

    def of(self, board: Board) -> list[Played]:
        """Real plays of the chosen listeners, of any time."""
        return [one for one in self.plays if not board.listeners or one.listener in board.listeners]


@pytest.fixture(scope="module")
def household(postgres: Postgres, _template: Database) -> Iterator[Household]:
    """A year of plays, demo ones among them; the metrics folded to hours and days of Berlin."""
    chance = random.Random(22)
    sent = [_sent(number, chance) for number in range(1_500)]
    with new_database(postgres, _template.name) as database:
        unfold(database, str(BERLIN))
        with contextlib.closing(database.connect()) as connection:
            prepare_session(connection)
            assert write(connection, batch(rows(*sent)), Rules()).accepted == len(sent)
        fold(database, ago(14), ago(90))
        starts = "SELECT count(DISTINCT window_start) FROM user_engagement_metrics WHERE window_start < %s"
        local = f"(window_start AT TIME ZONE '{BERLIN}')::time <> '00:00'"
        assert database.value(starts, (ago(91),)) > 50
        assert database.value(f"{starts} AND {local}", (ago(91),)) == 0
        yield Household(database, [_played(one) for one in sent if one["source"] != "demo"])


def _days_in_a_row(plays: list[Played]) -> dict[tuple[Any, ...], tuple[Any, ...]]:
    found: dict[tuple[Any, ...], tuple[Any, ...]] = {}
    for listener in {one.listener for one in plays}:
        days = sorted({one.day for one in plays if one.listener == listener})
        for _, those in groupby(enumerate(days), key=lambda item: item[1] - item[0] * DAY):
            row = [day for _, day in those]
            found[(listener, str(row[0]), str(row[-1]))] = (len(row),)
    return found


def _top(attribute: str, plays: list[Played], board: Board) -> dict[tuple[Any, ...], tuple[Any, ...]]:
    before = board.since - (board.until - board.since)
    now = Counter(getattr(one, attribute) for one in plays if board.since <= one.at < board.until)
    then = Counter(getattr(one, attribute) for one in plays if before <= one.at < board.since)
    return {
        (name,): (count, then[name], count / then[name] - 1 if then[name] else None)
        for name, count in now.items()
        if name is not None and not (attribute == "genre" and name == "unknown")
    }


def _calendar(plays: list[Played]) -> dict[tuple[Any, ...], list[Played]]:
    found: dict[tuple[Any, ...], list[Played]] = {}
    for one in plays:
        monday = one.day - one.day.weekday() * DAY
        found.setdefault((str(monday), f"{one.day.isoweekday()} {one.day:%a}"), []).append(one)
    return found


def _hours(plays: list[Played]) -> float | None:
    known = [one.listened_ms for one in plays if one.listened_ms is not None]
    return sum(known) / 3_600_000 if known else None


def _skipped(plays: list[Played]) -> dict[tuple[Any, ...], tuple[Any, ...]]:
    counts = Counter(one.song for one in plays)
    skips = Counter(one.song for one in plays if one.skipped)
    return {(song,): (count, counts[song], count / counts[song]) for song, count in skips.items()}


def _new_artists(plays: list[Played], board: Board) -> dict[tuple[Any, ...], tuple[Any, ...]]:
    first: dict[str, dt.datetime] = {}
    for one in sorted(plays):
        first.setdefault(one.artist, one.at)
    there = [at for at in first.values() if board.since <= at < board.until]
    return {(month,): (n,) for month, n in Counter(f"{at.astimezone(BERLIN):%Y-%m}" for at in there).items()}


def wanted(path: str, household: Household, board: Board) -> dict[tuple[Any, ...], tuple[Any, ...]]:
    """What the chart groups by -> its metrics, without its limit."""
    every = household.of(board)
    plays = [one for one in every if board.since <= one.at < board.until]
    streaks = _days_in_a_row(every)
    calendar = _calendar(plays)
    return {
        "plays": lambda: {(): (len(plays),)},
        "hours": lambda: {(): (_hours(plays),)},
        "artists": lambda: {(): (len({one.artist for one in plays}),)},
        "longest_streak": lambda: {(): (max((days for (days,) in streaks.values()), default=None),)},
        "streaks": lambda: streaks,
        "calendar": lambda: {key: (len(those),) for key, those in calendar.items()},
        "calendar_hours": lambda: {key: (_hours(those),) for key, those in calendar.items()},
        "clock": lambda: {
            key: (count,)
            for key, count in Counter(
                (f"{one.at.astimezone(BERLIN):%H}", f"{one.day.isoweekday()} {one.day:%a}") for one in plays
            ).items()
        },
        "players": lambda: {
            (player,): (count,) for player, count in Counter(one.player for one in plays).items()
        },
        "skipped_most": lambda: _skipped(plays),
        "new_artists": lambda: _new_artists(every, board),
        "top_artists": lambda: _top("artist", every, board),
        "top_songs": lambda: _top("song", every, board),
        "top_albums": lambda: _top("album", every, board),
        "top_genres": lambda: _top("genre", every, board),
    }[path.removeprefix("mine/")]()


PATHS = sorted(path for path in CHARTS if path.startswith("mine/"))
RANGES = {
    "5 minutes": (ago(1) + dt.timedelta(hours=5), ago(0)),
    "hours": (ago(40), ago(25) + dt.timedelta(hours=7)),
    "days": (ago(200), ago(100)),
    "across": (ago(120), ago(0)),
    "a year": (ago(400), ago(0)),
}
CHOSEN = {"household": (), "one": ("Zoë O'Neil",), "two": ("ada", "bob"), "no play": ("nobody",)}


@pytest.mark.parametrize("chosen", CHOSEN.values(), ids=CHOSEN)
@pytest.mark.parametrize("span", RANGES.values(), ids=RANGES)
@pytest.mark.parametrize("path", PATHS)
def test_numbers(
    household: Household, path: str, span: tuple[dt.datetime, dt.datetime], chosen: tuple[str, ...]
) -> None:
    chart = CHARTS[path]
    board = Board(*span, zone=str(BERLIN), listeners=chosen)
    should = wanted(path, household, board)
    got = shown(household.database, chart, board)
    keys = len(next(iter(should), ()))
    # A big number is one row, also of nothing.
    limit = chart.content["params"].get("row_limit") or len(should)
    assert len(got) == min(len(should), limit)
    for row in got:
        values = [None if value is None else float(value) for value in row[keys:]]
        assert values == [pytest.approx(value) for value in should[row[:keys]]], row
    left_out = should.keys() - {row[:keys] for row in got}
    if left_out:
        assert min(row[keys] for row in got) >= max(should[key][0] for key in left_out)


def test_every_chart_shows_something_of_the_household(household: Household) -> None:
    board = Board(*RANGES["a year"], zone=str(BERLIN))
    assert [path for path in PATHS if not any(wanted(path, household, board).values())] == []
    assert len(PATHS) == 15


def test_dashboards_start_on_real_plays_once_there_are_any(database: Database) -> None:
    """Superset's filter takes the first that its query gives."""
    bundle = load(FILES / "dashboards")
    (origins,) = [part for part in bundle.of("datasets").values() if part["table_name"] == "music_origins"]
    asked = f"SELECT origin FROM ({origins['sql']}) AS virtual_table GROUP BY origin ORDER BY origin DESC"
    assert in_zone(database, "UTC", asked) == [("demo",)]
    with contextlib.closing(database.connect()) as connection:
        prepare_session(connection)
        write(connection, batch(rows(play(1), play(2, source="scrobble"))), Rules())
    assert in_zone(database, "UTC", asked) == [("mine",), ("demo",)]
    # For no longer than this a board shows the demo after the first real play.
    assert origins["cache_timeout"] <= 60
    for name in ("engagement", "content", "geography", "devices"):
        filters = bundle.files[f"dashboards/{name}.yaml"]["metadata"]["native_filter_configuration"]
        (source,) = [one for one in filters if one["name"] == "Source"]
        assert source["targets"] == [{"datasetUuid": origins["uuid"], "column": {"name": "origin"}}]
        assert source["controlValues"]["defaultToFirstItem"] is True
        assert source["controlValues"]["sortAscending"] is False
        # Else the charts would not wait for it.
        assert source["requiredFirst"] is True


@pytest.mark.parametrize("span", RANGES.values(), ids=RANGES)
def test_plays_are_as_many_as_on_the_other_dashboards(
    household: Household, span: tuple[dt.datetime, dt.datetime]
) -> None:
    """Those read the metrics' windows, of 5 minutes, hours and days."""
    whole = (span[0].replace(hour=0), span[1].replace(hour=0))
    board = Board(*whole, ["mine"], zone=str(BERLIN))
    mine = shown(household.database, CHARTS["mine/plays"], board)
    assert mine == shown(household.database, CHARTS["engagement/streams"], board)
    assert mine[0][0] > 0


def test_a_listener_sees_only_the_own_plays(household: Household) -> None:
    """Whole household = the sum of its listeners."""
    parts = [
        shown(
            household.database,
            CHARTS["mine/plays"],
            Board(*RANGES["a year"], zone=str(BERLIN), listeners=(name,)),
        )[0][0]
        for name in LISTENERS
    ]
    [(together,)] = shown(
        household.database, CHARTS["mine/plays"], Board(*RANGES["a year"], zone=str(BERLIN))
    )
    assert all(parts)
    assert sum(parts) == together
