"""One fact followed from the event to the chart: field -> query -> SQL -> dataset -> chart.

Each link is compared with the one before it, as it really is: Spark's schema of the query, PostgreSQL's columns
after the migrations, the files of the dashboards. A column too many or too few is a sentence. The tests with
"planted" in their name show that each link can break.
"""

from __future__ import annotations

import contextlib
import copy
import datetime as dt
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from pyspark.sql import SparkSession

from chart_sql import Board, Chart
from music_streaming import event, metrics, query
from music_streaming.dashboards.bundle import Bundle, load
from music_streaming.dashboards.lint import lint
from music_streaming.testing.postgres import Database

# Kind of a field -> type in Spark, type in PostgreSQL; every other kind is text.
TYPES = {
    "uuid": ("string", "uuid"),
    "time": ("timestamp", "timestamp with time zone"),
    "integer": ("bigint", "bigint"),
    "boolean": ("boolean", "boolean"),
}
TEXT = ("string", "text")
TIME = "timestamp with time zone"
# Columns of stream_events that say how the play came.
OF_INGEST = {"late": "boolean", "kafka_partition": "integer", "kafka_offset": "bigint", "ingested_at": TIME}
# Columns that a dataset leaves out: ids and bytes that no chart can show.
LEFT_OUT = {
    "ingest_gaps": {"topic_id"},
    "ingest_offsets": {"topic_id"},
    "rejected_events": {"topic_id", "kafka_time", "raw", "serial"},
}
# Too large for the dashboards, which read its roll-ups; there for the owner's own charts.
WITHOUT_CHART = {"content_performance_metrics"}
RECORDS = "value binary, partition int, offset bigint, timestamp timestamp, timestampType int"
NOW = dt.datetime(2026, 11, 27, tzinfo=dt.UTC)
VIEWER = Board(NOW - dt.timedelta(days=7), NOW)

Columns = dict[str, str]
Tables = dict[str, Columns]


