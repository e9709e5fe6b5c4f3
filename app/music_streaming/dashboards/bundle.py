"""The shipped dashboards: files/dashboards as a bundle.

The folder is the bundle literally: one YAML file for each database, dataset, chart and dashboard, with the
keys of Superset's import schemas. Two things are filled in on the way: the address of PostgreSQL in the
database's URI, and the text ``@@display_time_zone@@``.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from music_streaming.dashboards.superset import read_yaml
from music_streaming.error import MusicError
from music_streaming.settings import Role, Settings

Document = dict[str, Any]

KINDS = ("databases", "datasets", "charts", "dashboards")
SLUG_PREFIX = "music-"
HOME_SLUG = "music-live"
PASSWORD_MASK = "XXXXXXXXXX"  # noqa: S105  Superset's own mask: keep or be told the password
TIME_ZONE_MARK = "@@display_time_zone@@"
EARLIEST_ZIP_TIME = (1980, 1, 1, 0, 0, 0)


class DashboardError(MusicError):
    """A bundle or import that cannot be used; the text says what was found, wanted, and the remedy."""


@dataclass(frozen=True)
class Bundle:
    """Every file of the folder: path below it, such as charts/live/streams_per_minute.yaml -> content."""

    folder: Path
    files: dict[str, Document] = field(default_factory=dict)

    def of(self, kind: str) -> dict[str, Document]:
        """The files of one kind, in the order of their paths."""
        return {path: content for path, content in self.files.items() if path.startswith(f"{kind}/")}

    def uuids(self, kind: str) -> set[str]:
        """The uuids of one kind."""
        return {content["uuid"] for content in self.of(kind).values()}


def load(folder: Path) -> Bundle:
    """Read `folder`; raises DashboardError for a file that is no YAML map or lies in no known folder."""
    if not folder.is_dir():
        raise DashboardError(
            f"Dashboards: found no folder {folder}, wanted the bundle. Remedy: run the play (site.yml), "
            "which installs it, or name the folder."
        )
    files: dict[str, Document] = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = path.relative_to(folder).as_posix()
        if name.split("/")[0] not in KINDS or path.suffix != ".yaml":
            raise DashboardError(
                f"Dashboards: found {path}, wanted only .yaml files below {', '.join(KINDS)}. "
                "Remedy: move the file out of the bundle."
            )
        try:
            content = read_yaml(path.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise DashboardError(f"Dashboards: {path} is no YAML ({error}). Remedy: correct it.") from None
        if not isinstance(content, dict):
            raise DashboardError(
                f"Dashboards: {path} holds {type(content).__name__}, wanted a map. Remedy: correct it."
            )
        files[name] = content
    if not files:
        raise DashboardError(f"Dashboards: found no .yaml file in {folder}, wanted the bundle.")
    return Bundle(folder, files)


def map_text(value: Any, change: Callable[[str], str]) -> Any:
    """A copy of a document in which every text value, at any depth, went through `change`."""
    if isinstance(value, dict):
        return {key: map_text(item, change) for key, item in value.items()}
    if isinstance(value, list):
        return [map_text(item, change) for item in value]
    return change(value) if isinstance(value, str) else value


def resolve(bundle: Bundle, settings: Settings) -> Bundle:
    """The bundle for this board: its PostgreSQL and its display time zone filled in. The password stays
    masked.
    """
    zone = settings.display_time_zone
    files = {
        path: map_text(content, lambda text: text.replace(TIME_ZONE_MARK, zone))
        for path, content in bundle.files.items()
    }
    place = f"{settings.postgres.host}:{settings.postgres.port}/{settings.postgres.database}"
    for path in bundle.of("databases"):
        files[path]["sqlalchemy_uri"] = f"postgresql+psycopg2://{Role.READER}:{PASSWORD_MASK}@{place}"
    return Bundle(bundle.folder, files)


def to_zip(bundle: Bundle) -> bytes:
    """The ZIP that Superset imports: the same bytes for the same content, whenever and wherever made."""
    parts = {"metadata.yaml": {"version": "1.0.0", "type": "assets"}} | bundle.files
    buffer = io.BytesIO()
    # Stored, not deflated: compressed bytes differ between versions of zlib. And JSON, which is YAML too,
    # but is written in one way only.
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(parts):
            text = json.dumps(parts[path], ensure_ascii=False, indent=1)
            archive.writestr(zipfile.ZipInfo(f"music/{path}", EARLIEST_ZIP_TIME), text)
    return buffer.getvalue()


def shown_charts(board: Document) -> Iterator[str]:
    """The uuids of the charts in a dashboard's layout."""
    for node in board["position"].values():
        if isinstance(node, dict) and node.get("type") == "CHART":
            yield node["meta"]["uuid"]


def marks(content: Document) -> set[str]:
    """The ``@@...@@`` texts in a document."""
    found: set[str] = set()

    def look(text: str) -> str:
        found.update(re.findall(r"@@\w*@@", text))
        return text

    map_text(content, look)
    return found
