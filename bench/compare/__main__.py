"""`make bench`: the product beside its peers.

    make bench [ARGS="--plays 1000000 --runs 3 --only ours --only dicts --crash"]

Broker and database are the test kit's, with a board's durability; each run gets a database of its own and
reads the same topic from its start. Contenders take turns, so that a machine whose speed wanders does so for
all of them; the figures are medians. Every result is checked by SQL.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import click
from rich.console import Console

from compare import plays, report
from compare.contenders import BY_NAME, CONTENDERS, TOPIC
from compare.run import Result, run
from compare.services import services
from compare.setup import SetUpError

CACHE = Path(__file__).parents[2] / ".cache"


@click.command(help=__doc__)
@click.option("--plays", "count", default=1_000_000, show_default=True, help="Plays of the topic.")
@click.option("--runs", default=3, show_default=True, help="Of each contender.")
@click.option("--only", multiple=True, type=click.Choice([*BY_NAME]), help="These alone; can be repeated.")
@click.option("--crash", is_flag=True, help="Kill each once in mid-work and start it again.")
@click.option("--json", "path", type=Path, default=CACHE / "bench.json", help="Where every run is noted.")
def main(count: int, runs: int, only: tuple[str, ...], crash: bool, path: Path) -> None:
    # Broker, database and contender end with it, however it ends.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    console, missing = Console(), {}
    taking_part = [one for one in CONTENDERS if not only or one.name in only]
    for contender in taking_part:
        try:
            contender.prepare()
        except SetUpError as why:
            missing[contender.name] = str(why)
    taking_part = [one for one in taking_part if one.name not in missing]
    results: list[Result] = []
    with services() as at_work:
        console.print(f"Sending {count:,} plays")
        size = plays.load(at_work.broker.bootstrap, TOPIC, count)
        found = report.conditions(at_work, count, size, runs)
        console.print(found)
        for number in range(runs):
            for contender in taking_part:
                if crash and not contender.stores:
                    continue
                result = run(at_work, contender, TOPIC, count, crash=crash)
                results.append(result)
                verdict = result.failed or ("exact" if result.exact else f"wrong: {result.holds}")
                console.print(
                    f"{number + 1}/{runs} {contender.name}: {result.per_second:,.0f} plays/s, "
                    f"CPU {result.cpu}, {verdict if result.holds or result.failed else 'nothing stored'}"
                )
                report.save(path, found, results, missing)
    report.save(path, found, results, missing)
    # As wide as it is, where it goes into a file.
    (console if console.is_terminal else Console(width=150)).print(report.table(results, missing))


if __name__ == "__main__":
    main()
