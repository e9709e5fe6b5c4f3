"""How large the next batch may be, after batches that were too large, too slow, or went well."""

from __future__ import annotations

import contextlib

from music_streaming.limit import PROOF, BatchLimit, store_limit, stored_limit
from music_streaming.testing.postgres import Database

STALL = 180.0


def limit(now: int, most: int = 50_000) -> BatchLimit:
    return BatchLimit(most, now, STALL)


def test_a_failed_batch_makes_the_next_ten_times_smaller_down_to_one() -> None:
    found = limit(50_000)
    seen = []
    while found.failed("too large"):
        seen.append(found.now)
    assert seen == [5000, 500, 50, 5, 1]
    assert found.why == "too large"


def test_a_slow_batch_makes_the_next_take_half_the_time_that_is_too_slow() -> None:
    found = limit(50_000)
    assert not found.finished(50_000, 59)
    assert found.finished(50_000, 120)
    assert found.now == 12_500
    assert "a batch of 50000 records took 120 s" in found.why
    # Not down to nothing for a night in which the board slept.
    assert found.finished(20, 30_000)
    assert found.now == 1250


def test_it_rises_after_full_quick_batches_only_and_no_further_than_the_setting() -> None:
    found = limit(500, most=1200)
    for records, seconds in ((20, 0.1), (500, 40)):
        for _ in range(50):
            assert not found.finished(records, seconds)
    steps = []
    for _ in range(3 * PROOF):
        if found.finished(found.now, 1):
            steps.append(found.now)
    assert steps == [1000, 1200]
    assert found.why == ""


def test_each_fall_asks_for_more_proof_before_the_next_rise() -> None:
    found = limit(1000)

    def batches_until_it_rises() -> int:
        return next(number for number in range(1, 1000) if found.finished(found.now, 1))

    counts = []
    for _ in range(3):
        found.failed("too large")
        counts.append(batches_until_it_rises())
    assert counts == [2 * PROOF, 4 * PROOF, 8 * PROOF]


def test_the_next_life_begins_with_the_limit_of_the_last(database: Database) -> None:
    with contextlib.closing(database.connect()) as connection:
        assert stored_limit(connection, "t", 5000, STALL).now == 5000
        fallen = stored_limit(connection, "t", 5000, STALL)
        fallen.failed("too slow")
        store_limit(connection, "t", fallen)
        again = stored_limit(connection, "t", 5000, STALL)
        assert (again.now, again.most, again.why) == (500, 5000, "too slow")
        # A smaller setting wins.
        assert stored_limit(connection, "t", 100, STALL).now == 100
