"""Everything that Superset's import would swallow or refuse without saying why, found before it is sent.

Superset answers OK to a dataset without columns (and wipes it), to a dashboard whose chart is not in the
bundle (and unlinks others too), to an unknown chart type; and one generic sentence to an unknown key. Each
rule is one function that yields sentences: file, found, wanted.
"""

from __future__ import annotations

import json
import uuid
from collections import Counter
from collections.abc import Iterator
from typing import Any

from music_streaming.dashboards.bundle import (
    PASSWORD_MASK,
    SLUG_PREFIX,
    TIME_ZONE_MARK,
    Bundle,
    Document,
    marks,
)
from music_streaming.dashboards.chart import chart_columns, chart_metrics, order_columns
from music_streaming.dashboards.export import INSTANCE_PARAMS, KEYS, dicts_within

# Every key of a file has to be stated: Superset fails without some of them, and a key that is left out keeps
# whatever somebody set in the web interface.
NEEDED = {kind: set(keys) for kind, keys in KEYS.items()}
# Superset's import schemas know these as well; a password is not among them on purpose.
ALLOWED = {
    "databases": set(),
    "datasets": {"catalog", "currency_code_column", "folders"},
    "charts": set(),
    "dashboards": set(),
}
COLUMN_NEEDED = {"column_name", "type", "is_dttm", "groupby", "filterable"}
COLUMN_ALLOWED = {
    "extra", "verbose_name", "is_active", "advanced_data_type", "expression", "description",
    "python_date_format", "datetime_format",
}  # fmt: skip
METRIC_NEEDED = {"metric_name", "expression"}
METRIC_ALLOWED = {
    "verbose_name", "metric_type", "description", "d3format", "currency", "extra", "warning_text",
}  # fmt: skip
EXTRA_ALLOWED = {
    "metadata_params", "engine_params", "metadata_cache_timeout", "schemas_allowed_for_csv_upload",
    "schemas_allowed_for_file_upload", "cost_estimate_enabled", "allows_virtual_table_explore",
    "cancel_query_on_windows_unload", "disable_data_preview", "disable_drill_to_detail",
    "allow_multi_catalog", "per_user_caching", "version", "schema_options",
}  # fmt: skip
# Types of chart that this Superset draws; an unknown one is imported and stays empty.
CHART_TYPES = {
    "ag-grid-table", "big_number", "big_number_total", "box_plot", "bubble_v2", "cal_heatmap",
    "country_map", "echarts_area", "echarts_timeseries", "echarts_timeseries_bar",
    "echarts_timeseries_line", "echarts_timeseries_scatter", "echarts_timeseries_smooth",
    "echarts_timeseries_step", "funnel", "gauge_chart", "handlebars", "heatmap_v2", "histogram_v2",
    "mixed_timeseries", "pie", "pivot_table_v2", "pop_kpi", "radar", "sankey_v2", "sunburst_v2", "table",
    "treemap_v2", "waterfall", "word_cloud", "world_map",
}  # fmt: skip
TABLE_PREFIX = "music_"
GRID_COLUMNS = 12
POSITION_LIMIT = 65535  # characters; Superset cuts a longer layout off


def lint(bundle: Bundle) -> list[str]:
    """Every fault of the bundle as one sentence with file, found and wanted; an empty list: fit to send."""
    keys = [*_keys(bundle)]
    # What follows reads keys without asking, so it needs them to be there.
    return keys or [
        problem
        for rule in (_identity, _marks, _databases, _datasets, _charts, _dashboards)
        for problem in rule(bundle)
    ]


