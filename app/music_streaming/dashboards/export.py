"""What Superset exports, back in the form of files/dashboards, so that an edit is a small diff.

An export has ids of its own Superset in it, states every default, and names files after titles and ids.
Here ids become those of the file, what belongs to one Superset goes, and a file keeps its path because its
uuid is known.
"""

from __future__ import annotations

import copy
import itertools
import re
from typing import Any

import yaml

Document = dict[str, Any]

LINE_WIDTH = 110
# kind -> the keys of a file, in their order; everything else in an export is left behind.
KEYS = {
    "databases": [
        "database_name", "sqlalchemy_uri", "cache_timeout", "expose_in_sqllab", "allow_run_async",
        "allow_ctas", "allow_cvas", "allow_dml", "allow_file_upload", "impersonate_user", "extra", "uuid",
        "version",
    ],
    "datasets": [
        "table_name", "description", "schema", "sql", "main_dttm_col", "columns", "metrics", "cache_timeout",
        "offset", "default_endpoint", "params", "template_params", "fetch_values_predicate",
        "filter_select_enabled", "normalize_columns", "always_filter_main_dttm", "extra", "uuid",
        "database_uuid", "version",
    ],
    "charts": [
        "slice_name", "description", "viz_type", "params", "cache_timeout", "query_context", "certified_by",
        "certification_details", "uuid", "dataset_uuid", "version",
    ],
    "dashboards": [
        "dashboard_title", "slug", "description", "published", "css", "position", "metadata", "certified_by",
        "certification_details", "uuid", "version",
    ],
}  # fmt: skip
COLUMN_KEYS = [
    "column_name", "verbose_name", "type", "expression", "description", "is_dttm", "is_active", "groupby",
    "filterable", "python_date_format", "datetime_format", "extra",
]  # fmt: skip
METRIC_KEYS = [
    "metric_name", "verbose_name", "expression", "d3format", "description", "warning_text", "currency",
    "extra",
]  # fmt: skip
# Ids of one Superset, and colours that the browser works out and stores, only because somebody looks.
INSTANCE_PARAMS = {"datasource", "slice_id", "dashboards", "url_params"}
INSTANCE_METADATA = {"shared_label_colors", "map_label_colors", "color_scheme_domain", "default_filters"}


def changed_files(
    files: dict[str, Document], ready: dict[str, Document], exported: dict[str, Document]
) -> dict[str, Document]:
    """The files that have to be written so that the folder says what was exported: path -> content.

    files: the folder as it is; ready: the same with the board's values filled in (the form that Superset
    got);
    exported: path in the export -> content.
    """
    paths = {content["uuid"]: path for path, content in files.items()}
    new_paths = _new_paths(exported, paths)
    changed = {}
    for name, content in exported.items():
        kind = name.split("/")[0]
        if kind not in KEYS:
            continue  # themes and tags are not part of the bundle
        path = paths.get(content["uuid"]) or new_paths[content["uuid"]]
        if kind == "databases" and path in files:
            content["sqlalchemy_uri"] = ready[path]["sqlalchemy_uri"]
        wanted = _file_form(kind, content, ready.get(path))
        if path in ready and _meaning(wanted) == _meaning(ready[path]):
            continue
        changed[path] = _marked(wanted, files.get(path), ready.get(path))
    return changed


def to_yaml(content: Document) -> str:
    """A file of the bundle as text: keys in their order, texts of several lines as blocks."""
    return "---\n" + yaml.dump(
        content,
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=True,
        width=LINE_WIDTH,
        default_flow_style=False,
    )


class _Dumper(yaml.SafeDumper):
    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        # Lists indented below their key, as in the files written by hand.
        super().increase_indent(flow, False)


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def _file_form(kind: str, content: Document, before: Document | None) -> Document:
    content = copy.deepcopy(content)
    if kind == "databases":
        # One code path of the export writes the old name of this key.
        content.setdefault("allow_file_upload", content.pop("allow_csv_upload", False))
    elif kind == "datasets":
        for part, key, keys in (
            ("columns", "column_name", COLUMN_KEYS),
            ("metrics", "metric_name", METRIC_KEYS),
        ):
            order = [item[key] for item in (before or {}).get(part) or []]
            items = sorted(
                content.get(part) or [],
                key=lambda item: (order.index(item[key]) if item[key] in order else len(order), item[key]),
            )
            stated = {item[key]: item.keys() for item in (before or {}).get(part) or []}
            content[part] = [
                {
                    name: item.get(name)
                    for name in keys
                    if item.get(name) is not None or name in stated.get(item[key], keys[:2])
                }
                for item in items
            ]
    elif kind == "charts":
        content["params"] = {
            k: v for k, v in (content.get("params") or {}).items() if k not in INSTANCE_PARAMS
        }
        content["query_context"] = None
        if before:
            content["params"] = _in_order_of(before["params"], content["params"])
    else:
        content.setdefault("metadata", {})
        stated = {k: v for k, v in (before or {}).get("metadata", {}).items() if k in INSTANCE_METADATA}
        kept = {k: v for k, v in content["metadata"].items() if k not in INSTANCE_METADATA}
        content["metadata"] = kept | stated
        _renumber(content, (before or {}).get("position") or {})
        if before:
            for key in ("position", "metadata"):
                content[key] = _in_order_of(before[key], content[key])
    return {key: content.get(key) for key in KEYS[kind]}


