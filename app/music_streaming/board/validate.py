"""Is every number that the dashboards show the right one? Asks the questions of files/validation.

Each file is one question: a SELECT whose rows are checks, with the columns name, ok, found, wanted and, where
a row is only worth knowing, note. All see one snapshot, so that they hold in the middle of the stream. The
read-only role suffices, and psql runs the files as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from music_streaming.error import MusicError
from music_streaming.settings import Settings
from music_streaming.snapshot import Snapshot, snapshot


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


def validate(settings: Settings) -> Sample:
    """Ask every question once; psycopg2.Error when the database does not answer."""
    files = questions(settings.paths.files / "validation")
    with snapshot(settings, "musicctl-validate") as seen:
        at = seen.row("SELECT now()")["now"].astimezone(UTC)
        seen.rows(
            "SELECT set_config('music.future_tolerance_seconds', %(seconds)s, true)",
            {"seconds": str(settings.stream.future_tolerance_seconds)},
        )
        return Sample(at, tuple(check for file in files for check in _checks(seen, file)))


def _checks(seen: Snapshot, file: Path) -> Iterator[Check]:
    for row in seen.rows(file.read_text(encoding="utf-8")):
        yield Check(**row)
