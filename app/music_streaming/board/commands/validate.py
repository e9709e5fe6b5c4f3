"""`musicctl validate`: the proof of the numbers; with --expected also against what the demo sent."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path

import click
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from music_streaming import terminal
from music_streaming.board.validate import Check, Sample
from music_streaming.board.validate import validate as take_sample
from music_streaming.error import MusicError
from music_streaming.settings import Settings

OWN_HISTORY = "own"


@click.command()
@terminal.as_json
@click.option("--samples", type=click.IntRange(min=1), default=1, help="Check that many times.")
@click.option("--interval", type=click.FloatRange(min=0), default=1.0, help="Seconds between two samples.")
@click.option(
    "--full", is_flag=True, help="Count every row again, not only what is open since the last proof."
)
@click.option(
    "--expected",
    is_flag=False,
    flag_value=OWN_HISTORY,
    metavar="[FILE]",
    help="Compare with the metrics expected of a generated history instead; by default that of this board.",
)
def validate(as_json: bool, samples: int, interval: float, full: bool, expected: str | None) -> None:
    """Prove the numbers: the checks of the data as a table; exit code 1 when one does not hold."""
    settings = Settings.load()
    path = _expected_file(settings, expected) if expected else None
    taken: list[Sample] = []
    for number in range(samples):
        if number:
            time.sleep(interval)
        taken.append(compare_with_expected(settings, path) if path else _sample(settings, full=full))
        if samples > 1 and not as_json:
            click.echo(f"{taken[-1].at:%F %T} {'ok' if taken[-1].ok else 'not ok'}")
    exact = sum(item.ok for item in taken)
    # The last sample is shown in full, unless an earlier one is the one to look at.
    shown = next((item for item in taken if not item.ok), taken[-1])
    if as_json:
        terminal.print_json(
            shown.to_dict() | {"ok": exact == samples, "samples": samples, "samples_ok": exact}
        )
    else:
        _show_checks(shown)
        click.echo(f"{exact} of {samples} samples ok")
    raise SystemExit(0 if exact == samples else 1)


def _sample(settings: Settings, *, full: bool) -> Sample:
    if not full:
        return take_sample(settings)
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("counting every row again", total=None)
        return take_sample(
            settings, full=True, progress=lambda done, of: bar.update(task, completed=done, total=of)
        )


def _expected_file(settings: Settings, given: str) -> Path:
    from music_streaming.demo.backfill import expected_file  # noqa: PLC0415  brings numpy and kafka

    path = expected_file(settings) if given == OWN_HISTORY else Path(given)
    if not path.is_file():
        raise MusicError.of(
            "Expected metrics",
            found=f"no file {path}",
            wanted="the expected metrics of a history",
            remedy="sudo musicctl demo backfill" if given == OWN_HISTORY else "correct the path",
        )
    return path


def compare_with_expected(settings: Settings, path: Path) -> Sample:
    """The comparison with the expected metrics in `path` as checks, one for each table and difference."""
    from music_streaming.demo.comparison import compare_tables  # noqa: PLC0415  brings numpy

    at = datetime.now(UTC)
    found = compare_tables(settings, path)
    made = [
        Check(
            f"{table}: equals the expected metrics",
            not found.differing[table] and found.listener_error[table] <= found.listener_tolerance,
            f"{found.differing[table]:,} of {found.rows[table]:,} rows differ, "
            f"listeners off by {found.listener_error[table]:.1%}",
            f"0 rows, at most {found.listener_tolerance:.0%}",
        )
        for table in found.rows
    ]
    made += [
        Check(f"{item.table} {' '.join(item.key)}: {item.column}", False, str(item.got), str(item.wanted))
        for item in found.differences
    ]
    return Sample(at, tuple(made))


def _show_checks(sample: Sample) -> None:
    table = Table("", "check", "found", "wanted")
    for check in sample.checks:
        word, style = ("ok", "green") if check.ok else ("not ok", "bold red")
        if check.note:
            word, style = "note", "yellow"
        table.add_row(Text(word, style=style), Text(check.name), Text(check.found), Text(check.wanted))
    terminal.console().print(table)
