"""The shipped dashboards in the real Superset: what changes in the bundle changes there, what people made stays."""

from __future__ import annotations

import csv
import json
import uuid
from datetime import UTC, datetime

import pytest

from conftest import DASHBOARDS, ask_dataset, wait_for
from music_streaming.event import format_time

SHIPPED = "/opt/music/app/lib/python3.13/site-packages/music_streaming/files/dashboards"
COPY = "/root/dashboards"


@pytest.fixture
def copy(board):
    """A copy of the bundle on the board; the shipped one is imported again afterwards."""
    board.ssh(f"sudo rm -rf {COPY} && sudo cp -r {SHIPPED} {COPY}")
    yield COPY
    board.ssh(f"sudo sh -c 'musicctl dashboards import && rm -rf {COPY}'")


def objects(client, resource: str) -> dict[str, int]:
    """uuid -> id of all of Superset's objects of one kind."""
    query = json.dumps({"page_size": 200})
    found = client.get(f"/api/v1/{resource}/", params={"q": query}).raise_for_status().json()["result"]
    return {item["uuid"]: item["id"] for item in found}


def import_(board, folder: str = "") -> dict[str, object]:
    return json.loads(board.ssh(f"sudo musicctl dashboards import --json {folder}").stdout)


def test_importing_again_changes_nothing(board):
    with board.superset_admin() as admin:
        before = {kind: objects(admin, kind) for kind in ("dashboard", "chart", "dataset")}
        assert import_(board)["changed"] is False
        assert import_(board, "--force")["changed"] is True
        assert {kind: objects(admin, kind) for kind in before} == before


def test_every_chart_of_every_board_answers(board):
    for name in DASHBOARDS:
        done = board.ssh(f"sudo musicctl dashboards check music-{name}", check=False)
        assert done.returncode == 0, done.stdout


def test_dropped_and_moved_charts_follow_the_bundle_and_own_ones_stay(board, copy):
    with board.superset_admin() as admin:
        before = objects(admin, "chart")
        dataset = next(iter(objects(admin, "dataset").values()))
        own = {
            "slice_name": "My own",
            "viz_type": "table",
            "datasource_id": dataset,
            "datasource_type": "table",
        }
        chart = admin.post("/api/v1/chart/", json=own | {"params": "{}"}).raise_for_status().json()["id"]
        board_id = (
            admin.post("/api/v1/dashboard/", json={"dashboard_title": "My own"})
            .raise_for_status()
            .json()["id"]
        )
        # Skip rate by genre goes; devices' streams move to the dataset of the geography and back.
        board.ssh(f"""sudo /opt/music/app/bin/python - <<'SCRIPT'
import pathlib, yaml
root = pathlib.Path("{copy}")
def change(path, edit):
    file = root / path
    content = yaml.safe_load(file.read_text())
    edit(content)
    file.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
gone = yaml.safe_load((root / "charts/content/skip_rate_by_genre.yaml").read_text())["uuid"]
def drop(board):
    position = board["position"]
    node = next(k for k, v in position.items() if isinstance(v, dict) and v.get("meta", {{}}).get("uuid") == gone)
    del position[node]
    for value in position.values():
        if isinstance(value, dict) and node in value.get("children", []):
            value["children"].remove(node)
change("dashboards/content.yaml", drop)
(root / "charts/content/skip_rate_by_genre.yaml").unlink()
geography = yaml.safe_load((root / "charts/geography/streams.yaml").read_text())["dataset_uuid"]
change("charts/devices/streams.yaml", lambda chart: chart.update(dataset_uuid=geography))
SCRIPT""")
        try:
            done = import_(board, copy)
            assert done["removed"] == ["chart Skip rate by genre"], done
            assert len(objects(admin, "chart")) == len(before) - 1 + 1
            assert board.ssh("sudo musicctl dashboards check music-devices", check=False).returncode == 0
            assert import_(board)["changed"] is True
            after = objects(admin, "chart")
            assert set(before) < set(after)
            assert chart in after.values()
            assert board_id in objects(admin, "dashboard").values()
            assert board.ssh("sudo musicctl dashboards check music-devices", check=False).returncode == 0
        finally:
            admin.delete(f"/api/v1/chart/{chart}").raise_for_status()
            admin.delete(f"/api/v1/dashboard/{board_id}").raise_for_status()


def test_an_edit_in_superset_comes_back_as_one_changed_file(board, copy):
    assert board.ssh(f"sudo musicctl dashboards export {copy}").stdout.strip() == "unchanged"
    with board.superset_admin() as admin:
        uuid = board.ssh(f"sudo grep '^uuid:' {copy}/charts/live/top_songs_hour.yaml").stdout.split()[1]
        chart = objects(admin, "chart")[uuid]
        admin.put(f"/api/v1/chart/{chart}", json={"description": "The hour's songs"}).raise_for_status()
    exported = board.ssh(f"sudo musicctl dashboards export {copy}").stdout
    assert exported.split() == ["changed:", f"{copy}/charts/live/top_songs_hour.yaml"]
    assert "The hour's songs" in board.ssh(f"sudo cat {copy}/charts/live/top_songs_hour.yaml").stdout
    assert import_(board)["changed"] is True
    assert board.ssh(f"sudo musicctl dashboards export {copy}").stdout.startswith("changed")


def test_no_cell_of_an_export_is_a_formula(board):
    """Names that a spreadsheet would reckon with stand in a chart's CSV as text."""
    number = uuid.uuid4()
    names = {"title": f"=1+{number.int}", "artist": "@SUM(1)"}
    play = {
        "event_id": str(number),
        "event_time": format_time(datetime.now(UTC)),
        "source": "import",
        "user_id": "listener-1",
        "duration_ms": 200_000,
        "listened_ms": 200_000,
    }
    board.produce(json.dumps(play | names).encode())
    counted = f"SELECT count(*) FROM content_performance_metrics WHERE title = '{names['title']}'"
    wait_for("the play in its metric", lambda: board.sql(counted) != [["0"]])
    with board.superset_admin() as admin:
        query = {
            "columns": list(names),
            "metrics": [],
            "filters": [{"col": "title", "op": "==", "val": names["title"]}],
        }
        table = "content_performance_metrics"
        answer = ask_dataset(admin, table, query, result_format="csv").raise_for_status()
    rows = list(csv.DictReader(answer.content.decode("utf-8-sig").splitlines()))
    assert [list(row.values()) for row in rows] == [[f"'{name}" for name in names.values()]], answer.text


def test_dashboards_start_on_real_plays(board):
    """The play of the test before is real: the filter "Source" takes the first of what it is offered."""
    with board.superset_admin() as admin:
        query = {"columns": ["origin"], "metrics": [], "orderby": [["origin", False]]}
        answer = ask_dataset(admin, "music_origins", query).raise_for_status().json()
    assert [row["origin"] for row in answer["result"][0]["data"]] == ["mine", "demo"]


def test_no_password_lies_in_clear_in_the_metadata(board):
    password = board.ssh("sudo cat /etc/music/secrets/postgres_superset_reader").stdout.strip()
    dump = "sudo docker exec music-postgres pg_dump -h /run/music-postgres -U postgres superset"
    text = board.ssh(dump, check=False)
    assert text.returncode == 0, text.stderr
    assert "superset_reader" in text.stdout
    assert password not in text.stdout
