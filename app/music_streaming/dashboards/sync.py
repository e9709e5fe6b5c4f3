"""The shipped dashboards into Superset and back.

Objects are recognised by uuid; people's own objects have others and are left alone. What was imported last is
remembered in ``<data>/superset/dashboards.json`` as two digests, of the bundle and of what Superset exported
right after: the next import does nothing when both still hold and the charts answer.
"""

from __future__ import annotations

import copy
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from music_streaming.dashboards import export
from music_streaming.dashboards.bundle import (
    HOME_SLUG,
    KINDS,
    SLUG_PREFIX,
    Bundle,
    DashboardError,
    load,
    resolve,
    shown_charts,
    to_zip,
)
from music_streaming.dashboards.chart import chart_query
from music_streaming.dashboards.lint import lint
from music_streaming.dashboards.superset import Superset, SupersetError
from music_streaming.settings import Role, Settings


@dataclass(frozen=True)
class Imported:
    """What an import did: `changed` is False when everything was already as shipped."""

    changed: bool
    why: str
    counts: dict[str, int]
    removed: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Remembered:
    bundle: str
    exported: str

    @classmethod
    def read(cls, path: Path) -> _Remembered | None:
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except (FileNotFoundError, ValueError, TypeError):
            return None  # nothing to rely on, so import

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(vars(self)) + "\n", encoding="utf-8")


def remembered_path(settings: Settings) -> Path:
    """The file with the digests of the last import."""
    return settings.paths.data / "superset" / "dashboards.json"


def import_bundle(settings: Settings, folder: Path, *, force: bool = False) -> Imported:
    """Bring Superset's shipped objects to what `folder` says; nothing is sent when they already are.

    An edit that somebody made to a shipped object is undone; what they made themselves is not touched.
    Charts, dashboards and unused datasets that an earlier bundle brought and this one has no more are
    removed. Afterwards one chart of each dataset is asked for its data past the cache. Raises
    DashboardError (bundle, names taken by others) or SupersetError (refusals, charts without answer).
    """
    bundle = checked(load(folder))
    ready = resolve(bundle, settings)
    archive = to_zip(ready)
    digest = hashlib.sha256(archive).hexdigest()
    path = remembered_path(settings)
    counts = {kind: len(bundle.of(kind)) for kind in KINDS}
    with Superset.of(settings) as superset:
        why = "asked for" if force else _why_import(superset, ready, digest, _Remembered.read(path))
        if not why:
            return Imported(False, "as shipped", counts)
        refuse_taken_names(superset, ready)
        password = settings.postgres.password(Role.READER).get_secret_value()
        superset.import_assets(archive, dict.fromkeys(ready.of("databases"), password))
        removed = remove_left_over(superset, ready)
        ask_each_dataset(superset, ready)
        exported = exported_digest(superset, ready)
        if exported is None:
            raise SupersetError(
                "Superset said OK to the import, yet a shipped dashboard is not there. "
                "Remedy: journalctl -u music-superset"
            )
        _Remembered(digest, exported).write(path)
        return Imported(True, why, counts, removed)


def checked(bundle: Bundle) -> Bundle:
    """The same bundle, or a DashboardError with everything that lint finds in it."""
    if problems := lint(bundle):
        raise DashboardError("\n".join([f"Dashboards: {len(problems)} faults in {bundle.folder}", *problems]))
    return bundle


def _why_import(superset: Superset, ready: Bundle, digest: str, before: _Remembered | None) -> str:
    if before is None:
        return "first import"
    if before.bundle != digest:
        return "the bundle or the board's settings changed"
    if exported_digest(superset, ready) != before.exported:
        return "shipped objects were edited or removed in Superset"
    try:
        ask_each_dataset(superset, ready)
    except SupersetError as error:
        return f"a chart gave no answer ({str(error).splitlines()[0]})"
    return ""


def exported_digest(superset: Superset, bundle: Bundle) -> str | None:
    """A digest of the shipped dashboards with all that they are made of, as Superset has them; None: one is
    missing.
    """
    ids = dashboard_ids(superset, bundle)
    if len(ids) < len(bundle.uuids("dashboards")):
        return None
    exported = superset.export_dashboards(sorted(ids.values()))
    for part in exported.values():
        for name in export.INSTANCE_METADATA & part.get("metadata", {}).keys():
            del part["metadata"][name]
    content = sorted(json.dumps(part, sort_keys=True, default=str) for part in exported.values())
    return hashlib.sha256("\n".join(content).encode()).hexdigest()


def dashboard_ids(superset: Superset, bundle: Bundle) -> dict[str, int]:
    """uuid -> Superset's id of each shipped dashboard that is there."""
    shipped = bundle.uuids("dashboards")
    found = superset.find("dashboard", ("slug", "sw", SLUG_PREFIX))
    return {item["uuid"]: item["id"] for item in found if item.get("uuid") in shipped}


