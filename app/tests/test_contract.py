"""One fact followed from the event to the chart: field -> query -> rows -> SQL -> dataset -> chart.

Each link is compared with the one before it, as it really is: Spark's schema of the query, PostgreSQL's columns
after the migrations, the files of the dashboards. A column too many or too few is a sentence. The tests with
"planted" in their name show that each link can break.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from contract_links import (
    Columns,
    chart_faults,
    dataset_faults,
    keys_of,
    metrics_faults,
    query_faults,
    rows_faults,
    stored_faults,
    tables_of,
)
from music_streaming import event, metrics, query, rows
from music_streaming.dashboards.bundle import Bundle, load
from music_streaming.testing.postgres import Database
from reading import RECORDS


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
        if column.name == "fields":
            columns |= {f"fields.{part.name}": part.dataType.simpleString() for part in column.dataType}
        else:
            columns[column.name] = column.dataType.simpleString()
    return columns


def test_event_to_query(asked: Columns) -> None:
    assert list(query_faults(asked)) == []


def test_query_to_rows() -> None:
    assert list(rows_faults(arrow_columns())) == []


def arrow_columns() -> Columns:
    return {field.name: str(field.type) for field in rows.PLAYS}


def test_rows_to_sql(cursor: Any) -> None:
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
        "query: found no fields.mood, wanted it as string",
        "query: found fields.event_id, wanted no such column",
    ]
    assert list(rows_faults(arrow_columns())) == [
        "rows: found no mood, wanted it as string",
        "rows: found event_id, wanted no such column",
    ]


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda columns: columns.pop("fields.album"), "query: found no fields.album"),
        (lambda columns: columns.update({"fields.mood": "string"}), "query: found fields.mood"),
        (lambda columns: columns.update({"fields.liked": "int"}), "query: found fields.liked as int"),
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
        (lambda columns: columns.pop("album"), "rows: found no album"),
        (lambda columns: columns.update(mood="string"), "rows: found mood"),
        (lambda columns: columns.update(duration_ms="int32"), "rows: found duration_ms as int32"),
        (lambda columns: columns.pop("kafka_time"), "rows: found no kafka_time"),
    ],
)
def test_planted_in_the_rows(change: Callable[[Columns], Any], fault: str) -> None:
    columns = arrow_columns()
    change(columns)
    (found,) = rows_faults(columns)
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
        ("DROP TABLE song_days CASCADE", "song_days: found no such table"),
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
    changed = tuple(dataclasses.replace(table, counts=(*table.counts, replays)) for table in metrics.TABLES)
    monkeypatch.setattr(metrics, "COUNTS", (*metrics.COUNTS, replays))
    monkeypatch.setattr(metrics, "TABLES", changed)
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
