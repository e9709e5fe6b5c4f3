"""Each chart's numbers against plain SQL over the raw plays: counts exact, listeners within 3 %."""

import contextlib
import datetime as dt
import json
import time
from collections import Counter
from collections.abc import Iterator
from itertools import takewhile
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pytest
from asking import CHARTS, last_hour, shown
from psycopg2.sql import SQL
from pyspark.sql import SparkSession

from chart_sql import Board, Chart
from music_streaming.demo.live import live
from music_streaming.demo.world import World
from music_streaming.metrics import ROLL_UPS, WINDOWS, Table
from music_streaming.metrics import sums as counts_of_plays
from music_streaming.query import plays
from music_streaming.table import Batch, Rules, prepare_session, write
from music_streaming.testing.postgres import Database, Postgres, new_database

BERLIN = "Europe/Berlin"
RECORDS = "value binary, partition int, offset bigint, timestamp timestamp, timestampType int"
AUTUMN = dt.datetime(2026, 10, 23, tzinfo=dt.UTC)  # the clocks of Berlin go back on the 25th
SPRING = dt.datetime(2026, 3, 27, tzinfo=dt.UTC)  # and forward on the 29th
DAYS = dt.timedelta(days=4)
# Spark compiles for long on a busy machine.
pytestmark = pytest.mark.timeout(600)


def _values(world: World) -> list[bytes]:
    """Two histories across changes of the clock and the last minutes, some of it from real players."""
    found = []
    for start in (AUTUMN, SPRING):
        begin, end = (int(moment.timestamp() * 1000) for moment in (start, start + DAYS))
        found += [value for block in world.history(begin, end) for value in block.values]
    now = int(time.time() * 1000)
    records = takewhile(lambda record: record.due_ms < now, live(world, now - 240_000, rate=5))
    return [
        _altered(number, value) for number, value in enumerate(found + [record.value for record in records])
    ]


def _altered(number: int, value: bytes) -> bytes:
    try:
        event = json.loads(value)
    except ValueError:
        return value
    if not isinstance(event, dict) or event.get("source") != "demo":
        return value
    event["source"] = "scrobble" if number % 9 == 0 else "import" if number % 23 == 0 else "demo"
    if number % 11 == 0:
        event["country"] = ("XX", "", None, event["country"].lower())[number % 4]
    return json.dumps(event).encode()


@pytest.fixture(scope="module")
def filled(postgres: Postgres, _template: Database, spark: SparkSession) -> Iterator[Database]:
    """A database into which the job's own query and transaction wrote some ten thousand plays."""
    values = _values(World(seed=3, listeners=60, artists=100))
    # Two batches of the same hours, so that the second one updates what the first inserted.
    values = values[::2] + values[1::2]
    now = dt.datetime.now(dt.UTC)
    rows = [(value, 0, offset, now, 1) for offset, value in enumerate(values)]
    # toArrow() refuses a struct that is null beside a field that never is.
    table = pa.Table.from_batches(plays(spark.createDataFrame(rows, RECORDS))._collect_as_arrow())
    half = table.num_rows // 2
    with new_database(postgres, _template.name) as database:
        with contextlib.closing(database.connect("music_owner")) as connection, connection:
            # Whatever the date of today, nothing is folded.
            connection.cursor().execute(
                "UPDATE metrics_folding SET hours_before = '2002-10-01Z', days_before = '2002-10-01Z'"
            )
        with contextlib.closing(database.connect("music_writer")) as connection:
            prepare_session(connection)
            for part in (table.slice(0, half), table.slice(half)):
                assert (
                    write(connection, Batch("stream_events", "topic", part, {}, now), Rules()).accepted
                    > 4_000
                )
        with contextlib.closing(database.connect("postgres")) as connection:
            connection.autocommit = True
            connection.cursor().execute("ANALYZE")
        yield database


