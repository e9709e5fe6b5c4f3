"""One play is one play: which plays of an export are known already, though under another time.

Of the same listener and song, a play of the export and a stored one that lie within the span are a pair; each
is in one pair at most. There are as many pairs as can be, and of all ways to make them the one with the least
difference of time in sum. So one stored play cannot hide a repeat, and to import again changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from music_streaming.event import same_play_ms

MINUTE_MS = 60_000


class Times(NamedTuple):
    """A play of an export: when it began, how far from that the stored one may be."""

    started_ms: int
    span_ms: int


def span_ms(duration_ms: int | None, *, minutes: bool) -> int:
    """The span of a play; exports that round to minutes need one. At most the length of the song."""
    return MINUTE_MS if minutes else same_play_ms(duration_ms)


def known(plays: Mapping[str, Sequence[Times]], stored: Mapping[str, Iterable[int]]) -> dict[str, set[int]]:
    """Song -> positions in plays[song], which are by time, of those with a stored partner (starts in ms)."""
    return {
        song: _pairs(those, sorted(stored[song])) for song, those in plays.items() if song in stored and those
    }


def _pairs(plays: Sequence[Times], stored: Sequence[int]) -> set[int]:
    """Positions of the paired plays. Where nothing is within reach, a new group begins."""
    found: set[int] = set()
    first_play = first_stored = 0
    while first_play < len(plays):
        play = plays[first_play]
        while first_stored < len(stored) and stored[first_stored] < play.started_ms - play.span_ms:
            first_stored += 1
        # The group: plays and stored ones that reach each other, directly or through others.
        end_play, end_stored, reach = first_play, first_stored, play.started_ms + play.span_ms
        while True:
            before = (end_play, end_stored)
            while end_stored < len(stored) and stored[end_stored] <= reach:
                end_stored += 1
            last = stored[end_stored - 1] if end_stored > first_stored else None
            while end_play < len(plays) and (
                end_play == first_play
                or (last is not None and plays[end_play].started_ms - plays[end_play].span_ms <= last)
            ):
                reach = max(reach, plays[end_play].started_ms + plays[end_play].span_ms)
                end_play += 1
            if (end_play, end_stored) == before:
                break
        group = _best(plays[first_play:end_play], stored[first_stored:end_stored])
        found |= {first_play + position for position in group}
        first_play, first_stored = end_play, end_stored
    return found


def _best(plays: Sequence[Times], stored: Sequence[int]) -> list[int]:
    """Positions of the plays in the best pairing: most pairs, then the least sum of differences.

    Pairs of two sorted lists need not cross, so the best of two beginnings follows from shorter ones.
    """
    if not stored:
        return []
    # best[j]: (pairs, -sum of differences) of the plays so far and stored[:j]; choice[i][j]: its last step.
    best: list[tuple[int, int]] = [(0, 0)] * (len(stored) + 1)
    choice: list[bytearray] = []
    for play in plays:
        row, how = [(0, 0)], bytearray(len(stored) + 1)
        for j, moment in enumerate(stored, 1):
            better, step = best[j], 0
            if row[j - 1] > better:
                better, step = row[j - 1], 1
            apart = abs(moment - play.started_ms)
            if apart <= play.span_ms:
                pairs, cost = best[j - 1]
                if (pairs + 1, cost - apart) > better:
                    better, step = (pairs + 1, cost - apart), 2
            row.append(better)
            how[j] = step
        best = row
        choice.append(how)
    found, j = [], len(stored)
    for i in range(len(plays) - 1, -1, -1):
        while choice[i][j] == 1:
            j -= 1
        if choice[i][j] == 2:
            found.append(i)
            j -= 1
    return found
