"""`musicctl sql`: psql as the read-only role."""

from __future__ import annotations

import os
import shutil
from typing import NoReturn

import click

from music_streaming.error import MusicError
from music_streaming.settings import Role, Settings


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("--csv", is_flag=True, help="Rows as CSV without a header.")
@click.option("-c", "--command", "commands", multiple=True, metavar="SQL", help="Ask this and exit.")
@click.argument("psql_options", nargs=-1, type=click.UNPROCESSED)
def sql(csv: bool, commands: tuple[str, ...], psql_options: tuple[str, ...]) -> NoReturn:
    """Ask the database through the read-only role: psql, with any option of psql behind `--`."""
    postgres = Settings.load().postgres
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