_COUNT = "count(*)"
_LISTENERS = "count(DISTINCT user_id)"
_RATES = {
    "skip_rate": "count(*) FILTER (WHERE skipped)::float8 / count(*)",
    "like_rate": "count(*) FILTER (WHERE liked)::float8 / count(*)",
    "completion_rate": "count(*) FILTER (WHERE completed)::float8 / count(*)",
    "average_listen_ms": "sum(listened_ms)::float8 / count(*)",
    "average_listen_s": "sum(listened_ms)::float8 / count(*) / 1000",
    "streams": _COUNT,
    "listeners": _LISTENERS,
    "unique_songs": "count(DISTINCT song_id)",
    "streams_per_listener": f"count(*)::float8 / {_LISTENERS}",
}
_WITHIN_3_PERCENT = {"listeners", "unique_songs", "streams_per_listener"}
_COLUMNS = {
    "age": "CASE age_group WHEN '<18' THEN '0-17' ELSE age_group END",
    "song": "title || ' – ' || artist",
    "hour_of_day": f"lpad(extract(hour FROM event_time AT TIME ZONE '{BERLIN}')::text, 2, '0')",
    "country_name": "(SELECT name FROM countries WHERE code = country)",
}
# What narrows a chart beyond the board's filters.
_ONLY = {
    "geography/streams_on_map": "country <> 'ZZ'",
    "geography/streams_map": "country <> 'ZZ'",
    "geography/listeners_map": "country <> 'ZZ'",
    "geography/streams_unknown": "country = 'ZZ'",
}
_BOARDS = ("engagement", "content", "geography", "devices")
_TRENDING = "content/trending_songs"
_DAYS = [f"{board}/{what}_by_day" for board in ("engagement", "content") for what in ("streams", "listeners")]
FROM_PLAYS = sorted(
    path for path in CHARTS if path.split("/")[0] in _BOARDS and path not in (_TRENDING, *_DAYS)
)


def expected(database: Database, chart: Chart, board: Board) -> list[tuple[Any, ...]]:
    """The rows that the chart should have, from the raw plays, without its limit."""
    labels = chart.labels()
    columns = [label for label in labels if label not in _RATES]
    conditions = ["event_time >= %(since)s", "event_time < %(until)s", _ONLY.get(chart.path, "true")]
    if board.origins:
        wanted = {"demo": "source = 'demo'", "mine": "source <> 'demo'"}
        conditions.append(" OR ".join(wanted[origin] for origin in board.origins).join("()"))
    if board.countries and chart.path.startswith("geography/"):
        conditions.append(f"{_COLUMNS['country_name']} = ANY(%(countries)s)")
    select = ", ".join(_RATES[label] if label in _RATES else _COLUMNS.get(label, label) for label in labels)
    group = f"GROUP BY {', '.join(str(n + 1) for n in range(len(columns)))}" if columns else ""
    return database.rows(
        f"SELECT {select} FROM stream_events WHERE {' AND '.join(conditions)} {group}",
        {"since": board.since, "until": board.until, "countries": list(board.countries)},
    )


def compare(chart: Chart, got: list[tuple[Any, ...]], wanted: list[tuple[Any, ...]]) -> None:
    """Same rows; where the chart has a limit, those of them with the most of its first metric."""
    labels = chart.labels()
    width = sum(label not in _RATES for label in labels)
    rows = {row[:width]: row[width:] for row in wanted}
    assert len(got) == min(len(rows), chart.content["params"].get("row_limit") or len(rows))
    for row in got:
        for label, shown_value, value in zip(labels[width:], row[width:], rows[row[:width]], strict=True):
            tolerance = 0.03 if label in _WITHIN_3_PERCENT else 1e-9 if isinstance(value, float) else 0
            assert float(shown_value) == pytest.approx(float(value), rel=tolerance, abs=1e-12), (row, label)
    if len(got) < len(rows):
        left_out = [values[0] for key, values in rows.items() if key not in {row[:width] for row in got}]
        assert min(row[width] for row in got) >= max(left_out)


BOARDS = {
    "all": Board(AUTUMN, AUTUMN + DAYS, zone=BERLIN),
    "demo": Board(AUTUMN, AUTUMN + DAYS, ["demo"], zone=BERLIN),
    "mine": Board(AUTUMN, AUTUMN + DAYS, ["mine"], zone=BERLIN),
    "hours": Board(AUTUMN + DAYS / 4, AUTUMN + DAYS / 3, zone=BERLIN),
    "spring": Board(SPRING, SPRING + DAYS, zone=BERLIN),
    "one country": Board(AUTUMN, AUTUMN + DAYS, (), ["Germany", "Japan"], zone=BERLIN),
}


