"""A handful of faults under load, picked by the day's date; `make test-faults` applies all of them."""

from __future__ import annotations

import datetime as dt
import random

from rich.console import Console

from faults import CATALOGUE, Bench, Outcome, run, summary
from figures import add

# The reboot story pulls the plug.
PICKED_FROM = [fault for fault in CATALOGUE if not fault.long and "power cut" not in fault.name]
COUNT = 5


def test_no_fault_loses_or_doubles_a_play(board):
    chance = random.Random(dt.datetime.now(dt.UTC).date().toordinal())  # noqa: S311
    told: list[Outcome] = []
    outcomes = run(Bench(board), chance.sample(PICKED_FROM, COUNT), chance, told.append)
    Console(width=150).print(summary(outcomes))
    assert len(told) == COUNT
    add(f"longest recovery from {COUNT} faults", max(one.recovery for one in outcomes), "s", at_most=60)
    add("plays lost or doubled by faults", sum(one.lost + one.doubled for one in outcomes), "", at_most=0)
    wrong = [one for one in outcomes if one.lost or one.doubled or one.remark]
    assert wrong == []
