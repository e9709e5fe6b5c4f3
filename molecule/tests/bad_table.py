"""Send good and bad events mixed to a board (bad_data.py), and print what was sent beside what was found:

.venv/bin/python molecule/tests/bad_table.py --board music
"""

from __future__ import annotations

import sys
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from conftest import Board


def table(seen: dict[str, Any]) -> tuple[Table, bool]:
    """One line for each kind of what was sent; whether all was found as it was sent."""
    sent, found = seen["sent"], seen["found"]
    duplicates = found.pop("duplicates")
    rows = [
        *((f"good, {name}", sent["good"], number) for name, number in found.items()),
        ("good, by title and artist", sent["good"], seen["streams"]),
        ("the one artist in two Unicode forms", 1, seen["artists"]),
        ("duplicates known as such", sent["duplicates"], duplicates),
        *(
            (f"bad, {reason}: right reason and bytes", number, seen["rejected_as_wanted"].get(reason, 0))
            for reason, number in sorted(seen["bad_by_reason"].items())
        ),
        ("bad, all", sent["bad"], sum(seen["rejected_as_wanted"].values())),
        ("restarts of the job", 0, seen["restarts"]),
    ]
    shown = Table(
        title=f"{sum(sent.values()):,} events in {seen['seconds']:.0f} s, {sent['tombstones']:,} of them tombstones"
    )
    shown.add_column("what")
    for column in ("sent", "found"):
        shown.add_column(column, justify="right")
    shown.add_column("")
    for what, wanted, number in rows:
        shown.add_row(what, f"{wanted:,}", f"{number:,}", "" if wanted == number else "not ok")
    return shown, all(wanted == number for _, wanted, number in rows)


@click.command()
@click.option("--board", "name", default="music", help="A board that is set up.")
@click.option("--events", default=1_000_000, help="How many to send.")
@click.option("--seed", default=1, help="Decides kinds and order.")
def main(name: str, events: int, seed: int) -> None:
    """Send good and bad events mixed, and count each one."""
    seen = Board(name).script_on_board("bad_data.py", str(events), str(seed), timeout=3600)
    shown, exact = table(seen)
    Console(width=100).print(shown)
    sys.exit(0 if exact else 1)


if __name__ == "__main__":
    main()