def _keys(bundle: Bundle) -> Iterator[str]:
    for path, content in bundle.files.items():
        kind = path.split("/")[0]
        yield from _compare_keys(path, content, NEEDED[kind], ALLOWED[kind])
        if kind == "databases" and isinstance(content.get("extra"), dict):
            yield from _compare_keys(f"{path}: extra", content["extra"], set(), EXTRA_ALLOWED)
        for part, name, needed, allowed in (
            ("columns", "column_name", COLUMN_NEEDED, COLUMN_ALLOWED),
            ("metrics", "metric_name", METRIC_NEEDED, METRIC_ALLOWED),
        ):
            for item in content.get(part) or [] if kind == "datasets" else []:
                yield from _compare_keys(f"{path}: {part} {item.get(name)}", item, needed, allowed)
        for key in {
            "databases": ("extra",),
            "charts": ("params",),
            "dashboards": ("position", "metadata"),
        }.get(kind, ()):
            if key in content and not isinstance(content[key], dict):
                yield f"{path}: found {content[key]!r} as {key}, wanted a map: Superset fails without it"


def _compare_keys(place: str, content: Document, needed: set[str], allowed: set[str]) -> Iterator[str]:
    for key in sorted(needed - content.keys()):
        yield f"{place}: found no {key}, wanted it stated: Superset fails or keeps what was set"
    for key in sorted(content.keys() - needed - allowed):
        wanted = "no password in the bundle" if key == "password" else "only keys of Superset's import schema"
        yield f"{place}: found the key {key}, wanted {wanted}"


def _identity(bundle: Bundle) -> Iterator[str]:
    seen: dict[str, str] = {}
    for path, content in bundle.files.items():
        identifier = content["uuid"]
        try:
            plain = str(uuid.UUID(str(identifier))) == identifier
        except ValueError:
            plain = False
        if not plain:
            yield f"{path}: found uuid {identifier!r}, wanted one in its usual lower-case form"
        if identifier in seen:
            yield f"{path}: found the uuid of {seen[identifier]}, wanted its own"
        seen[identifier] = path
        if content["version"] != "1.0.0":
            yield f"{path}: found version {content['version']!r}, wanted 1.0.0"
    for kind, key in (
        ("databases", "database_name"),
        ("datasets", "table_name"),
        ("charts", "slice_name"),
        ("dashboards", "slug"),
        ("dashboards", "dashboard_title"),
    ):
        names = Counter(content[key] for content in bundle.of(kind).values())
        for name, count in names.items():
            if count > 1:
                yield f"{kind}: found {key} {name!r} {count} times, wanted once: one takes over the other"


def _marks(bundle: Bundle) -> Iterator[str]:
    for path, content in bundle.files.items():
        for mark in sorted(marks(content) - {TIME_ZONE_MARK}):
            yield f"{path}: found {mark}, wanted no mark but {TIME_ZONE_MARK}"


def _databases(bundle: Bundle) -> Iterator[str]:
    for path, content in bundle.of("databases").items():
        uri = content["sqlalchemy_uri"]
        if f":{PASSWORD_MASK}@" not in uri:
            yield (
                f"{path}: found an sqlalchemy_uri without the mask, wanted {PASSWORD_MASK} as its password: "
                "with none Superset stores an empty one, and a real one would be in the bundle"
            )
        for key in ("allow_file_upload", "allow_ctas", "allow_cvas", "allow_dml"):
            if content[key] is not False:
                yield f"{path}: found {key} {content[key]!r}, wanted false: dashboards only read"


def _datasets(bundle: Bundle) -> Iterator[str]:
    databases = bundle.uuids("databases")
    for path, content in bundle.of("datasets").items():
        if content["database_uuid"] not in databases:
            yield f"{path}: found database_uuid {content['database_uuid']}, wanted a database of the bundle"
        if not content["columns"]:
            yield f"{path}: found no columns, wanted all: Superset says OK and wipes the ones it has"
        if not content["schema"]:
            yield f"{path}: found no schema, wanted public"
        if content["sql"] and not content["table_name"].startswith(TABLE_PREFIX):
            yield (
                f"{path}: found table_name {content['table_name']}, wanted the prefix {TABLE_PREFIX}: the "
                "import takes over somebody's dataset of the same name"
            )
        for part, key in (("columns", "column_name"), ("metrics", "metric_name")):
            for name, count in Counter(item[key] for item in content[part] or []).items():
                if count > 1:
                    yield f"{path}: found {key} {name} {count} times, wanted once"
        main = content["main_dttm_col"]
        if main and not any(c["column_name"] == main and c["is_dttm"] for c in content["columns"] or []):
            yield f"{path}: found main_dttm_col {main}, wanted a column of it with is_dttm true"


