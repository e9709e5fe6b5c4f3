"""`musicctl`, the command of a board: look at it, prove its numbers, ask its data, run the demo audience.

Every command lives with its subject; this is the list of them, and what an error looks like.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import click

from music_streaming.error import MusicError, database_error
from music_streaming.terminal import Lazy, LazyGroup

if TYPE_CHECKING:
    import psycopg2

BOARD, DEMO, DASHBOARDS = (f"music_streaming.{wing}.commands" for wing in ("board", "demo", "dashboards"))
SCROBBLE = "music_streaming.scrobble.commands"
IMPORTS = "music_streaming.imports.commands"
BACKUP = "music_streaming.backup.commands"
COMMANDS = {
    "status": Lazy(
        f"{BOARD}.status:status",
        "Units, lag, freshness, totals and disk; exit code 1 when something is wrong.",
    ),
    "validate": Lazy(
        f"{BOARD}.validate:validate",
        "Prove the numbers: the checks of the data as a table; exit code 1 when one does not hold.",
    ),
    "trace": Lazy(
        f"{BOARD}.trace:trace", "Follow one record through the flow and name the first broken link."
    ),
    "doctor": Lazy(
        f"{BOARD}.doctor:doctor",
        "Name the first broken link from the board to its network, and how to mend it.",
    ),
    "health": Lazy(
        f"{BOARD}.health:health",
        "How the board is, red first, each with the command to type; exit code 1 when something is red.",
    ),
    "support": Lazy(
        f"{BOARD}.support:support",
        "Write one archive for whoever helps into FOLDER, without secrets; look into it before you send it.",
    ),
    "clock": Lazy(f"{BOARD}.clock:clock", "Is the clock right, and which plays are dated ahead of it?"),
    "sql": Lazy(
        f"{BOARD}.sql:sql",
        "Ask the database through the read-only role: psql, with any option of psql behind `--`.",
    ),
    "sbom": Lazy(
        f"{BOARD}.sbom:sbom",
        "Write the software bill of materials (CycloneDX), where images or app have changed.",
    ),
    "topics": Lazy(
        "music_streaming.topic:topics",
        "Create, grow and configure the topics as files/topics.yml and the settings say.",
    ),
    "schema": Lazy(
        "music_streaming.schema:schema", "Apply the migrations of files/schema that the database lacks."
    ),
    "listener": Lazy(f"{SCROBBLE}:listener", "Real listeners and the tokens of their players."),
    "demo": Lazy(f"{DEMO}:demo", "The demo audience: generated plays of the service music-producer."),
    "import": Lazy(
        f"{IMPORTS}:import_",
        "Add a listening history: an export of a streaming or scrobbling service, told by its content.",
    ),
    "export": Lazy(
        f"{IMPORTS}:export",
        "Write the plays of a listener to FILE, or to standard output: ListenBrainz listens, one a line.",
    ),
    "backup": Lazy(
        f"{BACKUP}:backup",
        "Back up both databases, settings and secrets into one file at PLACE: a folder, or label:DISK.",
    ),
    "restore": Lazy(
        f"{BACKUP}:restore",
        "Bring back the backup FILE. A step of playbooks/restore.yml, which stops and starts the services.",
    ),
    "dashboards": Lazy(f"{DASHBOARDS}:dashboards", "The shipped dashboards, as code."),
}


class Commands(LazyGroup):
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
            fault = database_error(cast("psycopg2.Error", error))
            # A mistake of the program is shown with its traceback.
            if fault is None:
                raise
            raise click.ClickException(str(fault)) from None


@click.group(cls=Commands, lazy=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="music-streaming")
def main() -> None:
    """Look after a music-streaming board. Settings: /etc/music/music.toml."""


if __name__ == "__main__":
    main()