def refuse_taken_names(superset: Superset, bundle: Bundle) -> None:
    """Superset's import takes over an object of the same unique name, also somebody's own. Refuse first."""
    for kind, resource, name in (
        ("databases", "database", "database_name"),
        ("datasets", "dataset", "table_name"),
        ("dashboards", "dashboard", "slug"),
    ):
        wanted = {content[name]: (content["uuid"], path) for path, content in bundle.of(kind).items()}
        for item in superset.find(resource):
            if kind == "datasets" and item["database"]["uuid"] not in bundle.uuids("databases"):
                continue  # the same table of another database is another dataset
            identifier, path = wanted.get(item[name], (item["uuid"], ""))
            if item["uuid"] != identifier:
                raise DashboardError(
                    f"Dashboards: found somebody's own {resource} {item[name]} (uuid {item['uuid']}), wanted "
                    f"that name for {path}. Remedy: rename or delete it in Superset, then run again."
                )


def remove_left_over(superset: Superset, bundle: Bundle) -> tuple[str, ...]:
    """Delete what an earlier bundle brought and this one has no more; the names of what went.

    A dataset on which somebody built a chart of their own stays.
    """
    removed = []
    for kind, resource, title in (
        ("dashboards", "dashboard", "dashboard_title"),
        ("charts", "chart", "slice_name"),
        ("datasets", "dataset", "table_name"),
    ):
        shipped = bundle.uuids(kind)
        left = [item for item in superset.made_here(resource) if item["uuid"] not in shipped]
        if resource == "dataset":
            left = [
                i for i in left if not superset.get(f"dataset/{i['id']}/related_objects")["charts"]["count"]
            ]
        superset.delete(resource, [item["id"] for item in left])
        removed += [f"{resource} {item[title]}" for item in left]
    return tuple(removed)


def dataset_ids(superset: Superset, bundle: Bundle) -> dict[str, int]:
    """uuid -> Superset's id of each shipped dataset that is there."""
    shipped = bundle.uuids("datasets")
    found = {item["uuid"]: item["id"] for item in superset.find("dataset")}
    return {key: value for key, value in found.items() if key in shipped}


def ask_each_dataset(superset: Superset, bundle: Bundle) -> None:
    """One chart of each dataset past the cache: the connection, its password and the SQL are right."""
    ids = dataset_ids(superset, bundle)
    first = {chart["dataset_uuid"]: chart for chart in reversed(bundle.of("charts").values())}
    for dataset, chart in first.items():
        if dataset not in ids:
            raise SupersetError(f"Superset has no dataset {dataset} for the chart {chart['slice_name']}.")
        try:
            superset.chart_data(chart_query(chart, ids[dataset]))
        except SupersetError as error:
            raise SupersetError(f"Chart {chart['slice_name']}: {error}") from None


@dataclass(frozen=True)
class ChartAnswer:
    """What a shipped chart gives now: `rows` of its first query, or why it gives none."""

    chart: str
    rows: int
    error: str = ""


def ask_charts(settings: Settings, folder: Path, slug: str = HOME_SLUG) -> list[ChartAnswer]:
    """Ask every chart of one shipped dashboard for its data, past the cache and with the chart's own
    settings.
    """
    bundle = resolve(load(folder), settings)
    board = next((b for b in bundle.of("dashboards").values() if b["slug"] == slug), None)
    if board is None:
        wanted = ", ".join(b["slug"] for b in bundle.of("dashboards").values())
        raise DashboardError(f"Dashboards: found no dashboard {slug} in {folder}, wanted one of {wanted}.")
    shown = set(shown_charts(board))
    answers = []
    with Superset.of(settings) as superset:
        ids = dataset_ids(superset, bundle)
        for chart in bundle.of("charts").values():
            if chart["uuid"] not in shown:
                continue
            name = chart["slice_name"]
            if chart["dataset_uuid"] not in ids:
                answers.append(
                    ChartAnswer(name, 0, "its dataset is not in Superset: musicctl dashboards import")
                )
                continue
            try:
                answers.append(
                    ChartAnswer(
                        name, len(superset.chart_data(chart_query(chart, ids[chart["dataset_uuid"]])))
                    )
                )
            except SupersetError as error:
                answers.append(ChartAnswer(name, 0, str(error)))
    return answers


def export_bundle(settings: Settings, folder: Path) -> list[Path]:
    """Write what people edited in Superset back to `folder`; the files that changed.

    Takes every dashboard whose slug begins with music-, so a new one and its charts come along. A file
    whose content means the same is left as it is, comments and all. The result has to pass lint, else
    nothing is written.
    """
    bundle = load(folder) if any(folder.rglob("*.yaml")) else Bundle(folder)
    with Superset.of(settings) as superset:
        found = superset.find("dashboard", ("slug", "sw", SLUG_PREFIX))
        if not found:
            raise DashboardError(
                f"Dashboards: found none in Superset whose slug begins with {SLUG_PREFIX}, wanted at least "
                "one. Remedy: set the slug in the dashboard's properties."
            )
        exported = superset.export_dashboards(sorted(item["id"] for item in found))
    ready = resolve(bundle, settings).files
    files = copy.deepcopy(bundle.files)
    changed = export.changed_files(bundle.files, ready, exported)
    files.update(changed)
    checked(Bundle(folder, files))
    for path, content in changed.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(export.to_yaml(content), encoding="utf-8")
    return [folder / path for path in changed]
