"""What the job does by a clock that is right: make good what a wrong one did, and delete what is old."""

from __future__ import annotations

import datetime as dt
import logging
from typing import TYPE_CHECKING, Any

from music_streaming import clock, retention, table

if TYPE_CHECKING:
    from music_streaming.settings import StreamSettings
    from music_streaming.watchdog import Every

log = logging.getLogger("music-metrics")


def look_after(
    connection: Any, topic: str, rules: table.Rules, stream: StreamSettings, expiry: Every
) -> bool:
    """Make good, and expire where `expiry` is due; False, with nothing done, where the clock may be wrong."""
    if not clock.synchronised(trusted=stream.clock_trusted):
        return False
    make_good(connection, topic, rules)
    if expiry.due():
        expire(connection, stream)
    return True


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
    """Let plays and windows grow old (retention.py); a clock that is ahead takes everything for old."""
    ages = retention.Ages(
        stream.demo_retention_days,
        stream.fold_hours_after_days,
        stream.fold_days_after_days,
        stream.batches_kept_days,
    )
    done = retention.housekeep(connection, ages)
    if done.expired or done.folded_days:
        log.info("%d demo plays expired, windows of %d days folded", done.expired or 0, done.folded_days)