CASES = [
    pytest.param(path, board, id=f"{path}, {name}")
    for path in FROM_PLAYS
    for name, board in BOARDS.items()
    if not board.countries or path.startswith("geography/")
]


@pytest.mark.parametrize(("path", "board"), CASES)
def test_numbers_of_a_chart(filled: Database, path: str, board: Board) -> None:
    chart = CHARTS[path]
    wanted = expected(filled, chart, board)
    assert wanted
    compare(chart, shown(filled, chart, board), wanted)


@pytest.mark.parametrize("start", [AUTUMN, SPRING], ids=["clock goes back", "clock goes forward"])
def test_hour_of_day_when_the_clock_changes(filled: Database, start: dt.datetime) -> None:
    board = Board(start, start + DAYS, zone=BERLIN)
    times = filled.rows(
        "SELECT event_time FROM stream_events WHERE event_time >= %s AND event_time < %s", board[:2]
    )
    wanted = Counter(f"{moment.astimezone(ZoneInfo(BERLIN)):%H}" for (moment,) in times)
    assert dict(shown(filled, CHARTS["engagement/activity_by_hour"], board)) == wanted
    by_region: Counter[str] = Counter()
    for hour, _, streams in shown(filled, CHARTS["geography/region_by_hour"], board):
        by_region[hour] += int(streams)
    assert by_region == wanted


@pytest.mark.parametrize("path", _DAYS)
@pytest.mark.parametrize(("days", "unit"), [(3, "day"), (200, "week")])
def test_days_are_whole_and_the_owners_and_weeks_in_long_ranges(
    filled: Database, path: str, days: int, unit: str
) -> None:
    """The range begins in the middle of a day, and the clock goes back within it."""
    until = AUTUMN + DAYS - dt.timedelta(hours=5)
    board = Board(until - dt.timedelta(days=days), until, ["demo"], zone=BERLIN)
    genre = ", genre" if path.startswith("content/") else ""
    local = f"date_trunc('{unit}', event_time AT TIME ZONE '{BERLIN}')"
    wanted = filled.rows(
        f"SELECT {local}{genre}, {_COUNT if 'streams' in path else _LISTENERS} FROM stream_events "
        f"WHERE {local} >= date_trunc('{unit}', %s AT TIME ZONE '{BERLIN}') AND event_time < %s "
        f"AND source = 'demo' GROUP BY {local}{genre}",
        board[:2],
    )
    assert len({row[0] for row in wanted}) >= (4 if unit == "day" else 2)
    compare(CHARTS[path], shown(filled, CHARTS[path], board), wanted)


@pytest.mark.parametrize("zone", [BERLIN, "Asia/Kolkata", "America/St_Johns"])
def test_a_chosen_day_is_the_owners(filled: Database, zone: str) -> None:
    """From midnight to midnight where the owner lives, half hours included, and 25 h where the clock goes back."""
    midnight = dt.datetime(2026, 10, 25, tzinfo=ZoneInfo(zone))
    board = Board(midnight, dt.datetime(2026, 10, 26, tzinfo=ZoneInfo(zone)), zone=zone)
    local_day = (
        "SELECT count(*) FROM stream_events "
        f"WHERE (event_time AT TIME ZONE '{zone}') >= '2026-10-25' AND (event_time AT TIME ZONE '{zone}') < '2026-10-26'"
    )
    assert shown(filled, CHARTS["engagement/streams"], board) == filled.rows(local_day)
    assert "'2026-10-25 00:00:00.000000'" in CHARTS["engagement/streams"].sql(board)


def test_map_and_unknown_make_the_total(filled: Database) -> None:
    board = BOARDS["all"]
    on_map = sum(streams for _, streams in shown(filled, CHARTS["geography/streams_map"], board))
    [(unknown,)] = shown(filled, CHARTS["geography/streams_unknown"], board)
    [(total,)] = shown(filled, CHARTS["geography/streams"], board)
    assert unknown > 0
    assert on_map + unknown == total
    countries = {row[0] for row in shown(filled, CHARTS["geography/streams_map"], board)}
    assert all(len(code) == 2 and code.isupper() for code in countries)


