"""The query that a chart asks, made from the chart's settings: what its numbers are, without a browser."""

from __future__ import annotations

import json
from typing import Any

DEFAULT_ROW_LIMIT = 1000


def _as_list(value: Any) -> list[Any]:
    if value is None or value == "":
        return []
    return list(value) if isinstance(value, list) else [value]


def chart_columns(params: dict[str, Any]) -> list[Any]:
    """What the chart groups by (or lists, for a raw table): names of columns or ad-hoc columns, in reading
    order.
    """
    if params.get("query_mode") == "raw":
        return _as_list(params.get("all_columns"))
    keys = ("entity", "groupby", "columns")
    return [column for key in keys for column in _as_list(params.get(key))]


def chart_metrics(params: dict[str, Any]) -> list[Any]:
    """What the chart computes: names of saved metrics or ad-hoc metrics."""
    if params.get("query_mode") == "raw":
        return []
    keys = ("metrics", "metric", "metric_2", "secondary_metric", "percent_metrics", "metrics_b")
    found = []
    for metric in (metric for key in keys for metric in _as_list(params.get(key))):
        if metric not in found:
            found.append(metric)
    return found


def order_columns(params: dict[str, Any]) -> list[tuple[str, bool]]:
    """Column and ascending? of a raw table's order, which Superset keeps as texts of JSON."""
    pairs = (
        json.loads(item) if isinstance(item, str) else item for item in _as_list(params.get("order_by_cols"))
    )
    return [(str(column), bool(ascending)) for column, ascending in pairs]


def _x_axis(params: dict[str, Any]) -> list[Any]:
    axis = params.get("x_axis")
    if not isinstance(axis, str):
        return _as_list(axis)
    if not (grain := params.get("time_grain_sqla")):
        return [axis]
    return [
        {
            "columnType": "BASE_AXIS",
            "expressionType": "SQL",
            "label": axis,
            "sqlExpression": axis,
            "timeGrain": grain,
        }
    ]


def _filters(params: dict[str, Any]) -> tuple[list[dict[str, Any]], dict[str, str]]:
    simple = []
    free: dict[str, list[str]] = {"WHERE": [], "HAVING": []}
    for item in params.get("adhoc_filters") or []:
        if item["expressionType"] == "SQL":
            free[item["clause"]].append(f"({item['sqlExpression']})")
        elif item["clause"] == "WHERE":
            simple.append({"col": item["subject"], "op": item["operator"], "val": item.get("comparator")})
    return simple, {clause.lower(): " AND ".join(parts) for clause, parts in free.items() if parts}


def chart_query(
    chart: dict[str, Any], dataset_id: int, *, filters: list[dict[str, Any]] | None = None
) -> dict[str, Any]:
    """The body of POST chart/data for a chart of the bundle.

    chart: content of a charts/ file. dataset_id: Superset's id of its dataset. filters: what a dashboard's
    native filters would add, as {"col": ..., "op": "IN", "val": [...]} or op TEMPORAL_RANGE with a range
    such as "2026-11-01 : 2026-11-02". Steps that only shape the numbers for drawing (pivot, rolling) are
    left out.
    """
    params = chart["params"]
    simple, extras = _filters(params)
    overridden = {item["col"] for item in filters or []}
    columns = _x_axis(params) + chart_columns(params)
    query: dict[str, Any] = {
        "columns": columns,
        "metrics": chart_metrics(params),
        "filters": [item for item in simple if item["col"] not in overridden] + (filters or []),
        "extras": extras,
        "row_limit": int(params.get("row_limit") or DEFAULT_ROW_LIMIT),
        "series_columns": _as_list(params.get("groupby")),
        "series_limit": int(params.get("limit") or 0),
        "order_desc": bool(params.get("order_desc", True)),
    }
    if params.get("granularity_sqla"):
        query |= {
            "granularity": params["granularity_sqla"],
            "time_range": params.get("time_range", "No filter"),
        }
    if params.get("query_mode") == "raw":
        query |= {"metrics": None, "series_columns": [], "orderby": order_columns(params)}
    elif query["metrics"] and params["viz_type"] not in ("big_number", "big_number_total"):
        sort_by = params.get("timeseries_limit_metric") or query["metrics"][0]
        query["series_limit_metric"] = params.get("timeseries_limit_metric")
        query["orderby"] = [[sort_by, not query["order_desc"]]] if columns else []
    return {
        "datasource": {"id": dataset_id, "type": "table"},
        "queries": [query],
        "result_format": "json",
        "result_type": "full",
    }