def compare(place: str, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> Iterator[str]:
    """A sentence for each name that is missing, too many, or of another type."""
    for name in sorted(wanted.keys() - found.keys()):
        yield f"{place}: found no {name}, wanted it as {wanted[name]}"
    for name in sorted(found.keys() - wanted.keys()):
        yield f"{place}: found {name}, wanted no such column"
    for name in sorted(wanted.keys() & found.keys()):
        if found[name] != wanted[name]:
            yield f"{place}: found {name} as {found[name]}, wanted {wanted[name]}"


def query_faults(columns: Columns) -> Iterator[str]:
    """Event -> query: the rows of query.plays have each field once, typed, and what the metrics need."""
    wanted = {f"play.{field.name}": TYPES.get(field.kind, TEXT)[0] for field in event.FIELDS}
    wanted |= {"play.region": "string"}
    wanted |= {"partition": "int", "offset": "bigint", "kafka_time": "timestamp"}
    wanted |= {"value": "binary", "value_length": "int", "event_time": "timestamp"}
    wanted |= dict.fromkeys(metrics.WINDOWS, "timestamp")
    wanted |= {sketch.hashed: "bigint" for sketch in metrics.SKETCHES}
    yield from compare("query", columns, wanted)


def stored_faults(tables: Tables) -> Iterator[str]:
    """Query -> SQL: stream_events has a column for each, of its type, NOT NULL where there always is a value."""
    wanted = {}
    for field in event.FIELDS:
        always = field.required or field.default is not None or field.name == "song_id"
        wanted[field.name] = TYPES.get(field.kind, TEXT)[1] + (" NOT NULL" if always else "")
    wanted["region"] = "text NOT NULL"
    wanted |= {name: f"{type_} NOT NULL" for name, type_ in OF_INGEST.items()}
    yield from compare("stream_events", tables["stream_events"], wanted)


def metrics_faults(tables: Tables, keys: Mapping[str, tuple[str, ...]]) -> Iterator[str]:
    """metrics.py -> SQL: tables, keys, counts and sketches; and what they are made from are columns of a play."""
    for table in metrics.TABLES:
        key = ("window_start", "source", *table.keys)
        wanted = _metric_columns(key, metrics.COUNT_NAMES, metrics.SKETCH_NAMES) | {"updated_at": TIME}
        yield from _table_faults(tables, keys, table.name, key, wanted)
        for view in ("ingest_exactness", "ingest_exactness_recent"):
            if table.name.removesuffix("_metrics") not in tables[view]:
                yield f"{view}: found no sum of {table.name}, wanted each table of metrics"
    for roll_up in metrics.ROLL_UPS:
        key = (roll_up.start, "source", *roll_up.keys)
        wanted = _metric_columns(key, roll_up.counts, roll_up.sketches)
        yield from _table_faults(tables, keys, roll_up.name, key, wanted)
    others = {name for name in tables if name.endswith("_metrics")} - set(metrics.TABLE_NAMES)
    yield from (f"metrics.py: found no {name}, wanted each table of metrics" for name in sorted(others))
    for count in metrics.COUNTS:
        wanted_type = "boolean" if count.flag else "bigint"
        if count.of and tables["stream_events"].get(count.of) != wanted_type:
            yield f"metrics.py: found {count.name} of {count.of}, wanted a {wanted_type} of stream_events"
    for sketch in metrics.SKETCHES:
        if sketch.of not in tables["stream_events"]:
            yield f"metrics.py: found {sketch.name} of {sketch.of}, wanted a column of stream_events"


def _metric_columns(key: tuple[str, ...], counts: tuple[str, ...], sketches: tuple[str, ...]) -> Columns:
    columns = dict.fromkeys(key[1:], "text") | {key[0]: TIME}
    return columns | dict.fromkeys(counts, "bigint") | dict.fromkeys(sketches, f"hll({metrics.LOG2M})")


def _table_faults(
    tables: Tables, keys: Mapping[str, tuple[str, ...]], name: str, key: tuple[str, ...], wanted: Columns
) -> Iterator[str]:
    if name not in tables:
        yield f"{name}: found no such table, wanted it as metrics.py says"
        return
    yield from compare(name, tables[name], {column: f"{type_} NOT NULL" for column, type_ in wanted.items()})
    if keys[name] != key:
        yield f"{name}: found the key {', '.join(keys[name])}, wanted {', '.join(key)}"


def dataset_faults(cursor: Any, bundle: Bundle) -> Iterator[str]:
    """SQL -> dataset: its columns are those that PostgreSQL gives, and each expression is one that it takes."""
    read = set()
    for path, dataset in bundle.of("datasets").items():
        source = Chart(path, {}, dataset).source(VIEWER)
        read |= {name for name in metrics.BY_NAME if name in source}
        try:
            cursor.execute(f"SELECT * FROM {source} LIMIT 0")
        except psycopg2.Error as error:
            yield f"{path}: found {str(error).splitlines()[0]}, wanted columns of PostgreSQL"
            cursor.connection.rollback()
            continue
        left_out = LEFT_OUT.get(dataset["table_name"], set())
        given = {
            column.name: _type(cursor, column.type_code)
            for column in list(cursor.description)
            if column.name not in left_out
        }
        told = {
            column["column_name"]: column["type"].lower()
            for column in dataset["columns"]
            if not column["expression"]
        }
        yield from compare(path, told, given)
        for item in (*dataset["columns"], *dataset["metrics"]):
            yield from _expression_faults(cursor, path, source, item)
    for table in metrics.BY_NAME.keys() - read:
        yield f"datasets: found none that reads {table}, wanted one for each table of metrics"


def _type(cursor: Any, oid: int) -> str:
    with cursor.connection.cursor() as other:
        other.execute("SELECT format_type(%s, NULL)", (oid,))
        return str(other.fetchone()[0])


def _expression_faults(cursor: Any, path: str, source: str, item: Mapping[str, Any]) -> Iterator[str]:
    if not item["expression"]:
        return
    expression = item["expression"].replace("@@display_time_zone@@", "UTC")
    try:
        cursor.execute(f"SELECT {expression} FROM {source} LIMIT 0")
    except psycopg2.Error as error:
        name = item.get("column_name") or item.get("metric_name")
        yield f"{path}: found {name} with {str(error).splitlines()[0]}, wanted an expression of its columns"
        cursor.connection.rollback()


def chart_faults(bundle: Bundle) -> Iterator[str]:
    """Dataset -> chart: each chart asks for columns and metrics of its dataset, and no dataset stands unused."""
    yield from lint(bundle)
    used = {chart["dataset_uuid"] for chart in bundle.of("charts").values()}
    for board in bundle.of("dashboards").values():
        for native in board["metadata"].get("native_filter_configuration") or []:
            used |= {target.get("datasetUuid") for target in native.get("targets") or []}
    for path, dataset in bundle.of("datasets").items():
        if dataset["uuid"] not in used and dataset["table_name"] not in WITHOUT_CHART:
            yield f"{path}: found no chart or filter that uses it, wanted one"


def tables_of(cursor: Any) -> Tables:
    """Table or view -> column -> type, with NOT NULL where PostgreSQL holds to that."""
    cursor.execute(
        "SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull FROM pg_attribute a "
        "JOIN pg_class c ON c.oid = a.attrelid WHERE c.relnamespace = 'public'::regnamespace AND a.attnum > 0 "
        "AND NOT a.attisdropped AND c.relkind IN ('r', 'p', 'v') AND NOT c.relispartition"
    )
    tables: Tables = {}
    for table, column, type_, always in cursor.fetchall():
        plain = f"hll({type_.split('(')[1].split(',')[0].rstrip(')')})" if type_.startswith("hll(") else type_
        tables.setdefault(table, {})[column] = plain + (" NOT NULL" if always else "")
    return tables


def keys_of(cursor: Any) -> dict[str, tuple[str, ...]]:
    """Table -> columns of its primary key, in order."""
    cursor.execute(
        "SELECT i.indrelid::regclass::text, array_agg(a.attname::text ORDER BY array_position(i.indkey, a.attnum)) "
        "FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey) "
        "WHERE i.indisprimary GROUP BY 1"
    )
    return {table: tuple(names) for table, names in cursor.fetchall()}


@pytest.fixture
def cursor(database: Database) -> Iterator[Any]:
    """Of the owner, in a transaction that is rolled back."""
    with contextlib.closing(database.connect("music_owner")) as connection:
        yield connection.cursor()


@pytest.fixture(scope="module")
def shipped() -> Bundle:
    return load(Path(__file__).parents[2] / "files" / "dashboards")


@pytest.fixture
def bundle(shipped: Bundle) -> Bundle:
    """A copy that a test may break."""
    return copy.deepcopy(shipped)


@pytest.fixture(scope="module")
def asked(spark: SparkSession) -> Columns:
    """The columns of the query, as Spark sees them."""
    columns: Columns = {}
    for column in query.plays(spark.createDataFrame([], RECORDS)).schema:
        if column.name == "play":
            columns |= {f"play.{part.name}": part.dataType.simpleString() for part in column.dataType}
        else:
            columns[column.name] = column.dataType.simpleString()
    return columns


def test_event_to_query(asked: Columns) -> None:
    assert list(query_faults(asked)) == []


def test_query_to_sql(cursor: Any) -> None:
    assert list(stored_faults(tables_of(cursor))) == []


def test_metrics_to_sql(cursor: Any) -> None:
    assert list(metrics_faults(tables_of(cursor), keys_of(cursor))) == []


def test_sql_to_dataset(cursor: Any, bundle: Bundle) -> None:
    assert list(dataset_faults(cursor, bundle)) == []


def test_dataset_to_chart(bundle: Bundle) -> None:
    assert list(chart_faults(bundle)) == []


def test_planted_in_the_event(asked: Columns, monkeypatch: pytest.MonkeyPatch) -> None:
    mood = event.Field("mood", "text")
    monkeypatch.setattr(event, "FIELDS", (*event.FIELDS[1:], mood))
    assert list(query_faults(asked)) == [
        "query: found no play.mood, wanted it as string",
        "query: found play.event_id, wanted no such column",
    ]


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda columns: columns.pop("play.album"), "query: found no play.album"),
        (lambda columns: columns.update({"play.mood": "string"}), "query: found play.mood"),
        (lambda columns: columns.update({"play.duration_ms": "int"}), "query: found play.duration_ms as int"),
        (lambda columns: columns.pop("content_window"), "query: found no content_window"),
    ],
)
def test_planted_in_the_query(asked: Columns, change: Callable[[Columns], Any], fault: str) -> None:
    columns = dict(asked)
    change(columns)
    (found,) = query_faults(columns)
    assert found.startswith(fault)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ("ALTER TABLE stream_events DROP COLUMN album", "stream_events: found no album"),
        ("ALTER TABLE stream_events ADD COLUMN mood text", "stream_events: found mood"),
        (
            "ALTER TABLE stream_events ALTER COLUMN player DROP NOT NULL",
            "stream_events: found player as text",
        ),
        ("ALTER TABLE stream_events ALTER COLUMN liked TYPE text", "stream_events: found liked as text"),
        ("ALTER TABLE geographic_metrics DROP COLUMN likes", "geographic_metrics: found no likes"),
        ("ALTER TABLE genre_metrics ADD COLUMN replays bigint", "genre_metrics: found replays"),
        (
            "ALTER TABLE device_usage_metrics ALTER COLUMN listeners TYPE hll(12)",
            "device_usage_metrics: found listeners as hll(12)",
        ),
        (
            "ALTER TABLE device_usage_metrics DROP CONSTRAINT device_usage_metrics_pkey;"
            "ALTER TABLE device_usage_metrics ADD PRIMARY KEY (source, window_start, device_type, os)",
            "device_usage_metrics: found the key source, window_start",
        ),
        ("DROP TABLE song_day_streams CASCADE", "song_day_streams: found no such table"),
        ("CREATE TABLE artist_metrics (streams bigint)", "metrics.py: found no artist_metrics"),
    ],
)
def test_planted_in_sql(cursor: Any, change: str, fault: str) -> None:
    cursor.execute(change)
    tables = tables_of(cursor)
    found = [*stored_faults(tables), *metrics_faults(tables, keys_of(cursor))]
    assert any(sentence.startswith(fault) for sentence in found), found


