"""`musicctl dashboards`: the shipped dashboards, as code."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from music_streaming import terminal
from music_streaming.dashboards.bundle import load
from music_streaming.dashboards.lint import lint as find_mistakes
from music_streaming.dashboards.sync import ask_charts, export_bundle, import_bundle
from music_streaming.settings import Settings

folder_argument = click.argument("folder", type=click.Path(file_okay=False, path_type=Path), required=False)


@click.group()
def dashboards() -> None:
    """The shipped dashboards, as code."""


def _shipped(settings: Settings) -> Path:
    return settings.paths.files / "dashboards"


@dashboards.command("import")
@folder_argument
@terminal.as_json
@click.option("--force", is_flag=True, help="Import even when everything is as shipped.")
def import_(folder: Path | None, as_json: bool, force: bool) -> None:
    """Bring the dashboards of FOLDER into Superset; people's own are left alone."""
    settings = Settings.load()
    done = import_bundle(settings, folder or _shipped(settings), force=force)
    if as_json:
        counts = {"counts": done.counts, "removed": list(done.removed)}
        terminal.print_json({"changed": done.changed, "why": done.why} | counts)
    else:
        removed = f"; removed {', '.join(done.removed)}" if done.removed else ""
        click.echo(f"{'changed' if done.changed else 'unchanged'}: {done.why}{removed}")


@dashboards.command()
@folder_argument
def export(folder: Path | None) -> None:
    """Write what was edited in Superset back to FOLDER."""
    settings = Settings.load()
    paths = export_bundle(settings, folder or _shipped(settings))
    click.echo("\n".join(f"changed: {path}" for path in paths) or "unchanged")


@dashboards.command()
@folder_argument
def lint(folder: Path | None) -> None:
    """Find mistakes in the files of FOLDER; exit code 1 when there are any."""
    complaints = find_mistakes(load(folder or _shipped(Settings.load())))
    for complaint in complaints:
        click.echo(complaint)
    raise SystemExit(1 if complaints else 0)


@dashboards.command()
@click.argument("slug", default="music-live")
@terminal.as_json
def check(slug: str, as_json: bool) -> None:
    """Ask every chart of dashboard SLUG for its data; exit code 1 when one fails or none has rows."""
    settings = Settings.load()
    answers = ask_charts(settings, _shipped(settings), slug)
    good = not any(answer.error for answer in answers) and any(answer.rows for answer in answers)
    if as_json:
        terminal.print_json({"ok": good, "charts": [asdict(answer) for answer in answers]})
    else:
        for answer in answers:
            click.echo(f"{answer.chart}: {answer.error or f'{answer.rows} rows'}")
    raise SystemExit(0 if good else 1)
