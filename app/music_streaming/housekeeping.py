"""What the job does by a clock that is right: make good what a wrong one did, and delete what is old."""

from __future__ import annotations

import datetime as dt
import logging
from typing import TYPE_CHECKING, Any

import psycopg2

from music_streaming import table

if TYPE_CHECKING:
    from music_streaming.settings import StreamSettings

log = logging.getLogger("music-metrics")


def make_good(connection: Any, topic: str, rules: table.Rules, now: dt.datetime | None = None) -> None:
    """Draw times of the future back, and judge rejects again that are in the future no more.

    now: for tests. psycopg2.Error as it comes, LockNotAvailable where a batch is long at work.
    """
    moment = now or dt.datetime.now(dt.UTC)
    for change in draw_back(connection, rules, moment):
        log.warning("the clock was ahead; drawn back: %s", change)
    outcome = table.judge_again(connection, topic, rules, moment)
    if outcome.accepted or outcome.duplicates:
        log.info(
            "%d plays that had been ahead of the clock are accepted, %d were there already",
            outcome.accepted,
            outcome.duplicates,
        )


def draw_back(connection: Any, rules: table.Rules, now: dt.datetime) -> list[str]:
    """Draw watermark, newest times and times of batches back that lie in the future; what was changed."""
    with connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT draw_back_times(%s, %s)", (now + rules.future_tolerance, rules.watermark_delay)
        )
        return [change for (change,) in cursor.fetchall()]


def expire(connection: Any, stream: StreamSettings) -> None:
    """Let generated plays expire and forget old batches."""
    expired = delete_old(connection, stream.demo_retention_days, stream.batches_kept_days)
    if expired:
        log.info("%d demo plays are older than %d days and gone", expired, stream.demo_retention_days)


def delete_old(connection: Any, demo_retention_days: int, batches_kept_days: int) -> int | None:
    """Let generated plays expire and forget old batches; returns how many plays expired.

    Only by a clock that is right (clock.synchronised): one that is ahead takes everything for old.
    None where a long query of a reader stood in the way: try again later.
    """
    with connection, connection.cursor() as cursor:
        cursor.execute(
            "DELETE FROM ingest_batches WHERE committed_at < now() - make_interval(days => %s)",
            (batches_kept_days,),
        )
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute("SELECT expire_demo_events(%s)", (demo_retention_days,))
            expired: int = cursor.fetchone()[0]
            return expired
    except (psycopg2.errors.LockNotAvailable, psycopg2.errors.DeadlockDetected):
        return None