def _charts(bundle: Bundle) -> Iterator[str]:
    datasets = {content["uuid"]: content for content in bundle.of("datasets").values()}
    shown = {
        node.get("meta", {}).get("uuid")
        for board in bundle.of("dashboards").values()
        for node in board["position"].values()
        if isinstance(node, dict)
    }
    for path, content in bundle.of("charts").items():
        params = content["params"]
        if content["viz_type"] not in CHART_TYPES:
            yield f"{path}: found viz_type {content['viz_type']}, wanted one that this Superset draws"
        if params.get("viz_type") != content["viz_type"]:
            yield f"{path}: found viz_type {params.get('viz_type')!r} in params, wanted {content['viz_type']}"
        for key in sorted(INSTANCE_PARAMS & params.keys()):
            yield f"{path}: found {key} in params, wanted it left out: it belongs to one Superset"
        if content["uuid"] not in shown:
            yield f"{path}: found on no dashboard, wanted on at least one"
        if content["query_context"] is not None:
            yield f"{path}: found a query_context, wanted null: it repeats params with ids of one Superset"
        dataset = datasets.get(content["dataset_uuid"])
        if dataset is None:
            yield f"{path}: found dataset_uuid {content['dataset_uuid']}, wanted a dataset of the bundle"
            continue
        columns = {column["column_name"] for column in dataset["columns"] or []}
        metrics = {metric["metric_name"] for metric in dataset["metrics"] or []}
        for name in sorted(_names_of_columns(params) - columns):
            yield f"{path}: found column {name}, wanted a column of {dataset['table_name']}"
        for name in sorted(_names_of_metrics(params) - metrics):
            yield f"{path}: found metric {name}, wanted a metric of {dataset['table_name']}"


def _names_of_columns(params: Document) -> set[str]:
    used: list[Any] = [*chart_columns(params), params.get("x_axis"), params.get("granularity_sqla")]
    used += [name for name, _ in order_columns(params)]
    for item in params.get("adhoc_filters") or []:
        if item["expressionType"] == "SIMPLE" and item["clause"] == "WHERE":
            used.append(item["subject"])
    for metric in [*chart_metrics(params), params.get("timeseries_limit_metric")]:
        if isinstance(metric, dict) and metric.get("expressionType") == "SIMPLE":
            used.append(metric["column"]["column_name"])
    return {name for name in used if isinstance(name, str) and name}


def _names_of_metrics(params: Document) -> set[str]:
    used = [*chart_metrics(params), params.get("timeseries_limit_metric")]
    return {name for name in used if isinstance(name, str) and name}


def _dashboards(bundle: Bundle) -> Iterator[str]:
    charts = bundle.uuids("charts")
    datasets = {content["uuid"]: content for content in bundle.of("datasets").values()}
    for path, content in bundle.of("dashboards").items():
        if not str(content["slug"]).startswith(SLUG_PREFIX):
            yield (
                f"{path}: found slug {content['slug']}, wanted the prefix {SLUG_PREFIX}: the import takes "
                "over somebody's dashboard of the same slug"
            )
        if content["published"] is not True:
            yield f"{path}: found published {content['published']!r}, wanted true: only admins see it else"
        size = len(json.dumps(content["position"]))
        if size > POSITION_LIMIT:
            yield f"{path}: found a layout of {size} characters, wanted at most {POSITION_LIMIT}"
        yield from (f"{path}: {fault}" for fault in _layout(content["position"], charts))
        yield from (f"{path}: {fault}" for fault in _metadata(content, datasets))


