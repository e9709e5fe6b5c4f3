"""Asks a chart's numbers as Superset does."""

from __future__ import annotations

import contextlib
import datetime as dt
from typing import Any

import psycopg2

from chart_sql import Board, Chart, charts, database_options
from music_streaming.testing.postgres import Database

CHARTS = {chart.path: chart for chart in charts()}


def shown(database: Database, chart: Chart, board: Board) -> list[tuple[Any, ...]]:
    """The rows of a chart, read as Superset reads them."""
    return in_zone(database, board.zone, chart.sql(board))


def in_zone(database: Database, zone: str, sql: str) -> list[tuple[Any, ...]]:
    """What a statement gives in a session of the dashboards' connection."""
    dsn = f"{database.dsn('superset_reader')} options='{database_options(zone=zone)}'"
    with contextlib.closing(psycopg2.connect(dsn)) as connection, connection.cursor() as cursor:
        cursor.execute(sql)
        return list(cursor.fetchall())


def last_hour(zone: str = "UTC") -> Board:
    now = dt.datetime.now(dt.UTC)
    return Board(now - dt.timedelta(hours=1), now + dt.timedelta(seconds=1), zone=zone)
