"""`musicctl`, the command of a board: look at it, prove its numbers, ask its data, run the demo audience.

Modules are imported by the commands that need them, so that help and completion are quick.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn

import click

from music_streaming.error import MusicError

if TYPE_CHECKING:
    from rich.console import Console

    from music_streaming.board.validate import Sample
    from music_streaming.demo.backfill import Progress
    from music_streaming.settings import Settings

OWN_TRUTH = "own"
PRODUCER = "music-producer.service"
# Above the settings of Ansible's file, and kept over restarts; its next run leaves it alone.
RATE_FILE = Path("/etc/systemd/system/music-producer.service.d/rate.conf")

# Between two lines of progress where there is no terminal.
SAY_SECONDS = 10

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
dry_run = click.option("--check", "dry_run", is_flag=True, help="Say what would change, and change nothing.")
folder = click.argument("folder", type=click.Path(file_okay=False, path_type=Path), required=False)


class Commands(click.Group):
    """Shows what the owner can mend as one sentence instead of a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; MusicError and database errors end it with exit code 1."""
        try:
            return super().invoke(ctx)
        except MusicError as error:
            raise click.ClickException(str(error)) from None
        except Exception as error:
            if not type(error).__module__.startswith("psycopg2"):
                raise
            found = " ".join(str(error).split()) or type(error).__name__
            raise click.ClickException(
                f"PostgreSQL: found {found!r}, wanted an answer. "
                "Remedy: systemctl status music-postgres; journalctl -u music-postgres -n 50"
            ) from None


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="music-streaming")
def main() -> None:
    """Look after a music-streaming board. Settings: /etc/music/music.toml."""


def _settings() -> Settings:
    from music_streaming.settings import Settings  # noqa: PLC0415

    return Settings.load()


def _console() -> Console:
    from rich.console import Console  # noqa: PLC0415

    # Into a pipe or a file, lines must not be cut at 80 columns.
    return Console(width=None if os.isatty(1) else 200)


def _print_json(content: Any) -> None:
    def plain(value: Any) -> str:
        return value.isoformat() if isinstance(value, datetime) else str(value)

    click.echo(json.dumps(content, default=plain, ensure_ascii=False, indent=2))


def _print_changes(changes: list[str], *, as_json: bool) -> None:
    if as_json:
        _print_json({"changed": bool(changes), "changes": changes})
    else:
        click.echo("\n".join(f"changed: {change}" for change in changes) or "unchanged")


@main.command()
@as_json
def status(as_json: bool) -> None:
    """Units, lag, freshness, totals and disk; exit code 1 when something is wrong."""
    from music_streaming.board.status import collect, show  # noqa: PLC0415

    settings = _settings()
    found = collect(settings)
    if as_json:
        _print_json(found.to_dict())
    else:
        show(found, settings, _console())
    raise SystemExit(0 if found.healthy else 1)


@main.command()
@as_json
@click.option("--samples", type=click.IntRange(min=1), default=1, help="Check that many times.")
@click.option("--interval", type=click.FloatRange(min=0), default=1.0, help="Seconds between two samples.")
@click.option(
    "--truth",
    is_flag=False,
    flag_value=OWN_TRUTH,
    metavar="[FILE]",
    help="Compare with the truth file of a generated history instead; by default that of this board.",
)
def validate(as_json: bool, samples: int, interval: float, truth: str | None) -> None:
    """Prove the numbers: the checks of the data as a table; exit code 1 when one does not hold."""
    from music_streaming.board.validate import compare_with_truth  # noqa: PLC0415
    from music_streaming.board.validate import validate as sample  # noqa: PLC0415

    settings = _settings()
    path = _truth_file(settings, truth) if truth else None
    taken: list[Sample] = []
    for number in range(samples):
        if number:
            time.sleep(interval)
        taken.append(compare_with_truth(settings, path) if path else sample(settings))
        if samples > 1 and not as_json:
            click.echo(f"{taken[-1].at:%F %T} {'ok' if taken[-1].ok else 'not ok'}")
    exact = sum(item.ok for item in taken)
    # The last sample is shown in full, unless an earlier one is the one to look at.
    shown = next((item for item in taken if not item.ok), taken[-1])
    if as_json:
        _print_json(shown.to_dict() | {"ok": exact == samples, "samples": samples, "samples_ok": exact})
    else:
        _show_checks(shown)
        click.echo(f"{exact} of {samples} samples ok")
    raise SystemExit(0 if exact == samples else 1)


def _truth_file(settings: Settings, given: str) -> Path:
    from music_streaming.demo.backfill import truth_file  # noqa: PLC0415

    path = truth_file(settings) if given == OWN_TRUTH else Path(given)
    if not path.is_file():
        raise MusicError.of(
            "Truth",
            found=f"no file {path}",
            wanted="the truth file of a history",
            remedy="sudo musicctl demo backfill" if given == OWN_TRUTH else "correct the path",
        )
    return path


def _show_checks(sample: Sample) -> None:
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table("", "check", "found", "wanted")
    for check in sample.checks:
        word, style = ("ok", "green") if check.ok else ("not ok", "bold red")
        if check.note:
            word, style = "note", "yellow"
        table.add_row(Text(word, style=style), Text(check.name), Text(check.found), Text(check.wanted))
    _console().print(table)


@main.command()
@as_json
@click.option("--seconds", type=click.FloatRange(min=1), default=60.0, help="Most that each link may take.")
def trace(as_json: bool, seconds: float) -> None:
    """Follow one record through the flow and name the first broken link."""
    from music_streaming.board.trace import BrokenLinkError, Step  # noqa: PLC0415
    from music_streaming.board.trace import trace as follow  # noqa: PLC0415

    broken: BrokenLinkError | None = None
    try:
        steps = follow(_settings(), seconds=seconds)
    except BrokenLinkError as error:
        steps, broken = error.after, error

    def row(step: Step) -> dict[str, Any]:
        return {"link": step.link, "seen": step.seen, "milliseconds": round(step.seconds * 1000)}

    if as_json:
        content: dict[str, Any] = {"ok": broken is None, "steps": [row(step) for step in steps]}
        if broken:
            content |= {"broken": broken.link, "unit": broken.unit, "error": str(broken)}
        _print_json(content)
        raise SystemExit(0 if broken is None else 1)

    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table("link", "seen", "ms")
    for step in steps:
        table.add_row(Text(step.link), Text(step.seen), f"{step.seconds * 1000:.0f}")
    if steps:
        _console().print(table)
    if broken:
        click.echo(broken.journal(), err=True)
        raise click.ClickException(str(broken))


@main.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("--csv", is_flag=True, help="Rows as CSV without a header.")
@click.option("-c", "--command", "commands", multiple=True, metavar="SQL", help="Ask this and exit.")
@click.argument("psql_options", nargs=-1, type=click.UNPROCESSED)
def sql(csv: bool, commands: tuple[str, ...], psql_options: tuple[str, ...]) -> NoReturn:
    """Ask the database through the read-only role: psql, with any option of psql behind `--`."""
    from music_streaming.settings import Role  # noqa: PLC0415

    postgres = _settings().postgres
    program = shutil.which("psql")
    if program is None:
        raise MusicError.of(
            "psql",
            found="no such program",
            wanted="the client of PostgreSQL",
            remedy="sudo apt install postgresql-client",
        )
    arguments = ["--no-psqlrc", "--set=ON_ERROR_STOP=1", *(["--csv", "--tuples-only"] if csv else [])]
    arguments += [word for command in commands for word in ("-c", command)]
    # In the environment, which only root can read, and not among the arguments, which everybody can.
    environment = os.environ | {
        "PGHOST": postgres.host,
        "PGPORT": str(postgres.port),
        "PGDATABASE": postgres.database,
        "PGUSER": Role.READER,
        "PGPASSWORD": postgres.password(Role.READER).get_secret_value(),
        "PGAPPNAME": "musicctl-sql",
        "PGOPTIONS": "-c default_transaction_read_only=on -c TimeZone=UTC",
    }
    os.execve(program, ["psql", *arguments, *psql_options], environment)  # noqa: S606


@main.command()
@as_json
@dry_run
def topics(as_json: bool, dry_run: bool) -> None:
    """Create, grow and configure the topics as files/topics.yml and the settings say."""
    from music_streaming.topic import ensure_topics  # noqa: PLC0415

    _print_changes(ensure_topics(_settings(), dry_run=dry_run), as_json=as_json)


@main.command()
@as_json
@dry_run
def schema(as_json: bool, dry_run: bool) -> None:
    """Apply the migrations of files/schema that the database lacks."""
    from music_streaming.schema import migrate, pending  # noqa: PLC0415
    from music_streaming.settings import Role  # noqa: PLC0415

    settings = _settings()
    migrations = settings.paths.files / "schema"
    with settings.postgres.connection(Role.OWNER, application="musicctl-schema") as connection:
        if dry_run:
            changes = [migration.name for migration in pending(connection, migrations)]
        else:
            changes = migrate(connection, migrations)
    _print_changes(changes, as_json=as_json)


@main.command()
@as_json
def parts(as_json: bool) -> None:
    """Write a list of all parts with their licences (CycloneDX), where images or app have changed."""
    from music_streaming.board.sbom import write  # noqa: PLC0415

    _print_changes(write(_settings()), as_json=as_json)


@main.group()
def demo() -> None:
    """The demo audience: generated plays of the service music-producer."""


@demo.command()
def start() -> None:
    """Let it play."""
    _systemctl("start", PRODUCER)


@demo.command()
def stop() -> None:
    """Silence it, until `start` or the next boot."""
    _systemctl("stop", PRODUCER)


@demo.command()
@click.argument("per_second", type=click.FloatRange(0, 5000, min_open=True), required=False)
@click.option("--reset", is_flag=True, help="Back to the rate of the settings.")
def rate(per_second: float | None, reset: bool) -> None:
    """Play PER_SECOND plays a second, from now on and after every boot."""
    if (per_second is None) == (not reset):
        raise click.UsageError("wanted a number of plays per second, or --reset")
    try:
        if reset:
            RATE_FILE.unlink(missing_ok=True)
        else:
            RATE_FILE.parent.mkdir(parents=True, exist_ok=True)
            RATE_FILE.write_text(
                "# Made by musicctl demo rate; musicctl demo rate --reset removes it.\n"
                f"[Service]\nEnvironment=MUSIC_PRODUCER__RATE={per_second:g}\n",
                encoding="utf-8",
            )
    except PermissionError:
        raise MusicError.of(
            "Rate of the demo",
            found=f"{RATE_FILE.parent} closed to this user",
            wanted="root",
            remedy="sudo musicctl demo rate ...",
        ) from None
    _systemctl("daemon-reload")
    _systemctl("try-restart", PRODUCER)


@demo.command()
@as_json
@dry_run
def backfill(as_json: bool, dry_run: bool) -> None:
    """Send the history of the settings ([producer] history_days), once; safe to repeat when cut off."""
    from music_streaming.demo.backfill import backfill as send  # noqa: PLC0415

    with _progress(quiet=as_json or dry_run) as report:
        changes = send(_settings(), report, dry_run=dry_run)
    _print_changes(changes, as_json=as_json)


@contextlib.contextmanager
def _progress(*, quiet: bool) -> Iterator[Callable[[Progress], None]]:
    """Shows how far a back-fill is: bars on a terminal, else a line now and then, on standard error."""
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import BarColumn, MofNCompleteColumn, TimeElapsedColumn  # noqa: PLC0415
    from rich.progress import Progress as Bars  # noqa: PLC0415

    if quiet:
        yield lambda _: None
        return
    if not os.isatty(2):
        said = time.monotonic()

        def say(now: Progress) -> None:
            nonlocal said
            if time.monotonic() - said >= SAY_SECONDS:
                said = time.monotonic()
                click.echo(f"{now.stored:,} of about {now.expected:,} plays are in the tables", err=True)

        yield say
        return
    columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Bars(*columns, console=Console(stderr=True)) as bars:
        sent, stored = bars.add_task("in Kafka"), bars.add_task("in the tables")

        def draw(now: Progress) -> None:
            bars.update(sent, completed=now.sent, total=now.expected)
            bars.update(stored, completed=now.stored, total=now.expected)

        yield draw


@demo.command()
@click.confirmation_option(prompt="Remove every play of the demo, its history too?", help="Do not ask.")
def remove() -> None:
    """Take away every play of the demo, raw and metrics; real plays stay.

    Stops the producer first. What was rejected or came twice stays counted: that says something of records,
    not of plays.
    """
    from music_streaming.demo.removal import remove as take_away  # noqa: PLC0415

    _systemctl("stop", PRODUCER)
    click.echo(f"stopped {PRODUCER}")
    click.echo(f"removed {take_away(_settings()):,} plays of the demo")
    click.echo(
        "It begins anew with `musicctl demo start`, the next boot, or site.yml; "
        "pipeline_producer_enabled: false in the inventory keeps it away."
    )


@demo.command("export")
@click.argument("file", type=click.File("wb", atomic=True), default="-")
@click.option("--from", "start", type=click.DateTime(), required=True, help="First hour, UTC.")
@click.option("--until", "end", type=click.DateTime(), required=True, help="Hour behind the last, UTC.")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=42, show_default=True)
@click.option("--listeners", type=click.IntRange(1, 1_000_000), default=2_000, show_default=True)
@click.option("--to", type=click.Choice(["jsonl"]), expose_value=False, help="JSON, one play a line.")
def export_demo(file: BinaryIO, start: datetime, end: datetime, seed: int, listeners: int) -> None:
    """Write a generated data set to FILE, or to standard output; needs no board.

    The same options and version give the same bytes, on any day and machine.
    """
    from music_streaming.demo.world import CLEAN, World, write_jsonl  # noqa: PLC0415

    start_ms, end_ms = (int(moment.replace(tzinfo=UTC).timestamp() * 1000) for moment in (start, end))
    if start_ms >= end_ms or start_ms % 3_600_000 or end_ms % 3_600_000:
        raise click.UsageError("wanted whole hours, --from before --until")
    write_jsonl(file, World(seed=seed, listeners=listeners).history(start_ms, end_ms, CLEAN))


def _systemctl(*arguments: str) -> None:
    # Without a password prompt: who may not, is told to use sudo.
    done = subprocess.run(
        ["systemctl", "--no-ask-password", *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode:
        sudo = "" if os.geteuid() == 0 else "sudo musicctl demo ...; "
        raise MusicError.of(
            f"systemctl {' '.join(arguments)}",
            found=done.stderr.strip() or f"exit code {done.returncode}",
            wanted="success",
            remedy=f"{sudo}systemctl status {PRODUCER}",
        )


@main.group()
def dashboards() -> None:
    """The shipped dashboards, as code."""


def _dashboards_folder(settings: Settings, folder: Path | None) -> Path:
    return folder or settings.paths.files / "dashboards"


@dashboards.command("import")
@folder
@as_json
@click.option("--force", is_flag=True, help="Import even when everything is as shipped.")
def import_(folder: Path | None, as_json: bool, force: bool) -> None:
    """Bring the dashboards of FOLDER into Superset; people's own are left alone."""
    from music_streaming.dashboards.bundle import import_bundle  # noqa: PLC0415

    settings = _settings()
    done = import_bundle(settings, _dashboards_folder(settings, folder), force=force)
    if as_json:
        counts = {"counts": done.counts, "removed": list(done.removed)}
        _print_json({"changed": done.changed, "why": done.why} | counts)
    else:
        removed = f"; removed {', '.join(done.removed)}" if done.removed else ""
        click.echo(f"{'changed' if done.changed else 'unchanged'}: {done.why}{removed}")