def _renumber(board: Document, position_before: Document) -> None:
    """Give each chart the chartId of the file again (a new one the next free number), wherever ids are
    used.
    """
    before = {node["meta"]["uuid"]: node["meta"]["chartId"] for node in _chart_nodes(position_before)}
    next_free = max(before.values(), default=0) + 1
    numbers: dict[int, int] = {}
    for node in _chart_nodes(board["position"]):
        identifier = node["meta"]["uuid"]
        if identifier not in before:
            before[identifier] = next_free
            next_free += 1
        numbers[node["meta"]["chartId"]] = before[identifier]
        node["meta"]["chartId"] = before[identifier]

    metadata = board["metadata"]
    for key in ("expanded_slices", "filter_scopes", "chart_configuration"):
        if key in metadata:
            metadata[key] = {
                str(numbers[int(old)]): value for old, value in metadata[key].items() if int(old) in numbers
            }
    for new, value in (metadata.get("chart_configuration") or {}).items():
        value["id"] = int(new)
    for holder in (metadata, *dicts_within(metadata)):
        for key in ("timed_refresh_immune_slices", "excluded"):
            if isinstance(holder.get(key), list):
                holder[key] = [numbers[old] for old in holder[key] if old in numbers]
        if "chartsInScope" in holder:
            holder["chartsInScope"] = []  # the browser works it out; Superset's import leaves old ids in it


def _chart_nodes(position: Document) -> list[Document]:
    return [
        node
        for node in position.values()
        if isinstance(node, dict) and node.get("type") == "CHART" and node["meta"].get("uuid")
    ]


def dicts_within(value: Any) -> list[Document]:
    """Every map inside a document, at any depth."""
    found = []
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else []:
        if isinstance(item, dict):
            found.append(item)
        found += dicts_within(item)
    return found


def _in_order_of(before: Any, now: Any) -> Any:
    """`now` with the keys that it shares with `before` first and in that order, at every depth."""
    if isinstance(before, dict) and isinstance(now, dict):
        keys = [key for key in before if key in now] + [key for key in now if key not in before]
        return {key: _in_order_of(before.get(key), now[key]) for key in keys}
    if isinstance(before, list) and isinstance(now, list):
        return [_in_order_of(old, new) for old, new in itertools.zip_longest(before[: len(now)], now)]
    return now


def _meaning(value: Any) -> Any:
    """The document without what says nothing: absent, null and empty mean the same to Superset's import."""
    if isinstance(value, dict):
        found = {key: _meaning(item) for key, item in value.items()}
        return {key: item for key, item in found.items() if item not in (None, "", {}, [])}
    if isinstance(value, list):
        return [_meaning(item) for item in value]
    return value


def _marked(wanted: Any, before: Any, ready: Any) -> Any:
    """Put the marks (``@@...@@``) back where the text is still the one that a mark had become."""
    if isinstance(wanted, dict) and isinstance(before, dict) and isinstance(ready, dict):
        return {key: _marked(value, before.get(key), ready.get(key)) for key, value in wanted.items()}
    if isinstance(wanted, list) and isinstance(before, list) and isinstance(ready, list):
        known = {_name(new): (old, new) for old, new in zip(before, ready, strict=True)}
        return [_marked(item, *known.get(_name(item), (None, None))) for item in wanted]
    return before if isinstance(before, str) and wanted == ready else wanted


def _name(item: Any) -> str:
    """By what an item of a list is the same item after an edit."""
    if isinstance(item, dict):
        return str(next((item[key] for key in ("column_name", "metric_name", "id") if key in item), item))
    return str(item)


def _new_paths(exported: dict[str, Document], known: dict[str, str]) -> dict[str, str]:
    """uuid -> path of the objects that the folder does not have yet; a chart goes below its dashboard."""
    home: dict[str, str] = {}
    for name, content in exported.items():
        if name.startswith("dashboards/"):
            for node in _chart_nodes(content["position"]):
                home.setdefault(node["meta"]["uuid"], _stem(content["slug"].partition("-")[2]))
    paths: dict[str, str] = {}
    taken = set(known.values())
    for name, content in exported.items():
        kind, identifier = name.split("/")[0], content["uuid"]
        if identifier in known or kind not in KEYS:
            continue
        stem = {
            "databases": lambda c: c["database_name"],
            "datasets": lambda c: c["table_name"],
            "charts": lambda c: c["slice_name"],
            "dashboards": lambda c: c["slug"].partition("-")[2],
        }[kind](content)
        folder = {"datasets": "music_streaming/", "charts": f"{home.get(identifier, 'other')}/"}.get(kind, "")
        path = f"{kind}/{folder}{_stem(stem)}.yaml"
        if path in taken:
            path = path.replace(".yaml", f"_{identifier[:8]}.yaml")
        taken.add(path)
        paths[identifier] = path
    return paths


def _stem(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", title.lower()).strip("_") or "unnamed"
