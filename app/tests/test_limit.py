"""How large the next batch may be, after batches that were too large, too slow, or went well."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import pytest

from music_streaming.board.status import Limit, counted
from music_streaming.limit import PROOF, PROOF_MOST, BatchLimit, store_limit, stored_limit
from music_streaming.settings import Settings
from music_streaming.testing import wait_for
from music_streaming.testing.broker import Broker
from music_streaming.testing.driver import LIMIT_SECONDS, Driver
from music_streaming.testing.postgres import Database
from test_stream import accepted, assert_exact, make_topic, plays, send, transact

STALL = 180.0
T = TypeVar("T")


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


def limit_of(settings: Settings) -> Limit:
    """The size of a batch as `musicctl status` shows it."""
    limit = counted(settings).batch_limit
    assert limit
    return limit


TURN_SECONDS = 0.01


@contextlib.contextmanager
def a_tenth_of_the_processor(driver: Driver) -> Iterator[None]:
    """Let the driver run for a tenth of the time alone, as on a board that is too slow for its backlog."""
    ended = threading.Event()

    def take_turns() -> None:
        began = time.monotonic()
        while not ended.wait(TURN_SECONDS):
            with contextlib.suppress(ProcessLookupError):
                driver.send(signal.SIGSTOP)
                # On a busy machine a turn ends late: what it took too much, it rests longer for.
                ended.wait(9 * (time.monotonic() - began))
                began = time.monotonic()
                driver.send(signal.SIGCONT)

    turns = threading.Thread(target=take_turns)
    turns.start()
    try:
        yield
    finally:
        ended.set()
        turns.join()


def wait_over_lives(driver: Driver, look: Callable[[], T], wanted: Callable[[T], bool]) -> T:
    """What is wanted; meanwhile the job begins anew where a batch took too long, as systemd would have it."""
    while not wanted(
        seen := wait_for(look, wanted, LIMIT_SECONDS, ended=lambda: not driver.alive, every=0.5)
    ):
        assert not driver.alive, f"saw {seen}\n{driver.said[-6000:]}"
        assert driver.exit_code() == 1, driver.said[-6000:]
        driver.start()
    return seen


def seconds_of_a_start(broker: Broker, database: Database, topic: str, driver: Driver) -> float:
    """How long it takes on this machine, as busy as it is, from the driver's start to its first 100 plays."""
    send(broker, topic, [*plays(0, 100)])
    began = time.monotonic()
    driver.start()
    driver.wait_until(lambda: accepted(database), 100)
    seconds = time.monotonic() - began
    driver.end(signal.SIGTERM)
    return seconds


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_processor_too_slow_for_the_backlog_makes_batches_smaller_until_it_is_quick_again(
    broker: Broker, database: Database, settings: Settings, topic: str, driver: Driver
) -> None:
    make_topic(broker, topic, 1)
    driver.environment["MUSIC_SPARK__MAX_OFFSETS_PER_TRIGGER"] = "50000"
    start = seconds_of_a_start(broker, database, topic, driver)
    # A third of it is what a statement may take, and a batch before it is too slow: no less than a first one.
    driver.environment["MUSIC_SPARK__STALL_SECONDS"] = f"{max(30, 3 * start):.0f}"
    driver.start()
    send(broker, topic, [*plays(100, 100)])
    assert wait_over_lives(driver, lambda: accepted(database), (200).__eq__)
    limited = settings.with_changes(kafka={"topic": topic})
    before = limit_of(limited).records
    with a_tenth_of_the_processor(driver):
        # Of a transaction the job sees all plays at once: one batch, however long they took to send.
        transact(broker, topic, plays(200, 50_000), commit=True)
        wait_for(
            lambda: limit_of(limited).records, before.__gt__, LIMIT_SECONDS, ended=lambda: not driver.alive
        )
    sent = 50_200
    wait_over_lives(driver, lambda: accepted(database), sent.__eq__)
    # The job stores its limit a moment after the batch.
    slowest = wait_over_lives(driver, lambda: limit_of(limited), lambda limit: limit.records < before)
    assert "a batch of " in slowest.why
    assert slowest.most == 50_000
    # Full batches that go well; how many it takes depends on how often one was too slow.
    for _ in range(PROOF_MOST // PROOF):
        fallen = limit_of(limited).records
        transact(broker, topic, plays(sent, PROOF * fallen), commit=True)
        sent += PROOF * fallen
        wait_over_lives(driver, lambda: accepted(database), sent.__eq__)
        if wait_for(lambda: limit_of(limited).records, fallen.__lt__, 5) > fallen:
            break
    else:
        pytest.fail(f"the limit never rose, and is {limit_of(limited)}\n{driver.said[-6000:]}")
    assert_exact(database, sent)
