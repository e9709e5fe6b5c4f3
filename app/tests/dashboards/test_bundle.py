"""The bundle of files/dashboards: every trap of Superset's import is found, the ZIP is always the same."""

import copy
import io
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from conftest import FILES, free_port
from music_streaming.dashboards import export
from music_streaming.dashboards.bundle import (
    KINDS,
    TIME_ZONE_MARK,
    Bundle,
    DashboardError,
    Document,
    import_bundle,
    load,
    marks,
    resolve,
    shipped_uuid,
    shown_charts,
    to_zip,
)
from music_streaming.dashboards.chart import chart_query
from music_streaming.dashboards.lint import lint
from music_streaming.dashboards.superset import SupersetError
from music_streaming.settings import PathSettings, PostgresSettings, Settings, SupersetSettings

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


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("charts/x.yaml", "a: [", "is no YAML"),
        ("charts/x.yaml", "- a list", "wanted a map"),
        ("charts/x.json", "{}", "wanted only .yaml files"),
        ("themes/x.yaml", "a: 1", "wanted only .yaml files"),
    ],
)
def test_load_refuses(tmp_path: Path, name: str, text: str, expected: str) -> None:
    path = tmp_path / name
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(DashboardError, match=expected):
        load(tmp_path)


def test_load_refuses_an_empty_or_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(DashboardError, match="wanted the bundle"):
        load(tmp_path)
    with pytest.raises(DashboardError, match="found no folder"):
        load(tmp_path / "nowhere")


def test_zip_is_the_same_every_time(shipped: Bundle, tmp_path: Path) -> None:
    shutil.copytree(FOLDER, tmp_path / "copy")  # other times, other order of the folder
    assert to_zip(shipped) == to_zip(load(tmp_path / "copy"))


def test_zip_has_one_top_folder_and_yaml_of_the_bundle(shipped: Bundle) -> None:
    with zipfile.ZipFile(io.BytesIO(to_zip(shipped))) as archive:
        names = archive.namelist()
        assert {name.split("/")[0] for name in names} == {"music"}
        read = {name.removeprefix("music/"): yaml.safe_load(archive.read(name)) for name in names}
    assert read.pop("metadata.yaml") == {"version": "1.0.0", "type": "assets"}
    assert read == shipped.files


def test_resolve_fills_in_the_board(shipped: Bundle) -> None:
    settings = Settings(
        postgres=PostgresSettings(host="192.0.2.7", port=6432, database="plays"),
        display_time_zone="Asia/Tokyo",
    )
    ready = resolve(shipped, settings)
    uri = first(ready, "databases")["sqlalchemy_uri"]
    assert uri == "postgresql+psycopg2://superset_reader:XXXXXXXXXX@192.0.2.7:6432/plays"
    assert {mark for content in ready.files.values() for mark in marks(content)} == set()
    assert any(TIME_ZONE_MARK in marks(content) for content in shipped.files.values())
    assert any("Asia/Tokyo" in str(content) for content in ready.files.values())


def test_uuids_come_from_names() -> None:
    assert shipped_uuid("charts", "live/x") == shipped_uuid("charts", "live/x")
    assert shipped_uuid("charts", "live/x") != shipped_uuid("dashboards", "live/x")


def test_every_chart_has_a_query(shipped: Bundle) -> None:
    for path, chart in shipped.of("charts").items():
        query = chart_query(chart, 7)["queries"][0]
        assert query["columns"] or query["metrics"], path


def test_query_says_what_the_chart_says() -> None:
    params = {
        "viz_type": "echarts_timeseries_bar",
        "x_axis": "window_start",
        "time_grain_sqla": "PT1H",
        "groupby": ["genre"],
        "metrics": ["streams"],
        "row_limit": 50,
        "adhoc_filters": [
            {
                "expressionType": "SIMPLE",
                "clause": "WHERE",
                "subject": "genre",
                "operator": "IN",
                "comparator": ["pop"],
            },
            {"expressionType": "SQL", "clause": "WHERE", "sqlExpression": "a > 1"},
            {"expressionType": "SQL", "clause": "HAVING", "sqlExpression": "SUM(b) > 2"},
        ],
    }
    chosen = [{"col": "genre", "op": "IN", "val": ["rock"]}]
    body = chart_query({"params": params}, 7)
    query = body["queries"][0]
    assert body["datasource"] == {"id": 7, "type": "table"}
    assert [c if isinstance(c, str) else c["timeGrain"] for c in query["columns"]] == ["PT1H", "genre"]
    assert query["metrics"] == ["streams"]
    assert query["filters"] == [{"col": "genre", "op": "IN", "val": ["pop"]}]
    assert query["extras"] == {"where": "(a > 1)", "having": "(SUM(b) > 2)"}
    assert query["row_limit"] == 50
    # A dashboard's filter on the same column takes the chart's place, as in the browser.
    assert chart_query({"params": params}, 7, filters=chosen)["queries"][0]["filters"] == chosen


