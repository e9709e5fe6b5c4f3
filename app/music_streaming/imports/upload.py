"""The import of a file that a browser has sent, in a process of its own: it costs the server no time.

The scrobble server starts it, with the file as standard input. To standard output it writes JSON objects, one
a line: {"said": sentence} now and then, at the end {"report": sentences} (report.py) or {"error": sentence}.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any
from zoneinfo import ZoneInfo

import click
import psycopg2

from music_streaming.error import MusicError, database_error
from music_streaming.imports import importer
from music_streaming.imports.importer import Reports
from music_streaming.imports.plays import printable
from music_streaming.settings import Role, Settings

SAY_SECONDS = 1.0


def tell(**what: Any) -> None:
    """One line for the server."""
    print(json.dumps(what), flush=True)


def _now_and_then() -> Callable[[str], None]:
    said = float("-inf")

    def say(sentence: str) -> None:
        nonlocal said
        if time.monotonic() - said >= SAY_SECONDS:
            said = time.monotonic()
            tell(said=sentence)

    return say


@click.command()
@click.argument("listener")
@click.argument("called")
@click.option("--timezone", default="")
@click.option("--dry-run", is_flag=True)
def main(listener: str, called: str, *, timezone: str, dry_run: bool) -> None:
    """Import standard input, a file CALLED so in the browser, as plays of LISTENER."""
    say = _now_and_then()
    try:
        report = importer.run(
            Settings.load(),
            "-",
            stdin=sys.stdin.buffer,
            called=printable(called),
            name=listener,
            zone=ZoneInfo(timezone) if timezone else None,
            dry_run=dry_run,
            reports=Reports(
                lambda done, total: say(f"read {done:,} of {total:,} bytes"),
                lambda now: say(f"{now.stored:,} of up to {now.expected:,} plays are in the tables"),
            ),
            role=Role.SCROBBLE,
        )
    except MusicError as error:
        tell(error=str(error))
    except psycopg2.Error as error:
        found = database_error(error)
        if found is None:
            raise
        tell(error=str(found))
    else:
        tell(report=report.sentences())


if __name__ == "__main__":
    main()