@pytest.mark.parametrize(("origins", "mine"), [([], [True, False]), (["demo"], [False])], ids=["all", "demo"])
def test_trending_compares_shares_with_the_same_span_before(
    filled: Database, origins: list[str], mine: list[bool]
) -> None:
    since, until = AUTUMN + DAYS / 2, AUTUMN + DAYS - dt.timedelta(minutes=17)
    rows = filled.rows(
        "SELECT title || ' – ' || artist, count(*) FILTER (WHERE event_time >= %(since)s), "
        "count(*) FILTER (WHERE event_time < %(since)s) FROM stream_events "
        "WHERE event_time >= %(before)s AND event_time < %(until)s AND (source <> 'demo') = ANY(%(mine)s) GROUP BY 1",
        {
            # whole hours: from 00:00 of the third day to 23:00, 47 of them, and the 47 before
            "until": AUTUMN + DAYS - dt.timedelta(hours=1),
            "since": since,
            "before": since - dt.timedelta(hours=47),
            "mine": mine,
        },
    )
    all_now, all_before = (sum(row[place] for row in rows) for place in (1, 2))
    shares = {song: now / all_now - before / all_before for song, now, before in rows if now >= 10}
    wanted = {song: rise for song, rise in shares.items() if rise > 0}
    board = Board(since + dt.timedelta(minutes=43), until, origins)
    got = shown(filled, CHARTS[_TRENDING], board)
    assert wanted, "no song rose; the history of the test is too short"
    assert all(rise < 1 for rise in wanted.values())
    assert len(got) == min(10, len(wanted))
    assert [rise for _, rise in got] == pytest.approx(sorted(wanted.values(), reverse=True)[: len(got)])
    assert all(rise == pytest.approx(wanted[song]) for song, rise in got)


_ARRIVED = (
    "FROM stream_events WHERE ingested_at < event_time + interval '15 minutes' "
    "AND event_time > now() - interval '25 hours'"
)
# From the raw plays as well, but counted from now; what is compared is every row.
LIVE = {
    "live/listeners_now": f"SELECT count(DISTINCT user_id) {_ARRIVED}",
    "live/streams_per_minute_now": f"SELECT count(*) / 5.0 {_ARRIVED}",
    "live/streams_last_hour": f"SELECT count(*) {_ARRIVED}",
    "live/streams_by_country": f"SELECT country, count(*) {_ARRIVED} AND country <> 'ZZ' GROUP BY 1",
}
HEALTH = {
    "health/difference": "SELECT 0",
    "health/gaps": "SELECT count(*) FROM ingest_gaps",
    "health/duplicates": "SELECT duplicates FROM ingest_state",
    "health/late": "SELECT sum(late) FROM ingest_totals",
    "health/rejects": "SELECT reason, count(*) FROM rejected_events GROUP BY 1",
    "health/events_per_second": "SELECT records / 60.0 FROM ingest_state",
    "health/totals": "SELECT source, accepted, duplicates, late, expired FROM ingest_totals",
    "health/exactness": "SELECT t.source, n, n, n, n, n, 0 FROM ingest_totals t "
    "CROSS JOIN LATERAL (SELECT count(*) AS n FROM stream_events e WHERE e.source = t.source) c",
}


@pytest.mark.parametrize("path", [*LIVE, *HEALTH])
def test_numbers_of_now(filled: Database, path: str) -> None:
    got = shown(filled, CHARTS[path], last_hour())
    assert got
    assert sorted(got) == sorted(filled.rows((LIVE | HEALTH)[path]))


def test_what_is_playing_now_are_the_newest_plays(filled: Database) -> None:
    got = shown(filled, CHARTS["live/playing_now"], last_hour())
    assert len(got) == 12
    known = set(filled.rows(f"SELECT title, artist {_ARRIVED}"))
    assert {row[1:3] for row in got} <= known


def test_what_a_player_says_is_playing_now_is_on_top(filled: Database) -> None:
    filled.rows(
        "INSERT INTO listeners (name, country) VALUES ('ada', 'DE'), ('bob', 'FR'); INSERT INTO listener_playing "
        "(listener, title, artist, started_at, ends_at) "
        "VALUES ('ada', 'Now', 'A', now() - interval '7 minutes', now() + interval '1 minute'), "
        "('bob', 'Over', 'B', now() - interval '7 minutes', now() - interval '1 minute')",
        role="music_owner",
    )
    try:
        got = shown(filled, CHARTS["live/playing_now"], last_hour())
    finally:
        filled.rows("DELETE FROM listeners", role="music_owner")
    assert got[0][1:4] == ("Now", "A", "Germany")
    assert "Over" not in {row[1] for row in got}