SHIFT = 1000


def exported_by_superset(ready: Bundle) -> dict[str, Document]:
    """The bundle as Superset exports it: names with ids, chart ids of its own, keys of its own."""
    exported = {}
    for number, (path, original) in enumerate(ready.files.items()):
        content = copy.deepcopy(original)
        kind = path.split("/")[0]
        if kind == "charts":
            content["params"] |= {"datasource": "9__table", "slice_id": number, "dashboards": [1]}
            content["query_context"] = '{"datasource": {"id": 9}}'
            content["tags"] = []
        elif kind == "dashboards":
            for node in content["position"].values():
                if isinstance(node, dict) and node["type"] == "CHART":
                    node["meta"]["chartId"] += SHIFT
            metadata = content["metadata"]
            metadata["map_label_colors"] = {"a": "#123456"}
            for native in metadata.get("native_filter_configuration") or []:
                native["scope"]["excluded"] = [i + SHIFT for i in native["scope"].get("excluded") or []]
            content["theme_uuid"] = None
        exported[f"{kind}/{Path(path).stem}_{number}.yaml"] = content
    return exported


@pytest.fixture
def berlin() -> Settings:
    return Settings(display_time_zone="Europe/Berlin")


def test_export_of_what_nobody_edited_changes_no_file(shipped: Bundle, berlin: Settings) -> None:
    ready = resolve(shipped, berlin)
    assert export.changed_files(shipped.files, ready.files, exported_by_superset(ready)) == {}


def test_export_brings_an_edit_back_and_nothing_else(shipped: Bundle, berlin: Settings) -> None:
    ready = resolve(shipped, berlin)
    exported = exported_by_superset(ready)
    path, marked = next((p, c) for p, c in shipped.of("datasets").items() if marks(c))
    edited = next(content for content in exported.values() if content["uuid"] == marked["uuid"])
    edited["description"] = "Edited in Superset"
    changed = export.changed_files(shipped.files, ready.files, exported)
    assert list(changed) == [path]
    # The mark is back where its text was not touched, and the file says the same but for the edit.
    assert marks(changed[path]) == marks(marked)
    again = yaml.safe_load(export.to_yaml(changed[path]))
    assert again == marked | {"description": "Edited in Superset"}


def test_export_takes_a_new_chart_along(shipped: Bundle, berlin: Settings) -> None:
    ready = resolve(shipped, berlin)
    exported = exported_by_superset(ready)
    board = next(c for c in exported.values() if c.get("slug") == "music-live")
    shown = next(shown_charts(board))
    chart = copy.deepcopy(next(c for c in exported.values() if c["uuid"] == shown))
    chart |= {"uuid": ELSEWHERE, "slice_name": "Brand new / chart"}
    exported["charts/Brand_new_chart_77.yaml"] = chart
    row = next(n for n in board["position"].values() if isinstance(n, dict) and n["type"] == "ROW")
    new_row = copy.deepcopy(row) | {"id": "ROW-new", "children": ["CHART-new"]}
    meta = {"uuid": ELSEWHERE, "chartId": 7777, "width": 4, "height": 40}
    node = {"type": "CHART", "id": "CHART-new", "children": [], "meta": meta}
    board["position"] |= {"ROW-new": new_row, "CHART-new": node}
    board["position"]["GRID_ID"]["children"].append("ROW-new")
    board["metadata"]["timed_refresh_immune_slices"] = [7777]

    changed = export.changed_files(shipped.files, ready.files, exported)
    assert set(changed) == {"dashboards/live.yaml", "charts/live/brand_new_chart.yaml"}
    assert lint(Bundle(FOLDER, shipped.files | changed)) == []
    nodes = (node for node in live(shipped)["position"].values() if isinstance(node, dict))
    before = {node["meta"]["chartId"] for node in nodes if node["type"] == "CHART"}
    assert changed["dashboards/live.yaml"]["metadata"]["timed_refresh_immune_slices"] == [max(before) + 1]


def test_import_says_where_superset_should_have_answered(tmp_path: Path) -> None:
    (tmp_path / "superset_appliance").write_text("secret\n")
    url = f"http://127.0.0.1:{free_port()}"
    settings = Settings(
        postgres=PostgresSettings(secrets_dir=tmp_path),
        superset=SupersetSettings(url=url),
        paths=PathSettings(data=tmp_path),
    )
    with pytest.raises(SupersetError, match=f"{url} does not answer"):
        import_bundle(settings, FOLDER)
