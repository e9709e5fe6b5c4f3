"""`musicctl backup` and `musicctl restore`."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import click
from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars
from rich.table import Table

from music_streaming import terminal
from music_streaming.backup import contents, copying, place, restoring, taking
from music_streaming.backup.archive import BackupError, Manifest
from music_streaming.settings import Settings

passphrase_options = [
    click.option("--passphrase", "ask", is_flag=True, help="Ask for the passphrase of the secrets."),
    click.option(
        "--passphrase-file",
        type=click.File("r"),
        help="Read it from the first line of a file; - is standard input.",
    ),
]


@click.command()
@click.argument("place_", metavar="[PLACE]", required=False)
@click.option("--list", "listing", is_flag=True, help="Show the backups that are there.")
@click.option("--verify", metavar="FILE", help="Restore FILE beside, compare every table, and say so.")
@click.option("--rotate", is_flag=True, help="Then remove older ones, as the settings say.")
@passphrase_options[0]
@passphrase_options[1]
@terminal.as_json
def backup(
    place_: str | None,
    *,
    listing: bool,
    verify: str | None,
    rotate: bool,
    ask: bool,
    passphrase_file: IO[str] | None,
    as_json: bool,
) -> None:
    """Back up both databases, settings and secrets into one file at PLACE: a folder, or label:DISK."""
    settings = Settings.load()
    where = place_ or settings.backup.place
    if listing:
        _list(where, as_json=as_json)
    elif verify:
        with _progress(quiet=as_json) as progress, _file(verify, where) as path:
            manifest = taking.verify(settings, path, progress)
        _say_verified(manifest, path, as_json=as_json)
    else:
        passphrase = _passphrase(settings, ask=ask, file=passphrase_file, twice=True)
        with _progress(quiet=as_json) as progress:
            taken = taking.take(settings, where, passphrase=passphrase, rotate=rotate, progress=progress)
        copied = ""
        if settings.backup.copy_to and not place_:
            with place.opened(where) as folder:
                copied = copying.copy(settings, folder, [path.name for path in taken.removed])
        _say_taken(taken, copied, as_json=as_json)


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--over", is_flag=True, help="Replace what the databases of this board hold.")
@click.option("--without-secrets", is_flag=True, help="Keep this board's secrets.")
@click.option("--secrets-only", is_flag=True, help="Only the secrets, before there is a database.")
@passphrase_options[0]
@passphrase_options[1]
@terminal.dry_run
@terminal.as_json
def restore(
    file: Path,
    *,
    over: bool,
    without_secrets: bool,
    secrets_only: bool,
    ask: bool,
    passphrase_file: IO[str] | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Bring back the backup FILE. A step of playbooks/restore.yml, which stops and starts the services."""
    settings = Settings.load()
    passphrase = _passphrase(settings, ask=ask, file=passphrase_file, twice=False)
    with _progress(quiet=as_json) as progress:
        changes = restoring.restore(
            settings,
            file,
            passphrase=passphrase,
            over=over,
            without_secrets=without_secrets,
            secrets_only=secrets_only,
            dry_run=dry_run,
            progress=progress,
        )
    terminal.print_changes(changes, as_json=as_json)


def _passphrase(settings: Settings, *, ask: bool, file: IO[str] | None, twice: bool) -> str | None:
    """What was asked for or is in the file named; else the board's own, if it has one."""
    if file is not None:
        return file.readline().rstrip("\n") or None
    if ask:
        return str(click.prompt("Passphrase", hide_input=True, confirmation_prompt=twice, err=True))
    try:
        text = (settings.postgres.secrets_dir / contents.PASSPHRASE).read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except PermissionError:
        raise BackupError.of(
            "Backup", found="another user than root", wanted="root", remedy="sudo musicctl backup"
        ) from None
    return text.rstrip("\n") or None


@contextlib.contextmanager
def _file(given: str, where: str) -> Iterator[Path]:
    """A path, or the name of a backup at the place."""
    if "/" in given or Path(given).exists():
        yield Path(given)
    else:
        with place.opened(where) as folder:
            yield folder / given


def _list(where: str, *, as_json: bool) -> None:
    with place.opened(where) as folder:
        found = place.kept(folder)
    if as_json:
        terminal.print_json(
            [{"file": item.path, "board": item.board, "at": item.at, "bytes": item.size} for item in found]
        )
        return
    table = Table("file", "board", "taken (UTC)", title=f"Backups in {folder}", title_justify="left")
    table.add_column("MB", justify="right")
    for item in found:
        table.add_row(item.path.name, item.board, f"{item.at:%F %H:%M}", f"{item.size / 1e6:,.1f}")
    terminal.console().print(table)


def _say_taken(taken: taking.Taken, copied: str, *, as_json: bool) -> None:
    if as_json:
        terminal.print_json(vars(taken) | {"copied_to": copied})
        return
    click.echo(f"{taken.path}: {taken.size / 1e6:,.1f} MB in {taken.seconds:,.0f} s, read back and whole")
    if not taken.secrets:
        click.echo(
            "secrets: left out, as there is no passphrase to encrypt them with (setting backup_passphrase, "
            "or --passphrase); a restored board makes new ones"
        )
    for path in taken.removed:
        click.echo(f"removed: {path}")
    if copied:
        click.echo(f"copied to {copied}")


def _say_verified(manifest: Manifest, path: Path, *, as_json: bool) -> None:
    tables = {name: len(database.tables) for name, database in manifest.databases.items()}
    rows = {
        name: sum(found.rows for found in database.tables.values())
        for name, database in manifest.databases.items()
    }
    if as_json:
        terminal.print_json({"file": path, "at": manifest.at, "tables": tables, "rows": rows, "ok": True})
        return
    click.echo(f"{path}, taken {manifest.at:%F %H:%M} UTC on {manifest.board}: whole")
    for name, count in tables.items():
        click.echo(f"{name}: {count} tables with {rows[name]:,} rows, restored beside, each equal")


@contextlib.contextmanager
def _progress(*, quiet: bool) -> Iterator[taking.Progress]:
    """Bars on a terminal, else a line for each step, on standard error."""
    if quiet:
        yield lambda *_: None
    elif not os.isatty(2):
        seen: set[str] = set()

        def say(name: str, done: int, total: int) -> None:
            if name not in seen:
                seen.add(name)
                print(name, file=sys.stderr, flush=True)

        yield say
    else:
        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
        with Bars(*columns, console=Console(stderr=True)) as bars:
            tasks: dict[str, object] = {}

            def draw(name: str, done: int, total: int) -> None:
                if name not in tasks:
                    tasks[name] = bars.add_task(name, total=total or None)
                bars.update(tasks[name], completed=done, total=total or None)  # type: ignore[arg-type]

            yield draw
