"""One play is one play: the table of docs/contract.md, and the pairing against every possible one."""

from __future__ import annotations

import re
from itertools import combinations, permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from docs import PROJECT
from music_streaming.imports.matching import Times, known, span_ms

SONG = "song"


def left_out(plays: list[int], stored: list[int], span: int = 30) -> list[int]:
    """Seconds of the plays that are known already."""
    times = [Times(at * 1000, span * 1000) for at in plays]
    found = known({SONG: times}, {SONG: [at * 1000 for at in stored]})
    return [plays[position] for position in sorted(found.get(SONG, ()))]


def seconds(cell: str) -> list[int]:
    return [int(word) for word in re.findall(r"-?\d+", cell)]


def cases() -> list[tuple[str, list[int], list[int], int, list[int]]]:
    """The rows of the contract's table: what, stored, in the export, length of the song, left out."""
    text = (PROJECT / "docs/contract.md").read_text(encoding="utf-8")
    (table,) = re.findall(r"<!-- cases of one play -->\n(.*?)(?:\n\n|\Z)", text, flags=re.DOTALL)
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
    return [(row[0], seconds(row[1]), seconds(row[2]), seconds(row[3])[0], seconds(row[4])) for row in rows]


@pytest.mark.parametrize(
    ("what", "stored", "plays", "length", "left"), cases(), ids=lambda value: str(value)[:40]
)
def test_a_case_of_the_contract(
    what: str, stored: list[int], plays: list[int], length: int, left: list[int]
) -> None:
    span = span_ms(length * 1000, minutes=False) // 1000
    assert left_out(plays, stored, span) == left, what


def test_the_contract_has_the_cases() -> None:
    assert len(cases()) >= 10


def test_an_export_in_minutes_needs_one() -> None:
    assert span_ms(None, minutes=True) == span_ms(20_000, minutes=True) == 60_000
    assert span_ms(None, minutes=False) == span_ms(200_000, minutes=False) == 30_000
    assert span_ms(20_000, minutes=False) == 20_000


def best_by_trying(plays: list[Times], stored: list[int]) -> tuple[int, int]:
    """Most pairs, and the least sum of differences of so many."""
    for count in range(min(len(plays), len(stored)), 0, -1):
        sums = [
            sum(abs(play.started_ms - moment) for play, moment in zip(those, some, strict=True))
            for those in combinations(plays, count)
            for some in permutations(stored, count)
            if all(
                abs(play.started_ms - moment) <= play.span_ms
                for play, moment in zip(those, some, strict=True)
            )
        ]
        if sums:
            return count, min(sums)
    return 0, 0


moments = st.lists(st.integers(0, 90), max_size=5, unique=True).map(sorted)


@settings(max_examples=150, deadline=None)
@given(plays=moments, stored=moments, span=st.sampled_from([0, 10, 30]))
def test_there_are_as_many_pairs_as_can_be_with_the_least_difference(
    plays: list[int], stored: list[int], span: int
) -> None:
    times = [Times(at, span) for at in plays]
    found = known({SONG: times}, {SONG: stored}).get(SONG, set())
    count, least = best_by_trying(times, stored)
    assert len(found) == count
    assert best_by_trying([times[position] for position in found], stored) == (count, least)


@settings(max_examples=150, deadline=None)
@given(plays=moments, stored=moments)
def test_the_second_import_adds_nothing(plays: list[int], stored: list[int]) -> None:
    left = left_out(plays, stored)
    # Those that were sent are in the tables now, under their own ids; the others find the same partners.
    again = [at for at in plays if at in left]
    assert left_out(again, stored) == again