@dashboards.command()
@folder
def export(folder: Path | None) -> None:
    """Write what was edited in Superset back to FOLDER."""
    from music_streaming.dashboards.bundle import export_bundle  # noqa: PLC0415

    settings = _settings()
    paths = export_bundle(settings, _dashboards_folder(settings, folder))
    click.echo("\n".join(f"changed: {path}" for path in paths) or "unchanged")


@dashboards.command()
@folder
def lint(folder: Path | None) -> None:
    """Find mistakes in the files of FOLDER; exit code 1 when there are any."""
    from music_streaming.dashboards import bundle  # noqa: PLC0415
    from music_streaming.dashboards import lint as linter  # noqa: PLC0415

    complaints = linter.lint(bundle.load(folder or _dashboards_folder(_settings(), None)))
    for complaint in complaints:
        click.echo(complaint)
    raise SystemExit(1 if complaints else 0)


@dashboards.command()
@click.argument("slug", default="music-live")
@as_json
def check(slug: str, as_json: bool) -> None:
    """Ask every chart of dashboard SLUG for its data; exit code 1 when one fails or none has rows."""
    from dataclasses import asdict  # noqa: PLC0415

    from music_streaming.dashboards.bundle import ask_charts  # noqa: PLC0415

    settings = _settings()
    answers = ask_charts(settings, _dashboards_folder(settings, None), slug)
    good = not any(answer.error for answer in answers) and any(answer.rows for answer in answers)
    if as_json:
        _print_json({"ok": good, "charts": [asdict(answer) for answer in answers]})
    else:
        for answer in answers:
            click.echo(f"{answer.chart}: {answer.error or f'{answer.rows} rows'}")
    raise SystemExit(0 if good else 1)


if __name__ == "__main__":
    main()
