"""Every trap of Superset's import is found before the bundle is sent."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

from music_streaming.dashboards.bundle import (
    KINDS,
    Bundle,
    Document,
    load,
)
from music_streaming.dashboards.lint import lint
from music_streaming.testing import FILES

FOLDER = FILES / "dashboards"
ELSEWHERE = "00000000-0000-5000-8000-000000000000"


@pytest.fixture(scope="session")
def shipped() -> Bundle:
    return load(FOLDER)


@pytest.fixture
def bundle(shipped: Bundle) -> Bundle:
    """A copy that a test may break."""
    return copy.deepcopy(shipped)


def first(bundle: Bundle, kind: str) -> Document:
    return next(iter(bundle.of(kind).values()))


def live(bundle: Bundle) -> Document:
    return bundle.files["dashboards/live.yaml"]


def chart_node(board: Document) -> Document:
    return next(n for n in board["position"].values() if isinstance(n, dict) and n["type"] == "CHART")


def virtual_dataset(bundle: Bundle) -> Document:
    return next(content for content in bundle.of("datasets").values() if content["sql"])


def test_shipped_bundle_is_fit_to_be_sent(shipped: Bundle) -> None:
    assert lint(shipped) == []
    assert {kind: len(shipped.of(kind)) > 0 for kind in KINDS} == dict.fromkeys(KINDS, True)


def without(kind: str, key: str) -> Callable[[Bundle], None]:
    return lambda bundle: first(bundle, kind).pop(key)


def with_value(kind: str, key: str, value: Any) -> Callable[[Bundle], None]:
    return lambda bundle: first(bundle, kind).update({key: value})


def in_params(key: str, value: Any) -> Callable[[Bundle], None]:
    return lambda bundle: first(bundle, "charts")["params"].update({key: value})


def in_metadata(key: str, value: Any) -> Callable[[Bundle], None]:
    return lambda bundle: live(bundle)["metadata"].update({key: value})


def in_chart_node(key: str, value: Any) -> Callable[[Bundle], None]:
    return lambda bundle: chart_node(live(bundle))["meta"].update({key: value})


def twice(kind: str, key: str) -> Callable[[Bundle], None]:
    def damage(bundle: Bundle) -> None:
        one, other = list(bundle.of(kind).values())[:2]
        other[key] = one[key]

    return damage


def unlinked(bundle: Bundle) -> None:
    del chart_node(live(bundle))["meta"]["uuid"]


def off_the_layout(bundle: Bundle) -> None:
    position = live(bundle)["position"]
    node = chart_node(live(bundle))["id"]
    for other in position.values():
        if isinstance(other, dict) and node in other.get("children", []):
            other["children"].remove(node)


def shown_nowhere(bundle: Bundle) -> None:
    lost = first(bundle, "charts")["uuid"]
    for board in bundle.of("dashboards").values():
        board["position"] = {
            name: node
            for name, node in board["position"].items()
            if not isinstance(node, dict) or node.get("meta", {}).get("uuid") != lost
        }


def too_wide(bundle: Bundle) -> None:
    chart_node(live(bundle))["meta"]["width"] = 13


TRAPS: dict[str, tuple[Callable[[Bundle], None], str]] = {
    # Superset answers OK and wipes the columns; every chart is broken.
    "dataset without columns": (with_value("datasets", "columns", []), "found no columns"),
    "columns left out": (without("datasets", "columns"), "found no columns"),
    # Superset answers 500 with one sentence for every cause.
    "no extra": (without("databases", "extra"), "found no extra"),
    "no params": (without("charts", "params"), "found no params"),
    "no position": (without("dashboards", "position"), "found no position"),
    "params no map": (with_value("charts", "params", None), "wanted a map"),
    "unknown key": (with_value("charts", "colour", "red"), "found the key colour"),
    "unknown key in extra": (
        lambda bundle: first(bundle, "databases")["extra"].update({"engine_information": {}}),
        "found the key engine_information",
    ),
    "unknown key in a column": (
        lambda bundle: first(bundle, "datasets")["columns"][0].update({"label": "x"}),
        "found the key label",
    ),
    "unknown key in a metric": (
        lambda bundle: next(d for d in bundle.of("datasets").values() if d["metrics"])["metrics"][0].update(
            {"label": "x"}
        ),
        "found the key label",
    ),
    # A key that is left out keeps what somebody set.
    "css not stated": (without("dashboards", "css"), "found no css"),
    "cache_timeout not stated": (without("charts", "cache_timeout"), "found no cache_timeout"),
    # Passwords: stored as empty, or in the bundle for all to read.
    "no password mask": (
        with_value("databases", "sqlalchemy_uri", "postgresql://superset_reader@127.0.0.1/music_streaming"),
        "without the mask",
    ),
    "clear password": (
        with_value("databases", "sqlalchemy_uri", "postgresql://superset_reader:pw@127.0.0.1/x"),
        "without the mask",
    ),
    "password key": (with_value("databases", "password", "pw"), "no password in the bundle"),
    "uploads allowed": (with_value("databases", "allow_file_upload", True), "allow_file_upload"),
    # The import takes over what has the same unique name.
    "same uuid": (twice("charts", "uuid"), "wanted its own"),
    "same chart name": (twice("charts", "slice_name"), "2 times"),
    "same table": (twice("datasets", "table_name"), "2 times"),
    "same slug": (twice("dashboards", "slug"), "2 times"),
    "slug of anybody": (with_value("dashboards", "slug", "sales"), "prefix music-"),
    "table of anybody": (
        lambda bundle: virtual_dataset(bundle).update({"table_name": "sales"}),
        "prefix music_",
    ),
    "no uuid at all": (with_value("charts", "uuid", "chart-1"), "found uuid"),
    "unpublished": (with_value("dashboards", "published", False), "published"),
    # Superset answers OK, unlinks the chart and some others with it.
    "chart outside the bundle": (in_chart_node("uuid", ELSEWHERE), "wanted a chart of the bundle"),
    "chart node without uuid": (unlinked, "without meta.uuid"),
    "chartId no number": (in_chart_node("chartId", "7"), "wanted a number"),
    "chart in no row": (off_the_layout, "in no row"),
    "chart on no dashboard": (shown_nowhere, "on no dashboard"),
    "row too wide": (too_wide, "wanted at most 12"),
    "layout too long": (
        lambda bundle: live(bundle)["position"]["HEADER_ID"]["meta"].update({"text": "x" * 70000}),
        "wanted at most 65535",
    ),
    # References that lead nowhere.
    "dataset outside the bundle": (
        with_value("charts", "dataset_uuid", ELSEWHERE),
        "wanted a dataset of the bundle",
    ),
    "database outside the bundle": (
        with_value("datasets", "database_uuid", ELSEWHERE),
        "wanted a database of the bundle",
    ),
    "unknown column": (in_params("groupby", ["nope"]), "found column nope"),
    "unknown metric": (in_params("metrics", ["nope"]), "found metric nope"),
    "unknown column in a filter": (
        in_params(
            "adhoc_filters",
            [{"expressionType": "SIMPLE", "clause": "WHERE", "subject": "nope", "operator": "=="}],
        ),
        "found column nope",
    ),
    "unknown time column": (
        lambda bundle: virtual_dataset(bundle).update({"main_dttm_col": "nope"}),
        "found main_dttm_col nope",
    ),
    "unknown chart type": (with_value("charts", "viz_type", "dist_bar"), "found viz_type dist_bar"),
    "ids of one Superset": (in_params("datasource", "7__table"), "belongs to one Superset"),
    "query_context": (with_value("charts", "query_context", "{}"), "found a query_context"),
    "refresh of an unknown chart": (
        in_metadata("timed_refresh_immune_slices", [999]),
        "metadata.timed_refresh_immune_slices",
    ),
    "configuration of an unknown chart": (
        in_metadata("chart_configuration", {"999": {}}),
        "metadata.chart_configuration",
    ),
    "charts in scope": (in_metadata("global_chart_configuration", {"chartsInScope": [1]}), "chartsInScope"),
    "filter on an unknown dataset": (
        in_metadata("native_filter_configuration", [{"name": "F", "targets": [{"datasetUuid": ELSEWHERE}]}]),
        "wanted one of the bundle",
    ),
    "filter by id": (
        in_metadata("native_filter_configuration", [{"name": "F", "targets": [{"datasetId": 3}]}]),
        "wanted datasetUuid",
    ),
    "unknown mark": (with_value("charts", "description", "@@time_zone@@"), "found @@time_zone@@"),
}


@pytest.mark.parametrize("trap", TRAPS)
def test_lint_finds(trap: str, bundle: Bundle) -> None:
    damage, expected = TRAPS[trap]
    damage(bundle)
    found = lint(bundle)
    assert any(expected in problem for problem in found), found
    assert all("wanted" in problem for problem in found)