def test_top_songs_of_the_hour(filled: Database) -> None:
    chart = CHARTS["live/top_songs_hour"]
    wanted = filled.rows(f"SELECT title || ' – ' || artist, count(*) {_ARRIVED} GROUP BY 1")
    compare(chart, shown(filled, chart, last_hour()), wanted)


def test_streams_per_minute_leaves_the_running_minute_out(filled: Database) -> None:
    board = last_hour(BERLIN)
    minutes = dict(shown(filled, CHARTS["live/streams_per_minute"], board))
    running = dt.datetime.now(ZoneInfo(BERLIN)).replace(tzinfo=None, second=0, microsecond=0)
    assert running not in minutes
    total = filled.value(f"SELECT count(*) {_ARRIVED} AND ingested_at < date_trunc('minute', now())")
    assert sum(minutes.values()) == total


@pytest.mark.parametrize(
    ("path", "moment"),
    [
        ("live/newest_play_age", "SELECT max(ingested_at) FROM stream_events"),
        ("health/lag", "SELECT max(newest_kafka_time) FROM ingest_offsets"),
    ],
)
def test_ages_are_of_the_last_batch(filled: Database, path: str, moment: str) -> None:
    since = filled.value(moment)
    before = dt.datetime.now(dt.UTC) - since
    [(age,)] = shown(filled, CHARTS[path], last_hour())
    assert before <= dt.timedelta(milliseconds=age) <= dt.datetime.now(dt.UTC) - since


def test_freshness_is_from_the_report_of_a_play(filled: Database) -> None:
    [(half,)], [(most,)] = (
        shown(filled, CHARTS[f"health/freshness_{name}"], last_hour()) for name in ("median", "p99")
    )
    lasted = filled.rows(
        "SELECT extract(epoch FROM b.committed_at - e.event_time)::float8 * 1000, e.listened_ms "
        f"FROM (SELECT event_time, ingested_at, listened_ms {_ARRIVED} AND source = 'demo') e "
        "JOIN ingest_batches b USING (ingested_at)"
    )
    # At the start of the play, where its end is still to come; else at its end.
    ordered = sorted(age - heard if heard <= age else age for age, heard in lasted)
    assert half == pytest.approx(ordered[len(ordered) // 2], rel=0.02)
    assert ordered[int(len(ordered) * 0.97)] <= most <= ordered[-1]


@pytest.mark.parametrize("roll_up", ROLL_UPS, ids=[roll_up.name for roll_up in ROLL_UPS])
def test_roll_ups_equal_the_plays(filled: Database, roll_up: Table) -> None:
    key = ", ".join(("source", *roll_up.keys))
    sums = ", ".join(f"sum({name}) AS {name}" for name in roll_up.count_names)
    made = SQL(
        "SELECT {window} AS start, {key}, {sums} FROM stream_events CROSS JOIN metrics_folding f "
        "JOIN songs USING (song_id, title, artist, genre) GROUP BY 1, {key}"
    ).format(window=SQL(WINDOWS[roll_up.window]), key=SQL(key), sums=counts_of_plays(roll_up.counts))
    kept = f"SELECT {roll_up.start}, {key}, {sums} FROM {roll_up.name} GROUP BY {roll_up.start}, {key}"
    assert sorted(filled.rows(kept)) == sorted(filled.rows(made))


def test_every_other_chart_has_rows(filled: Database) -> None:
    for path in ("freshness", "batch_time", "newest_rejects", "table_sizes"):
        assert shown(filled, CHARTS[f"health/{path}"], last_hour()), path


def test_time_filter_reaches_the_index(filled: Database) -> None:
    """Each chart with a time filter on a metric table reads it by the start of the window."""
    board = Board(AUTUMN, AUTUMN + dt.timedelta(hours=2))
    for path in FROM_PLAYS:
        plan = "\n".join(line for (line,) in filled.rows("EXPLAIN " + CHARTS[path].sql(board)))
        assert "Index Cond: ((window_start >=" in plan or "Index Cond: ((hour >=" in plan, f"{path}\n{plan}"
