"""The bundle of files/dashboards: what is no bundle is refused, the ZIP is always the same."""

import io
import shutil
import zipfile
from pathlib import Path

import pytest
import yaml

from music_streaming.dashboards.bundle import (
    TIME_ZONE_MARK,
    Bundle,
    DashboardError,
    Document,
    load,
    marks,
    resolve,
    to_zip,
)
from music_streaming.settings import PostgresSettings, Settings
from music_streaming.testing import FILES

FOLDER = FILES / "dashboards"


@pytest.fixture(scope="session")
def shipped() -> Bundle:
    return load(FOLDER)


def first(bundle: Bundle, kind: str) -> Document:
    return next(iter(bundle.of(kind).values()))


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
