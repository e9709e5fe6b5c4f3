"""The SQL that Superset sends for a chart of the bundle, made from its YAML: for tests and measurements."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import jinja2
import yaml

from music_streaming.dashboards.chart import chart_query

FOLDER = Path(__file__).parents[1] / "files" / "dashboards"
_ZONE = "@@display_time_zone@@"
_GRAINS = {"PT1M": "minute", "PT1H": "hour", "P1D": "day"}


class Board(NamedTuple):
    """What a viewer has chosen: [since, until), sources (demo, mine), countries, listeners; empty = all."""

    since: dt.datetime
    until: dt.datetime
    origins: Sequence[str] = ()
    countries: Sequence[str] = ()
    zone: str = "UTC"
    listeners: Sequence[str] = ()

    def chosen(self) -> dict[str, list[str]]:
        """Column -> values of each filter that chooses among values."""
        return {
            "origin": list(self.origins),
            "country_name": list(self.countries),
            "listener": list(self.listeners),
        }


@dataclass(frozen=True)
class Chart:
    """path: below charts/, without suffix, as live/top_songs_hour. content, dataset: of their YAML files."""

    path: str
    content: dict[str, Any]
    dataset: dict[str, Any]

    def labels(self) -> list[str]:
        """Names of the columns of sql(): what is grouped by, then the metrics."""
        query = self._query()
        return [_label(column) for column in query["columns"]] + list(query["metrics"] or [])

    def sql(self, board: Board) -> str:
        """One SELECT for PostgreSQL with what the board's filters add, as Superset's own filters would.

        For a session of the board's zone (database_options).
        """
        query = self._query()
        names = {column["column_name"]: column for column in self.dataset["columns"]}
        metrics = {metric["metric_name"]: metric["expression"] for metric in self.dataset["metrics"]}
        select = [f'{self._column(c, names)} AS "{_label(c)}"' for c in query["columns"]]
        select += [f'{metrics[metric]} AS "{metric}"' for metric in query["metrics"] or []]
        where = [self._filter(item, names, board) for item in query["filters"]]
        for column, chosen in board.chosen().items():
            if chosen and column in names:
                where.append(
                    f"{_expression(names, column)} IN ({', '.join(_quoted(value) for value in chosen)})"
                )
        where += [query["extras"]["where"]] if "where" in query["extras"] else []
        lines = [f"SELECT {', '.join(select)}", f"FROM {self.source(board)}"]
        lines += [f"WHERE {' AND '.join(filter(None, where))}"] if any(where) else []
        if query["columns"] and query["metrics"]:
            lines.append(f"GROUP BY {', '.join(str(place + 1) for place in range(len(query['columns'])))}")
        lines += [f"HAVING {query['extras']['having']}"] if "having" in query["extras"] else []
        order = [f'"{name}" {"ASC" if up else "DESC"}' for name, up in query.get("orderby") or []]
        lines += [f"ORDER BY {', '.join(order)}"] if order else []
        lines.append(f"LIMIT {query['row_limit']}")
        return "\n".join(lines).replace(_ZONE, board.zone)

    def _query(self) -> dict[str, Any]:
        query: dict[str, Any] = chart_query(self.content, 0)["queries"][0]
        return query

    def _column(self, column: Any, names: dict[str, Any]) -> str:
        if isinstance(column, str):
            return _expression(names, column)
        return f"date_trunc('{_GRAINS[column['timeGrain']]}', {_expression(names, column['sqlExpression'])})"

    def _filter(self, item: dict[str, Any], names: dict[str, Any], board: Board) -> str:
        column = _expression(names, item["col"])
        if item["op"] == "TEMPORAL_RANGE":
            return f"{column} >= {_moment(board.since, board)} AND {column} < {_moment(board.until, board)}"
        return f"{column} {({'==': '='}).get(item['op'], item['op'])} {_quoted(item['val'])}"

    def source(self, board: Board) -> str:
        sql = self.dataset["sql"]
        if not sql:
            return f"{self.dataset['schema']}.{self.dataset['table_name']}"
        chosen = {"from_expr": _moment(board.since, board), "to_expr": _moment(board.until, board)}
        # SQL, not a page: nothing to escape.
        environment = jinja2.Environment(autoescape=False)  # noqa: S701
        environment.filters["where_in"] = lambda values: f"({', '.join(map(_quoted, values))})"
        chosen_values = board.chosen()
        text = environment.from_string(sql).render(
            get_time_filter=lambda **_: chosen, filter_values=lambda name: chosen_values.get(name, [])
        )
        return f"(\n{text}\n) AS virtual_table".replace(_ZONE, board.zone)


def charts(folder: Path = FOLDER) -> Iterator[Chart]:
    """All charts of the bundle."""
    datasets = {content["uuid"]: content for content in map(_read, folder.glob("datasets/*/*.yaml"))}
    for file in sorted(folder.glob("charts/*/*.yaml")):
        content = _read(file)
        path = file.relative_to(folder / "charts").with_suffix("").as_posix()
        yield Chart(path, content, datasets[content["dataset_uuid"]])


def database_options(folder: Path = FOLDER, zone: str = "UTC") -> str:
    """The settings of Superset's sessions where `zone` is displayed, as libpq's options."""
    (database,) = (_read(file) for file in folder.glob("databases/*.yaml"))
    return str(database["extra"]["engine_params"]["connect_args"]["options"]).replace(_ZONE, zone)


def _read(file: Path) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
    return content


def _label(column: Any) -> str:
    return str(column if isinstance(column, str) else column["label"])


def _expression(names: dict[str, Any], column: str) -> str:
    return str(names[column].get("expression") or column)


def _moment(moment: dt.datetime, board: Board) -> str:
    # Superset tells the clock of its process, and the session takes it in the same zone.
    text = (
        moment.astimezone(ZoneInfo(board.zone))
        .replace(tzinfo=None)
        .isoformat(sep=" ", timespec="microseconds")
    )
    return f"TO_TIMESTAMP('{text}', 'YYYY-MM-DD HH24:MI:SS.US')"


def _quoted(value: Any) -> str:
    return "'" + re.sub("'", "''", str(value)) + "'"
