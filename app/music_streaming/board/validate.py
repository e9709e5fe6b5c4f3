"""Is every number that the dashboards show the right one? Asks the questions of files/validation.

Each file is one question: a SELECT whose rows are checks, with the columns name, ok, found, wanted and, where
a row is only worth knowing, note. All see one snapshot, so that they hold in the middle of the stream. The
read-only role suffices, and psql runs the files as they are.

Counted are the hours and days that are open; for all others stands what housekeeping proved when they closed.
A full validation counts every row again, month by month.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from music_streaming.error import MusicError
from music_streaming.settings import Settings
from music_streaming.snapshot import Row, Snapshot, snapshot

# Of one statement; longer than dashboards may take, whose role it is.
SECONDS, FULL_SECONDS = 120, 3600

Progress = Callable[[int, int], None]

_MONTHS = "SELECT DISTINCT month_start(starts) AS month FROM ingest_periods ORDER BY 1"
_RECOUNT = """
SELECT source, count(*) AS periods, sum(present)::bigint AS present,
       sum(user_engagement)::bigint AS user_engagement, sum(geographic)::bigint AS geographic,
       sum(device_usage)::bigint AS device_usage,
       sum(content_performance)::bigint AS content_performance,
       count(*) FILTER (
           -- Of generated plays the oldest hour or day may be there in parts.
           WHERE (source <> 'demo' OR starts >= first_day::timestamp AT TIME ZONE 'UTC')
           AND NOT accepted = ALL (
               ARRAY[present, user_engagement, geographic, device_usage, content_performance])
       ) AS differing
FROM ingest_recounts CROSS JOIN demo_first_day
WHERE starts >= %(month)s AND starts < month_ceiling(%(month)s + interval '1 hour')
GROUP BY source"""
_EVERY_ROW = """
SELECT t.source, coalesce(e.n, 0) AS present, coalesce(u.n, 0) AS user_engagement,
       coalesce(g.n, 0) AS geographic, coalesce(d.n, 0) AS device_usage,
       coalesce(c.n, 0) AS content_performance
FROM ingest_totals t
LEFT JOIN (SELECT source, count(*) AS n FROM stream_events GROUP BY source) e USING (source)
LEFT JOIN (
    SELECT source, sum(streams)::bigint AS n FROM user_engagement_metrics GROUP BY source
) u USING (source)
LEFT JOIN (
    SELECT source, sum(streams)::bigint AS n FROM geographic_metrics GROUP BY source
) g USING (source)
LEFT JOIN (
    SELECT source, sum(streams)::bigint AS n FROM device_usage_metrics GROUP BY source
) d USING (source)
LEFT JOIN (
    SELECT source, sum(streams)::bigint AS n FROM content_performance GROUP BY source
) c USING (source)
ORDER BY t.source"""


@dataclass(frozen=True)
class Check:
    """One answer to a question. A note is information and never a failure."""

    name: str
    ok: bool
    found: str
    wanted: str
    note: bool = False


@dataclass(frozen=True)
class Sample:
    """All checks of one snapshot, taken at `at`."""

    at: datetime
    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """Every check holds."""
        return all(check.ok for check in self.checks)

    def to_dict(self) -> dict[str, Any]:
        """For --json."""
        return {"at": self.at, "ok": self.ok, "checks": [asdict(check) for check in self.checks]}


def questions(folder: Path) -> list[Path]:
    """The files of files/validation in their order, the equality that the appliance promises first."""
    found = sorted(folder.glob("*.sql"))
    if not found:
        raise MusicError.of(
            "Validation",
            found=f"no *.sql in {folder}",
            wanted="the validation queries",
            remedy="correct [paths] files.",
        )
    return found


def validate(settings: Settings, *, full: bool = False, progress: Progress | None = None) -> Sample:
    """Ask every question once; psycopg2.Error when the database does not answer.

    full: count all, whatever was proved before. progress: is told how many steps of how many are done.
    """
    files = questions(settings.paths.files / "validation")
    with snapshot(settings, "musicctl-validate") as seen:
        limit = FULL_SECONDS if full else SECONDS
        seen.rows("SELECT set_config('statement_timeout', %(limit)s, true)", {"limit": f"{limit}s"})
        seen.rows("SELECT set_config('jit', 'off', true)")
        at = seen.row("SELECT now()")["now"].astimezone(UTC)
        seen.rows(
            "SELECT set_config('music.future_tolerance_seconds', %(seconds)s, true)",
            {"seconds": str(settings.stream.future_tolerance_seconds)},
        )
        if not full:
            return Sample(at, tuple(check for file in files for check in _checks(seen, file)))
        return Sample(at, tuple(_count_all(seen, files, progress or (lambda _done, _all: None))))


def _count_all(seen: Snapshot, files: list[Path], tell: Progress) -> list[Check]:
    seen.rows("SELECT set_config('music.validate_full', 'on', true)")
    months = [row["month"] for row in seen.rows(_MONTHS)]
    steps = len(months) + len(files) + 1
    checks: list[Check] = []
    recounted: list[Row] = []
    for done, month in enumerate(months, 1):
        recounted += seen.rows(_RECOUNT, {"month": month})
        tell(done, steps)
    checks += _recounted(recounted, seen.rows(_EVERY_ROW))
    for done, file in enumerate(files, len(months) + 1):
        tell(done, steps)
        checks += _checks(seen, file)
    tell(steps, steps)
    return checks


def _recounted(months: list[Row], tables: list[Row]) -> Iterator[Check]:
    for table in tables:
        parts = [month for month in months if month["source"] == table["source"]]
        sides = ("present", "user_engagement", "geographic", "device_usage", "content_performance")
        outside = {side: table[side] - sum(month[side] for month in parts) for side in sides}
        differing = sum(month["differing"] for month in parts)
        told = ", ".join(f"{side} {number:,}" for side, number in outside.items() if number)
        yield Check(
            f"{table['source']}: every hour and day, counted again, agrees in all tables",
            not differing and not told,
            f"{differing:,} of {sum(month['periods'] for month in parts):,} differ"
            + (f", outside of any: {told}" if told else ""),
            "0 differ",
        )


def _checks(seen: Snapshot, file: Path) -> Iterator[Check]:
    for row in seen.rows(file.read_text(encoding="utf-8")):
        yield Check(**row)
