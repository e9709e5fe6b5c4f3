"""The links from the event to the chart, each as a list of what is wrong with it; test_contract.py walks them."""

import datetime as dt
from collections.abc import Iterator, Mapping
from typing import Any

import psycopg2

from chart_sql import Board, Chart
from music_streaming import event, metrics
from music_streaming.dashboards.bundle import Bundle
from music_streaming.dashboards.lint import lint

# Kind of a field -> type in Arrow, type in PostgreSQL; every other kind is text.
TYPES = {
    "uuid": ("string", "uuid"),
    "time": ("timestamp[us, tz=UTC]", "timestamp with time zone"),
    "integer": ("int64", "bigint"),
    "boolean": ("bool", "boolean"),
}
TEXT = ("string", "text")
TIME = "timestamp with time zone"
# Columns of stream_events that say how the play came.
OF_INGEST = {"late": "boolean", "kafka_partition": "integer", "kafka_offset": "bigint", "ingested_at": TIME}
# Columns that a dataset leaves out: ids and bytes that no chart can show.
LEFT_OUT = {
    "ingest_gaps": {"topic_id"},
    "ingest_offsets": {"topic_id"},
    "rejected_events": {"topic_id", "kafka_time", "raw", "serial", "due"},
}
# Too large for the dashboards, which read what is added up of them; there for the owner's own charts.
WITHOUT_CHART = {"content_performance_metrics", "stream_events"}
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
    """Event -> query: query.plays hands over each field once, as text, and where the record stands."""
    wanted = {
        f"fields.{field.name}": "timestamp" if field.kind == "time" else "string" for field in event.FIELDS
    }
    wanted |= {"partition": "int", "offset": "bigint", "kafka_time": "timestamp"}
    wanted |= {"value": "binary", "value_length": "int"}
    yield from compare("query", columns, wanted)


def rows_faults(columns: Columns) -> Iterator[str]:
    """Query -> rows: rows.PLAYS has each field once, typed, and what the metrics need."""
    wanted = {field.name: TYPES.get(field.kind, TEXT)[0] for field in event.FIELDS}
    wanted |= {"region": "string", "kafka_partition": "int32", "kafka_offset": "int64"}
    wanted |= {"kafka_time": TYPES["time"][0]}
    yield from compare("rows", columns, wanted)


def stored_faults(tables: Tables) -> Iterator[str]:
    """Rows -> SQL: stream_events has a column for each, of its type, NOT NULL where there always is a value."""
    wanted = {}
    for field in event.FIELDS:
        always = field.required or field.default is not None or field.name == "song_id"
        wanted[field.name] = TYPES.get(field.kind, TEXT)[1] + (" NOT NULL" if always else "")
    wanted["region"] = "text NOT NULL"
    wanted |= {name: f"{type_} NOT NULL" for name, type_ in OF_INGEST.items()}
    yield from compare("stream_events", tables["stream_events"], wanted)


def metrics_faults(tables: Tables, keys: Mapping[str, tuple[str, ...]]) -> Iterator[str]:
    """metrics.py -> SQL: tables, keys, counts and sketches; and what they are made from are columns of a play."""
    for table in (*metrics.TABLES, *metrics.ROLL_UPS):
        yield from _table_faults(tables, keys, table)
    for table in metrics.SHOWN:
        for view in ("ingest_exactness", "ingest_exactness_recent"):
            if table.name.removesuffix("_metrics") not in tables[view]:
                yield f"{view}: found no sum of {table.name}, wanted each table of metrics"
        if table.name in tables:
            shown = {column: type_.removesuffix(" NOT NULL") for column, type_ in tables[table.name].items()}
            yield from compare(table.name, shown, _metric_columns(table))
    others = {name for name in tables if name.endswith("_metrics")} - {*metrics.BY_NAME, *metrics.TABLE_NAMES}
    yield from (f"metrics.py: found no {name}, wanted each table of metrics" for name in sorted(others))
    for count in metrics.COUNTS:
        wanted_type = "boolean" if count.flag else "bigint"
        if count.of and tables["stream_events"].get(count.of) != wanted_type:
            yield f"metrics.py: found {count.name} of {count.of}, wanted a {wanted_type} of stream_events"
    for sketch in (metrics.LISTENERS, metrics.SONGS):
        if sketch.of not in tables["stream_events"]:
            yield f"metrics.py: found {sketch.name} of {sketch.of}, wanted a column of stream_events"


def _metric_columns(table: metrics.Table) -> Columns:
    columns = dict.fromkeys(table.key[1:], "text") | {table.start: TIME}
    columns |= {"song": "integer"} if "song" in table.keys else {}
    columns |= {"updated_at": TIME} if table.updated else {}
    columns |= dict.fromkeys(table.sketch_names, f"hll({metrics.LOG2M})")
    return columns | dict.fromkeys(table.count_names, "bigint")


def _table_faults(tables: Tables, keys: Mapping[str, tuple[str, ...]], table: metrics.Table) -> Iterator[str]:
    if table.name not in tables:
        yield f"{table.name}: found no such table, wanted it as metrics.py says"
        return
    wanted = {column: f"{type_} NOT NULL" for column, type_ in _metric_columns(table).items()}
    yield from compare(table.name, tables[table.name], wanted)
    if keys[table.name] != table.key:
        yield f"{table.name}: found the key {', '.join(keys[table.name])}, wanted {', '.join(table.key)}"


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
