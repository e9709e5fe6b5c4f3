"""The figures that the stories measured: kept as JSON lines, printed as a table at the end of `make test`."""

from __future__ import annotations

import json
import sys
import textwrap
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

CACHE = Path(__file__).parents[1] / ".cache"
FILE = CACHE / "figures.jsonl"
# Machines differ in speed, and in nothing else that is measured: a time fails at this many times its target.
SLOWEST = 2
# Characters of what a failed test said; the whole of it stands where the test ran.
MESSAGE = 600


def add(
    name: str, value: float, unit: str, *, at_most: float | None = None, at_least: float | None = None
) -> None:
    """Note one figure with its target; print_table says what a missed one costs."""
    FILE.parent.mkdir(exist_ok=True)
    with FILE.open("a", encoding="utf-8") as file:
        figure = {"name": name, "value": value, "unit": unit, "at_most": at_most, "at_least": at_least}
        file.write(json.dumps(figure) + "\n")


def noted() -> list[dict[str, Any]]:
    """All figures of this run, oldest first."""
    return (
        [json.loads(line) for line in FILE.read_text(encoding="utf-8").splitlines()] if FILE.exists() else []
    )


def add_run(seconds: float, built: int) -> None:
    """A run of site.yml with the check: the first on a bare board, then the second."""
    if any(figure["name"] == "second run" for figure in noted()):
        return
    if any("bare board" in str(figure["name"]) for figure in noted()):
        add("second run", seconds, "s", at_most=90)
    elif built:
        add(f"bare board to passing check, {built} images built", seconds / 60, "min", at_most=12)
    else:
        add("bare board to passing check, images from the cache", seconds / 60, "min", at_most=4)


def verdict(figure: dict[str, Any]) -> str:
    """What a figure is against its target: ok, missed or failed; empty for one that has none.

    Times (s, min) and speeds (a unit with /s) are missed at their target and failed only at SLOWEST times it;
    all others, such as memory and exactness, are failed at once.
    """
    value, unit = figure["value"], str(figure["unit"])
    slack = SLOWEST if unit in ("s", "min") or unit.endswith("/s") else 1
    words = set()
    if (most := figure["at_most"]) is not None:
        words.add("ok" if value <= most else "missed" if value <= slack * most else "failed")
    if (least := figure["at_least"]) is not None:
        words.add("ok" if value >= least else "missed" if value >= least / slack else "failed")
    # A value that is no number is neither above nor below.
    return next((word for word in ("failed", "missed", "ok") if word in words), "")


def print_table() -> None:
    """The table of figures, each failed test, and last one line that counts the tests of all parts.

    The program ends with 1 when a figure or a test failed, or when there was none.
    """
    figures = noted()
    table = Table(title="Figures")
    for column in ("figure", "target", "got", ""):
        table.add_column(column, justify="right" if column in ("target", "got") else "left")
    for figure in figures:
        most, least = figure["at_most"], figure["at_least"]
        target = f"<= {most}" if most is not None else f">= {least}" if least is not None else ""
        table.add_row(str(figure["name"]), target, f"{figure['value']:.4g} {figure['unit']}", verdict(figure))
    Console(width=120).print(table)
    lost = [str(figure["name"]) for figure in figures if verdict(figure) == "failed"]
    if lost:
        print(f"figures beyond what is allowed: {', '.join(lost)}")
    passed = failed = skipped = 0
    for report in sorted((CACHE / "junit").glob("*.xml")):
        root = ET.parse(report).getroot()  # noqa: S314  our own pytest wrote it
        for case in root.iter("testcase"):
            for wrong_part in (part for part in case if part.tag in ("failure", "error")):
                said = textwrap.shorten(wrong_part.get("message", ""), MESSAGE, placeholder=" ...")
                print(f"FAILED {case.get('classname')}::{case.get('name')}: {said}")
        for suite in root.iter("testsuite"):
            wrong = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
            left_out = int(suite.get("skipped", 0))
            passed += int(suite.get("tests", 0)) - wrong - left_out
            failed += wrong
            skipped += left_out
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    if lost or failed or not passed:
        sys.exit(1)


@click.command()
@click.option("--add-run", "seconds", type=float, help="Note the duration of a run of site.yml, in seconds.")
@click.option("--built", default=0, help="How many images that run built.")
def main(seconds: float | None, built: int) -> None:
    """Print the figures, or note the duration of a run."""
    if seconds is None:
        print_table()
    else:
        add_run(seconds, built)


if __name__ == "__main__":
    main()
