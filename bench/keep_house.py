"""How fresh live plays stay while demo plays expire and windows fold, all parts on this machine.

    PYTHONPATH=app .venv/bin/python bench/keep_house.py [--days 13] [--rate 20]

A history of the demo audience is sent, then all but its newest days folded to hours and days and its oldest
days expired, as the job does it a day at a time. Prints seconds of each, and how old live plays are when
their row is committed: before it, and meanwhile.
"""

from __future__ import annotations

import contextlib
import sys
import time

import click

from import_flow import tell_ages, warm_up
from music_streaming import retention
from music_streaming.demo.backfill import backfill
from music_streaming.testing.trial.services import Flow, flow

HOURS_AFTER, DAYS_AFTER = 2, 5


def measure(parts: Flow, days: int) -> None:
    database = parts.database
    warm_up(parts)
    print(*backfill(parts.settings.with_changes(producer={"history_days": days})))
    quiet = database.value("SELECT now()")
    time.sleep(60)
    begun = database.value("SELECT now()")
    with contextlib.closing(database.connect("music_writer")) as connection:
        for what, wanted in {
            "expired": retention.Ages(days - 1),
            "folded": retention.Ages(days - 1, HOURS_AFTER, DAYS_AFTER),
        }.items():
            clock, expired, folded = time.perf_counter(), 0, 0
            while (done := retention.housekeep(connection, wanted)).expired or done.folded_days:
                expired, folded = expired + (done.expired or 0), folded + done.folded_days
            seconds = time.perf_counter() - clock
            print(f"{what} in {seconds:.1f} s: {expired:,} plays expired, windows of {folded} days folded")
    tell_ages(database, quiet, begun, database.value("SELECT now()"))


@click.command(help=__doc__)
@click.option("--days", default=13, show_default=True, help="Days of history.")
@click.option("--rate", default=20.0, show_default=True, help="Live plays a second.")
def main(days: int, rate: float) -> None:
    with flow(rate, print) as parts:
        measure(parts, days)
        sys.exit(parts.validate())


if __name__ == "__main__":
    main()