def test_planted_in_the_metrics(cursor: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A count that only Python knows, made from a column that does not exist."""
    replays = metrics.Count("replays", of="replayed", flag=True)
    monkeypatch.setattr(metrics, "COUNTS", (*metrics.COUNTS, replays))
    monkeypatch.setattr(metrics, "COUNT_NAMES", (*metrics.COUNT_NAMES, "replays"))
    found = list(metrics_faults(tables_of(cursor), keys_of(cursor)))
    missing = [f"{table.name}: found no replays, wanted it as bigint NOT NULL" for table in metrics.TABLES]
    made = "metrics.py: found replays of replayed, wanted a boolean of stream_events"
    assert found == [*missing, made]


def dataset(bundle: Bundle, name: str) -> dict[str, Any]:
    return next(found for found in bundle.of("datasets").values() if found["table_name"] == name)


@pytest.mark.parametrize("name", ["user_engagement_metrics", "music_geography", "music_song_streams"])
def test_planted_in_a_dataset(cursor: Any, bundle: Bundle, name: str) -> None:
    changed = dataset(bundle, name)
    changed["columns"] = [column for column in changed["columns"] if column["column_name"] != "streams"]
    changed["columns"] += [{"column_name": "mood", "type": "TEXT", "expression": None}]
    changed["columns"][0]["type"] = "BYTEA"
    changed["metrics"] += [{"metric_name": "mean", "expression": "avg(replays)"}]
    found = "\n".join(dataset_faults(cursor, bundle))
    first = changed["columns"][0]["column_name"]
    for said in (
        "found no streams",
        "found mood",
        f"found {first} as bytea",
        'found mean with column "replays"',
    ):
        assert f"{name}.yaml: {said}" in found


def test_planted_in_a_datasets_sql(cursor: Any, bundle: Bundle) -> None:
    dataset(bundle, "music_geography")["sql"] = "SELECT replays FROM geographic_metrics"
    (found,) = dataset_faults(cursor, bundle)
    assert 'music_geography.yaml: found column "replays" does not exist' in found


def test_a_table_without_dataset(cursor: Any, bundle: Bundle) -> None:
    path = next(path for path, content in bundle.of("datasets").items() if "device_usage" in path)
    del bundle.files[path]
    (found,) = dataset_faults(cursor, bundle)
    assert found.startswith("datasets: found none that reads device_usage_metrics")


@pytest.mark.parametrize(
    ("params", "fault"),
    [
        ({"groupby": ["mood"]}, "found column mood"),
        ({"metrics": ["replays"]}, "found metric replays"),
    ],
)
def test_planted_in_a_chart(bundle: Bundle, params: dict[str, Any], fault: str) -> None:
    next(iter(bundle.of("charts").values()))["params"].update(params)
    (found,) = chart_faults(bundle)
    assert fault in found


def test_planted_dataset_without_chart(bundle: Bundle) -> None:
    path, content = next(iter(bundle.of("datasets").items()))
    bundle.files[path.replace(".yaml", "_copy.yaml")] = {
        **content,
        "table_name": "music_copy",
        "uuid": "00000000-0000-5000-8000-000000000000",
    }
    (found,) = chart_faults(bundle)
    assert "found no chart or filter that uses it" in found
