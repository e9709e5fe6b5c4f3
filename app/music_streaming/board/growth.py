"""How fast each part of the disk grows, and when it will be full: the view disk_growth, in words."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

UNKNOWN = "not known yet: the job notes sizes every hour, and two of them are wanted"


@dataclass(frozen=True)
class Part:
    """Bytes of a part, where its settings bound it, and how many bytes it grows a day; None: not known."""

    name: str
    size: int
    most: int | None
    a_day: int | None


@dataclass(frozen=True)
class Growth:
    """Every part, largest first; since when; in how many days the disk is full, None: nothing fills it."""

    parts: list[Part]
    since: datetime | None
    until: datetime | None
    full_in_days: int | None

    def __str__(self) -> str:
        if not any(part.a_day is not None for part in self.parts):
            return UNKNOWN
        if self.full_in_days is None:
            return "nothing that grows fills it"
        return f"full in {self.full_in_days:,} days, if all goes on as now"


def read_growth(rows: list[tuple[Any, ...]]) -> Growth:
    """From the rows of SELECT_GROWTH."""
    if not rows:
        return Growth([], None, None, None)
    parts = [Part(*row[:4]) for row in rows]
    *_, since, until, days = rows[0]
    return Growth(parts, since, until, days)


SELECT_GROWTH = (
    "SELECT part, bytes, most, bytes_a_day, since, until, full_in_days FROM disk_growth "
    "ORDER BY part = 'free', bytes DESC"
)
