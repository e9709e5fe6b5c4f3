"""Migrations: the numbered SQL files of files/schema, applied once, in order, each in its own transaction."""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from music_streaming import terminal
from music_streaming.error import MusicError
from music_streaming.settings import Role, Settings

_FILE_NAME = re.compile(r"\d{3}_[a-z0-9_]+\.sql")
# Any number, but the same one in every version of this program.
_LOCK = 7_306_541_902

_RECORD = """
CREATE TABLE IF NOT EXISTS schema_migrations (
    name       text PRIMARY KEY,
    sha256     text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
)"""


class SchemaError(MusicError):
    """Migrations that do not fit the database."""


@dataclass(frozen=True)
class Migration:
    """One file of files/schema: name, sha256 of its bytes, and the SQL."""

    name: str
    sha256: str
    sql: str


def migrations(folder: Path) -> list[Migration]:
    """The migrations in folder, in order; SchemaError unless the numbers are 001, 002, 003 and so on."""
    found = sorted(folder.glob("*.sql"))
    if not found:
        raise SchemaError.of(
            "Schema",
            found=f"no *.sql in {folder}",
            wanted="the numbered migrations",
            remedy="correct [paths] files.",
        )
    for number, path in enumerate(found, 1):
        if not _FILE_NAME.fullmatch(path.name) or int(path.name[:3]) != number:
            raise SchemaError.of(
                "Schema",
                found=f"migration {path.name}",
                wanted=f"{number:03d}_<what>.sql",
                remedy="rename it: the numbers have no hole.",
            )
    return [
        Migration(path.name, hashlib.sha256(content).hexdigest(), content.decode())
        for path in found
        for content in [path.read_bytes()]
    ]


def pending(connection: Any, folder: Path) -> list[Migration]:
    """The migrations of folder that the database lacks, in order; read only.

    SchemaError where the database is of another line of files than the folder: made before the first release,
    by a file that was edited since, or by a newer version.
    """
    wanted = migrations(folder)
    with connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass('public.schema_migrations') IS NOT NULL")
        applied: dict[str, str] = {}
        if cursor.fetchone()[0]:
            cursor.execute("SELECT name, sha256 FROM public.schema_migrations ORDER BY name")
            applied = dict(cursor.fetchall())
    _refuse_another_line(wanted, applied, folder)
    missing = [migration for migration in wanted if migration.name not in applied]
    if missing and applied and missing[0].name < max(applied):
        raise SchemaError.of(
            "Schema",
            found=f"{missing[0].name} not applied although {max(applied)} is",
            wanted="migrations applied in order",
            remedy="give it the next free number.",
        )
    return missing


def _refuse_another_line(wanted: list[Migration], applied: dict[str, str], folder: Path) -> None:
    edited = [one for one in wanted if applied.get(one.name, one.sha256) != one.sha256]
    unknown = sorted(set(applied) - {migration.name for migration in wanted})
    if edited and unknown:
        raise SchemaError.of(
            "Schema",
            found=f"a database made by other files of the same numbers ({edited[0].name} differs, "
            f"{', '.join(unknown)} not in {folder}), as every version before 0.1.0 made it",
            wanted=f"one made by {wanted[0].name} to {wanted[-1].name}, or an empty one",
            remedy="nothing was changed. No version before 0.1.0 was released, so nothing carries its data "
            "over: ansible-playbook playbooks/remove.yml -e remove_data=true, then run site.yml.",
        )
    if edited:
        raise SchemaError.of(
            "Schema",
            found=f"{edited[0].name} edited after it was applied (sha256 {edited[0].sha256[:12]})",
            wanted=f"sha256 {applied[edited[0].name][:12]}",
            remedy="restore the file and put the change into a new numbered one.",
        )
    if unknown:
        raise SchemaError.of(
            "Schema",
            found=f"{', '.join(unknown)} applied to the database but not in {folder}",
            wanted=f"a database no newer than {wanted[-1].name}",
            remedy="install the newer version that made it, or restore the backup taken before it.",
        )


def migrate(connection: Any, folder: Path) -> list[str]:
    """Apply what is pending, as music_owner (owner of the database); returns the names applied.

    Extension hll must exist: only a superuser can create it. Two runs at once wait for each other. A file
    that fails leaves nothing behind, and the files before it stay applied.
    """
    with connection, connection.cursor() as cursor:
        # Before the transaction's own table: CREATE TABLE IF NOT EXISTS can still collide between two runs.
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
        cursor.execute("SELECT count(*) FROM pg_extension WHERE extname = 'hll'")
        if cursor.fetchone()[0] != 1:
            raise SchemaError.of(
                "Schema",
                found="no extension hll in the database",
                wanted="the extension, which only a superuser can create",
                remedy="run the play (site.yml), or as superuser: CREATE EXTENSION hll",
            )
        cursor.execute("SET LOCAL client_min_messages = warning")
        cursor.execute(_RECORD)
    applied: list[str] = []
    while True:
        with connection, connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
            missing = pending(connection, folder)
            if not missing:
                return applied
            cursor.execute("SET LOCAL search_path = public")
            cursor.execute(missing[0].sql)
            cursor.execute(
                "INSERT INTO public.schema_migrations (name, sha256) VALUES (%s, %s)",
                (missing[0].name, missing[0].sha256),
            )
            applied.append(missing[0].name)


@click.command()
@terminal.as_json
@terminal.dry_run
def schema(as_json: bool, dry_run: bool) -> None:
    """Apply the migrations of files/schema that the database lacks."""
    settings = Settings.load()
    folder = settings.paths.files / "schema"
    with settings.postgres.connection(Role.OWNER, application="musicctl-schema") as connection:
        if dry_run:
            changes = [migration.name for migration in pending(connection, folder)]
        else:
            changes = migrate(connection, folder)
    terminal.print_changes(changes, as_json=as_json)
