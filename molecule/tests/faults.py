"""Faults under load: each is applied, the board has to recover by itself, and every play is counted again.

A round is each fault of the catalogue once, in an order that the seed decides; those that last longer by themselves come
in the first round alone. After each fault a record sent after its end must be seen committed, every unit be active,
containerd and the dashboards answer; then account.py settles what the load has had acknowledged against Kafka, the raw
rows and each metric table. A play that no single board can keep (the tail that the broker had not yet written at a power
cut, what is deleted unread) must be one of those that the fault itself took away: it stands in its own column, and is no
loss that anybody failed to notice.

With --record each outcome is added to a file as soon as it is there. The same command goes on behind the last one, as
order and chance depend on the seed alone, and its summary is that of all of them.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import random
import re
import signal
import statistics
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from conftest import Board
from fault_bench import SHORT, Bench, Fault, Outcome
from fault_kafka import recreate_topic, retention, spoil_small_file, transactions
from fault_processes import (
    KILLED,
    STOPPED,
    delete_scratch,
    down_for,
    end_unheard,
    kill,
    replace_worker,
    second_driver,
    shell,
    slow_down,
    spoil_scratch,
    stop_for,
)
from fault_surroundings import (
    clock,
    clock_behind,
    disk_errors,
    disk_full,
    disk_read_only,
    no_ipv6,
    no_names,
    package_cut,
    partition,
    power_cut,
    power_cut_with_tail,
    prune,
)

# Of what is killed and found dead at once; a fault that lasts may leave a backlog.
KILL_LIMIT = 30

CATALOGUE = [
    *(Fault(f"kill -9 {part}", kill(pids), limit=KILL_LIMIT) for part, pids in KILLED.items()),
    *(Fault(f"SIGSTOP {part} 40 s", stop_for(pids, 40), lasts=40) for part, pids in STOPPED.items()),
    Fault("restart of Docker", shell("systemctl restart docker")),
    Fault(
        "Docker stopped and started",
        shell("systemctl stop docker.socket docker; sleep 5; systemctl start docker"),
    ),
    Fault("restart of containerd", shell("systemctl restart containerd")),
    Fault("kill -9 Superset, unheard by Docker", end_unheard),
    Fault("power cut", power_cut, limit=90),
    Fault("power cut, unflushed tail gone", power_cut_with_tail, limit=90),
    Fault("a file of the scratch spoiled", spoil_scratch),
    Fault("the whole scratch deleted", delete_scratch),
    Fault("worker replaced while the master is away", replace_worker),
    Fault("second driver 75 s", second_driver, lasts=75),
    Fault("database down 30 s", down_for("music-postgres", 30), lasts=30),
    Fault("database down 5 min", down_for("music-postgres", 300), lasts=300),
    Fault("broker down 30 s", down_for("music-kafka", 30), lasts=30),
    Fault("broker down 6 min", down_for("music-kafka", 360), lasts=360),
    Fault("disk full 40 s", disk_full, lasts=120),
    Fault("topic deleted and recreated", recreate_topic),
    Fault("retention passes the job", retention),
    Fault("driver cut off from the database 45 s", partition(45), lasts=45),
    Fault("driver cut off from the database 5 min", partition(300), lasts=300),
    Fault("clock 3 h ahead", clock("+3h", rejected=True)),
    Fault("clock 400 days back", clock("-400d", rejected=False)),
    Fault("clock of the board 7 min behind a sender's", clock_behind, lasts=240, daily=False),
    Fault("transactions, aborted and committed", transactions, daily=False),
    Fault("a small file of the broker spoiled", spoil_small_file, daily=False),
    Fault("job slowed down to a tenth for 60 s", slow_down(60), lasts=60, daily=False),
    Fault("docker system prune --all --volumes", prune, daily=False),
    Fault("package installation cut off", package_cut, daily=False),
    Fault("disk read-only 30 s", disk_read_only, lasts=120, daily=False),
    Fault("disk with write errors 20 s", disk_errors, lasts=120, daily=False),
    Fault("no names 30 s", no_names(30), lasts=30, daily=False),
    Fault("IPv6 off 30 s", no_ipv6(30), lasts=30, daily=False),
]


def run(bench: Bench, faults: Iterable[tuple[Fault, random.Random]]) -> Iterator[Outcome]:
    """Apply the faults one after another under load, each with its chance, for as long as the board recovers."""
    bench.wait_recovered()
    bench.start_load()
    try:
        for fault, chance in faults:
            outcome = bench.once(fault, chance)
            yield outcome
            if not outcome.ok:
                # Of another fault on a board that is not well nothing could be said.
                bench.wait_recovered()
    finally:
        bench.end_load()


def order(chosen: list[Fault], seed: int, rounds: int) -> Iterator[tuple[Fault, random.Random]]:
    """Each fault of each round with a chance of its own; those that last, in the first round alone."""
    chance = random.Random(seed)  # noqa: S311
    faults = (
        fault
        for number in range(rounds)
        for fault in chance.sample(chosen, len(chosen))
        if number == 0 or not fault.lasts
    )
    for number, fault in enumerate(faults):
        yield fault, random.Random(f"{seed} {number}")  # noqa: S311


def summary(outcomes: list[Outcome]) -> Table:
    """One line a fault, and all of them together."""
    table = Table(title="Faults under load")
    for column in ("fault", "times", "longest recovery s", "lost", "doubled", "taken by the fault", "remark"):
        table.add_column(column, justify="left" if column in ("fault", "remark") else "right")

    def row(name: str, several: list[Outcome], remark: str = "") -> None:
        table.add_row(
            name,
            str(len(several)),
            f"{max(one.recovery for one in several):.0f}",
            *(str(sum(getattr(one, column) for one in several)) for column in ("lost", "doubled", "taken")),
            remark or ("" if all(one.ok for one in several) else "missed"),
        )

    for name in dict.fromkeys(one.name for one in outcomes):
        those = [one for one in outcomes if one.name == name]
        row(name, those, "; ".join(one.remark for one in those if one.remark))
    table.add_section()
    row("all", outcomes)
    return table


def markdown(outcomes: list[Outcome], seed: int) -> str:
    """The summary as a table of the docs."""
    loads = [one.load for one in outcomes]
    lines = [
        f"{len(outcomes)} faults in the order of seed {seed}, "
        f"{sum(one.kafka for one in outcomes):,} plays read again from Kafka after them, "
        f"{sum(one.scrobbled for one in outcomes):,} scrobbles among those that were acknowledged. "
        f"The load of the machine, of {os.cpu_count()} processors, was {min(loads):.0f} to {max(loads):.0f}, "
        f"{statistics.median(loads):.0f} in the middle.",
        "",
        "| fault | times | longest recovery s | load then | limit s | lost | doubled | taken by the fault | missed |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name in [*sorted({one.name for one in outcomes}), "**all**"]:
        those = [one for one in outcomes if name in (one.name, "**all**")]
        longest = max(those, key=lambda one: one.recovery)
        numbers = (
            len(those),
            round(longest.recovery),
            round(longest.load),
            max(one.limit for one in those),
            *(sum(getattr(one, column) for one in those) for column in ("lost", "doubled", "taken")),
            sum(not one.ok for one in those),
        )
        lines.append(f"| {name} | {' | '.join(f'{number:,}' for number in numbers)} |")
    return "\n".join(lines) + "\n"


def recorded(record: Path | None) -> list[Outcome]:
    """The outcomes of earlier parts of a run; a line that was cut off is as if its fault had not been applied."""
    if not record or not record.exists():
        return []
    lines = record.read_text(encoding="utf-8").splitlines(keepends=True)
    whole = [line for line in lines if line.endswith("\n")]
    record.write_text("".join(whole), encoding="utf-8")
    return [Outcome(**json.loads(line)) for line in whole]


@click.command()
@click.option("--board", "name", default="faults", help="A board that is set up.")
@click.option("--rounds", default=1, help="How often each fault is applied; those that last, once.")
@click.option("--seed", default=1, help="Decides order and chance.")
@click.option("--quick", is_flag=True, help="Leave out those that take minutes.")
@click.option("--only", default="", help="Only faults whose name this regular expression finds.")
@click.option("--hours", default=0.0, help="Begin no fault later than this; 0: all are applied.")
@click.option(
    "--record", type=click.Path(path_type=Path), help="File that outcomes are added to; goes on with it."
)
@click.option("--table", type=click.Path(path_type=Path), help="Markdown file to write the summary to.")
def main(
    *,
    name: str,
    rounds: int,
    seed: int,
    quick: bool,
    only: str,
    hours: float,
    record: Path | None,
    table: Path | None,
) -> None:
    """Apply each fault to a board under load and count every play."""
    chosen = [
        fault for fault in CATALOGUE if re.search(only, fault.name) and not (quick and fault.lasts > SHORT)
    ]
    console = Console(width=150)
    # The load ends with the run, however that ends, and what was seen until then is told.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    outcomes = recorded(record)
    if outcomes:
        console.print(f"goes on behind the {len(outcomes)} faults of {record}", highlight=False)
    ends = time.monotonic() + hours * 3600 if hours else float("inf")
    left = itertools.islice(order(chosen, seed, rounds), len(outcomes), None)
    try:
        for outcome in run(Bench(Board(name)), itertools.takewhile(lambda _: time.monotonic() < ends, left)):
            outcomes.append(outcome)
            if record:
                with record.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(dataclasses.asdict(outcome)) + "\n")
            console.print(
                f"{time.strftime('%H:%M:%S')} {outcome.name}: {outcome.recovery:.0f} s, {outcome.acknowledged} acknowledged"
                f" ({outcome.scrobbled} scrobbles), {outcome.kafka} in Kafka, {outcome.taken} taken, {outcome.lost} lost, {outcome.doubled} doubled,"
                f" load {outcome.load:.1f} {outcome.remark}",
                highlight=False,
            )
    finally:
        if outcomes:
            console.print(summary(outcomes))
            console.print("the load's own plays, by table:", outcomes[-1].exactness)
            if table:
                table.write_text(markdown(outcomes, seed), encoding="utf-8")
    sys.exit(0 if outcomes and all(outcome.ok for outcome in outcomes) else 1)


if __name__ == "__main__":
    main()
