"""`make try`: run the flow, show its numbers, validate them, leave nothing behind."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator

import click
from rich.console import Console
from rich.live import Live

from music_streaming.error import MusicError
from music_streaming.testing import wait_for
from music_streaming.testing.trial.numbers import Numbers, look, picture
from music_streaming.testing.trial.services import Flow, TrialError, flow
from music_streaming.watchdog import StopFlag

SHOWN_SECONDS = 1.0
# Where there is no terminal.
SAID_SECONDS = 5.0
SETTLE_SECONDS = 120


@click.command()
@click.option("--seconds", type=click.FloatRange(min=1), help="End after so long; else at Ctrl-C.")
@click.option("--rate", type=click.FloatRange(0, 5000, min_open=True), default=50.0, show_default=True)
def main(seconds: float | None, rate: float) -> None:
    """Run the flow without a board: Kafka, Spark in local mode, PostgreSQL and the demo audience."""
    stopping = StopFlag()
    stopping.on_signals(signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    console = Console()
    try:
        with flow(rate, console.print) as parts:
            good = settle(parts, console) if watch(parts, stopping, console, seconds) else False
    except (MusicError, RuntimeError) as error:
        raise click.ClickException(str(error)) from None
    console.print("Everything is gone again: processes, topics, tables and folders.")
    raise SystemExit(0 if good else 1)


def watch(parts: Flow, stopping: StopFlag, console: Console, seconds: float | None) -> bool:
    """Show the numbers until the flag is set or the time is over, counted from the first play.

    Returns whether any play was there.
    """
    played = False
    until = None
    with _shown(console) as show:
        while not stopping.wait(SHOWN_SECONDS if console.is_terminal else SAID_SECONDS):
            parts.refuse_ended()
            numbers = look(parts.settings)
            show(numbers)
            if numbers.accepted and not played:
                played, until = True, time.monotonic() + seconds if seconds else None
            if until is not None and time.monotonic() > until:
                break
    return played


def settle(parts: Flow, console: Console) -> bool:
    """End the producer, wait until the job has written all of its plays, and validate."""
    console.print("Ending the producer, and waiting until all of its plays are in the tables")
    parts.producer.end(signal.SIGTERM)
    numbers = wait_for(lambda: look(parts.settings), lambda seen: not seen.waiting, SETTLE_SECONDS, every=0.5)
    if numbers.waiting:
        raise TrialError.of(
            "Spark job",
            found=f"{numbers.waiting} records not written after {SETTLE_SECONDS} s",
            wanted="none",
            remedy=f"its last words: {parts.job.said[-2000:]}",
        )
    console.print(numbers.line())
    return parts.validate() == 0


@contextlib.contextmanager
def _shown(console: Console) -> Iterator[Callable[[Numbers], None]]:
    if not console.is_terminal:
        yield lambda numbers: console.print(numbers.line())
        return
    with Live(console=console, auto_refresh=False) as live:
        yield lambda numbers: live.update(picture(numbers), refresh=True)


if __name__ == "__main__":
    main()