def _layout(position: Document, charts: set[str]) -> Iterator[str]:
    nodes = {name: node for name, node in position.items() if isinstance(node, dict)}
    if position.get("DASHBOARD_VERSION_KEY") != "v2" or not {"ROOT_ID", "GRID_ID"} <= nodes.keys():
        yield "found a layout without DASHBOARD_VERSION_KEY v2, ROOT_ID or GRID_ID, wanted all three"
        return
    yield from _tree(nodes)
    shown = {name: node.get("meta") or {} for name, node in nodes.items() if node.get("type") == "CHART"}
    if not shown:
        yield "found no chart, wanted at least one"
    for name, meta in shown.items():
        if not meta.get("uuid"):
            yield f"found chart node {name} without meta.uuid, wanted it: Superset does not link it otherwise"
        elif meta["uuid"] not in charts:
            yield (
                f"found chart {meta['uuid']} in {name}, wanted a chart of the bundle: Superset says OK and "
                "unlinks others with it"
            )
        if not isinstance(meta.get("chartId"), int):
            yield f"found chartId {meta.get('chartId')!r} in {name}, wanted a number"
    for key in ("uuid", "chartId"):
        for value, count in Counter(meta[key] for meta in shown.values() if meta.get(key)).items():
            if count > 1:
                yield f"found {key} {value} {count} times, wanted once"


def _tree(nodes: dict[str, Document]) -> Iterator[str]:
    placed = Counter(child for node in nodes.values() for child in node.get("children") or [])
    for name, count in placed.items():
        if name not in nodes:
            yield f"found child {name}, wanted a node of the layout"
        elif count > 1:
            yield f"found {name} placed {count} times, wanted once"
    for name in sorted(nodes.keys() - placed.keys() - {"ROOT_ID", "HEADER_ID"}):
        yield f"found node {name} in no row, wanted it as somebody's child or gone"
    for name, node in nodes.items():
        if node.get("type") == "ROW":
            children = (nodes[child] for child in node.get("children") or [] if child in nodes)
            width = sum((child.get("meta") or {}).get("width", 0) for child in children)
            if width > GRID_COLUMNS:
                yield f"found {width} columns in {name}, wanted at most {GRID_COLUMNS}"


def _metadata(board: Document, datasets: dict[str, Document]) -> Iterator[str]:
    metadata = board["metadata"]
    known = {
        node["meta"].get("chartId")
        for node in board["position"].values()
        if isinstance(node, dict) and node.get("type") == "CHART" and isinstance(node.get("meta"), dict)
    }
    for key, ids in _chart_references(metadata):
        for identifier in sorted(ids - known):
            yield f"found chart {identifier} in metadata.{key}, wanted a chartId of the layout"
    if any(holder.get("chartsInScope") for holder in dicts_within(metadata)):
        yield "found charts in a chartsInScope, wanted it empty: Superset's import leaves old ids in it"
    for native in metadata.get("native_filter_configuration") or []:
        name = native.get("name") or native.get("id")
        for target in native.get("targets") or []:
            if "datasetId" in target:
                yield f"found datasetId in filter {name}, wanted datasetUuid: ids belong to one Superset"
            if not target:
                continue  # a time range filter has one empty target
            dataset = datasets.get(target.get("datasetUuid", ""))
            column = (target.get("column") or {}).get("name")
            if dataset is None:
                yield f"found dataset {target.get('datasetUuid')} in filter {name}, wanted one of the bundle"
            elif column not in {item["column_name"] for item in dataset["columns"] or []}:
                yield f"found column {column} in filter {name}, wanted a column of {dataset['table_name']}"


def _chart_references(metadata: Document) -> Iterator[tuple[str, set[int]]]:
    yield "timed_refresh_immune_slices", set(metadata.get("timed_refresh_immune_slices") or [])
    for key in ("expanded_slices", "filter_scopes", "chart_configuration"):
        yield key, {int(identifier) for identifier in metadata.get(key) or {}}
    for native in metadata.get("native_filter_configuration") or []:
        yield "native_filter_configuration", set((native.get("scope") or {}).get("excluded") or [])
    whole = metadata.get("global_chart_configuration") or {}
    yield "global_chart_configuration", set((whole.get("scope") or {}).get("excluded") or [])
