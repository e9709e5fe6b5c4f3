"""The way back of an update, as far as it needs no board: the data of an older PostgreSQL."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "roles/_update/files/way_back.py"


@pytest.fixture
def way_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, on a board whose data lie in `tmp_path`; what it would run is kept in `ran`."""
    spec = importlib.util.spec_from_file_location("way_back", SCRIPT)
    script: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    script.ran = []
    monkeypatch.setattr(script, "run", lambda *argv, **_: script.ran.append(argv) or "")
    monkeypatch.setattr(script, "data_root", lambda: tmp_path)
    monkeypatch.setattr(script, "HOME", tmp_path)
    monkeypatch.setattr(script, "NOTE", tmp_path / "before.json")
    script.NOTE.write_text(json.dumps({"state": "unfinished", "backup": str(script.NOTE), "images": {}}))
    cluster(tmp_path, "data", "15")
    return script


def cluster(root: Path, name: str, version: str) -> None:
    folder = root / "postgres" / name
    folder.mkdir(parents=True)
    (folder / "PG_VERSION").write_text(f"{version}\n")


def versions(root: Path) -> dict[str, str]:
    return {path.parent.name: path.read_text().strip() for path in root.glob("postgres/*/PG_VERSION")}


def test_data_are_put_aside_once_and_come_back(way_back: ModuleType, tmp_path: Path) -> None:
    way_back.aside("15")
    assert way_back.ran[0][:2] == ("systemctl", "stop")
    assert way_back.note()["aside"] == "15"
    assert versions(tmp_path) == {"data-15": "15"}
    cluster(tmp_path, "data", "17")
    way_back.aside("15")  # the run was cut off, and is gone on with
    assert versions(tmp_path) == {"data": "17", "data-15": "15"}
    way_back.data_back("15")
    way_back.data_back("15")
    assert versions(tmp_path) == {"data": "15"}


@pytest.mark.parametrize(
    "before", [{"data-failed": "17", "data-15": "15"}, {"data": "15", "data-failed": "17"}]
)
def test_a_way_back_that_was_cut_off_is_gone_on_with(
    way_back: ModuleType, tmp_path: Path, before: dict[str, str]
) -> None:
    (tmp_path / "postgres/data/PG_VERSION").unlink()
    (tmp_path / "postgres/data").rmdir()
    for name, version in before.items():
        cluster(tmp_path, name, version)
    way_back.data_back("15")
    assert versions(tmp_path) == {"data": "15"}


def test_two_old_ones_are_refused(way_back: ModuleType, tmp_path: Path) -> None:
    cluster(tmp_path, "data-15", "15")
    with pytest.raises(way_back.WayBackError, match=r"data-15 beside .*sudo rm -r"):
        way_back.aside("15")
    assert versions(tmp_path) == {"data": "15", "data-15": "15"}


def test_without_the_old_data_nothing_is_stopped(way_back: ModuleType, tmp_path: Path) -> None:
    way_back.aside("15")
    (tmp_path / "postgres/data-15/PG_VERSION").unlink()
    cluster(tmp_path, "data", "17")
    way_back.set_state("done", app=".")
    way_back.ran.clear()
    with pytest.raises(way_back.WayBackError, match="no data of PostgreSQL 15"):
        way_back.files()
    assert way_back.ran == []
