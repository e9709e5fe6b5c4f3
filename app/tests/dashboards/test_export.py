"""What was edited in Superset comes back into the files, and nothing else."""

import copy
from pathlib import Path

import pytest
import yaml

from music_streaming.dashboards import export
from music_streaming.dashboards.bundle import (
    Bundle,
    Document,
    load,
    marks,
    resolve,
    shown_charts,
)
from music_streaming.dashboards.lint import lint
from music_streaming.settings import Settings
from music_streaming.testing import FILES

FOLDER = FILES / "dashboards"
ELSEWHERE = "00000000-0000-5000-8000-000000000000"


@pytest.fixture(scope="session")
def shipped() -> Bundle:
    return load(FOLDER)


def live(bundle: Bundle) -> Document:
    return bundle.files["dashboards/live.yaml"]


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
