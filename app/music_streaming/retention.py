"""What the job does every ten minutes besides its batches: expire, fold, prove, forget, analyze.

Each step is a transaction of its own and short, so that a batch or a reader waits a moment at most. All of
them leave every sum as it was.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import Any

import psycopg2

log = logging.getLogger("music-metrics")

# Periods counted again in one statement.
PROVED_AT_ONCE = 50
# After which the rest waits for the next round.
ROUND_SECONDS = 20


@dataclass(frozen=True)
class Ages:
    """Days after which things change: generated plays expire, windows become hours, then local days."""

    demo_retention_days: int = 14
    fold_hours_days: int = 14
    fold_days_days: int = 90
    batches_kept_days: int = 7


@dataclass(frozen=True)
class Done:
    """What a round of housekeeping has done. expired: plays, None where a reader stood in the way."""

    expired: int | None = 0
    folded_days: int = 0
    counted: int = 0
    proved: int = 0


def set_zone(connection: Any, zone: str) -> str:
    """Fold to the days of `zone`, while no play is stored; returns the zone that holds."""
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT set_folding_zone(%s)", (zone,))
        found: str = cursor.fetchone()[0]
    if found != zone:
        log.warning(
            "days of the metrics are those of %s, found %s as the display time zone: plays are stored, "
            "so they stay; charts show hours in the new zone",
            found,
            zone,
        )
    return found


def housekeep(connection: Any, ages: Ages) -> Done:
    """One round; psycopg2.Error as it comes. What is put off is done in the next round."""
    with connection, connection.cursor() as cursor:
        # A hash aggregate would hold one sketch of 128 KiB for each song of the day at once.
        cursor.execute("SET jit = off; SET hll.force_groupagg = on")
        cursor.execute(
            "DELETE FROM ingest_batches WHERE committed_at < now() - make_interval(days => %s)",
            (ages.batches_kept_days,),
        )
    expired = _unless_in_use(connection, "SELECT expire_demo_events(%s)", ages.demo_retention_days)
    ends = time.monotonic() + ROUND_SECONDS
    folded = 0
    days = (ages.fold_hours_days, ages.fold_days_days)
    while time.monotonic() < ends and _unless_in_use(connection, "SELECT fold_next_day(%s, %s)", *days):
        folded += 1
    counted, proved = _prove(connection, ends)
    _unless_in_use(connection, "SELECT analyze_partitioned()")
    return Done(expired, folded, counted, proved)


def _unless_in_use(connection: Any, statement: str, *parameters: int) -> Any:
    """What the statement gives; None where someone held what it needs for too long."""
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(statement, parameters)
            return cursor.fetchone()[0]
    except (psycopg2.errors.LockNotAvailable, psycopg2.errors.DeadlockDetected) as error:
        log.warning(
            "put off, as a query is at work: %s: %s",
            statement.removeprefix("SELECT "),
            str(error).split("\n")[0],
        )
        return None


def _prove(connection: Any, ends: float) -> tuple[int, int]:
    counted = proved = 0
    while not counted or time.monotonic() < ends:
        with connection, connection.cursor() as cursor:
            cursor.execute("SELECT counted, closed FROM prove_periods(%s)", (PROVED_AT_ONCE,))
            looked_at, closed = cursor.fetchone()
        counted, proved = counted + looked_at, proved + closed
        # Those that differ stay open, and would be looked at for ever.
        if not closed:
            break
    return counted, proved
