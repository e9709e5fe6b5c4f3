"""The service music-forward: accepted plays of real players, from Kafka to other scrobble services.

Each destination has a consumer group of its own, so none waits for another. What is committed has been
taken there: at least once. A destination that is away is asked again, ever less often, while its plays wait
in Kafka; it begins with the plays that come after it was first named.
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from datetime import UTC, datetime
from typing import Annotated, Any

import click
import httpx
import tenacity
from pydantic import Field, TypeAdapter, ValidationError

from music_streaming import broker
from music_streaming.error import MusicError
from music_streaming.event import Rejected, parse_event, reported_twice
from music_streaming.scrobble.destinations import (
    CLIENT,
    MOST,
    TIMEOUT_SECONDS,
    AwayError,
    Destination,
    NeverError,
    Play,
    send,
)
from music_streaming.service import log_to_journal, notify
from music_streaming.settings import Settings

log = logging.getLogger("music_streaming.scrobble.forward")

SECRET = "forward"  # noqa: S105  the name of its file
POLL_SECONDS = 1.0
LONGEST_WAIT_SECONDS = 900
NOTE_SECONDS = 60
RECENT = 2_000
"""Plays of a listener among which a repeated report is looked for."""


class ForwardError(MusicError):
    """Destinations that cannot be used."""


def destinations(settings: Settings) -> list[Destination]:
    """Those of the secret `forward`, a JSON list; ForwardError saying which part is wrong."""
    text = settings.secret(SECRET).get_secret_value()
    try:
        return TypeAdapter(Annotated[list[Destination], Field(min_length=1)]).validate_json(text)
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        place = "".join(f"[{part}]" for part in first["loc"])
        raise ForwardError.of(
            "pipeline_forwards",
            found=f"a mistake in entry {place or 'list'}: {first['msg'].removeprefix('Value error, ')}",
            wanted="listener, service (listenbrainz, lastfm or maloja) and token in each",
            remedy="correct it in the inventory and run the play (site.yml)",
        ) from None


class Recent:
    """The last plays that went on, to know what is the same play by the rule of docs/contract.md."""

    def __init__(self) -> None:
        self._plays: deque[Play] = deque(maxlen=RECENT)

    def is_new(self, play: Play) -> bool:
        """Whether nobody has reported this play before; it is remembered."""
        if any(_same(play, other) for other in self._plays):
            return False
        self._plays.append(play)
        return True


def _same(play: Play, other: Play) -> bool:
    same_song = play["song_id"] == other["song_id"]
    return play["event_id"] == other["event_id"] or (same_song and reported_twice(play, other))


def wanted(values: Iterable[bytes], listener: str, recent: Recent, now: datetime) -> list[Play]:
    """The plays among the records that go on: real players', of the listener, not skipped, each once."""
    found = []
    for value in values:
        # Most records are the demo audience's; to parse them all would be dear.
        if b'"scrobble"' not in value:
            continue
        try:
            play = parse_event(value, now).play
        except Rejected:
            continue
        own = play["source"] == "scrobble" and play["user_id"] == listener
        if own and not play["skipped"] and recent.is_new(play):
            found.append(play)
    return found


def deliver(plays: Sequence[Play], send_all: Callable[[Sequence[Play]], None]) -> int:
    """Send the plays; those that will never be taken are logged and left out. How many were taken.

    AwayError as it comes: then some may have been taken already, and are sent again.
    """
    if not plays:
        return 0
    try:
        send_all(plays)
    except NeverError as error:
        if len(plays) == 1:
            log.warning("left out: %s – %s: %s", plays[0]["artist"], plays[0]["title"], error)
            return 0
        # Which one of them it is, the answer does not always say.
        middle = len(plays) // 2
        return deliver(plays[:middle], send_all) + deliver(plays[middle:], send_all)
    return len(plays)


def _pause(state: tenacity.RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    longer = tenacity.wait_random_exponential(multiplier=2, max=LONGEST_WAIT_SECONDS)(state)
    return max(longer, error.seconds if isinstance(error, AwayError) else 0)


def _retrying(name: str, stop: threading.Event, *faults: type[Exception]) -> tenacity.Retrying:
    def tell(state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        pause = state.next_action.sleep if state.next_action else 0
        log.warning("%s: %s; again in %.0f s", name, error, pause)

    return tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(faults),
        wait=_pause,
        stop=tenacity.stop_when_event_set(stop),
        sleep=tenacity.sleep_using_event(stop),
        before_sleep=tell,
        reraise=True,
    )


def forward(settings: Settings, destination: Destination, stop: threading.Event) -> None:
    """Pass plays on until `stop` is set; what was not committed by then is sent anew after the next start."""
    recent, most = Recent(), MOST[destination.service]
    with httpx.Client(timeout=TIMEOUT_SECONDS, headers={"User-Agent": CLIENT}) as client:

        def once() -> None:
            with broker.group_reader(settings.kafka, destination.group) as records:
                log.info("%s: begins at %s", destination.name, records.positions())
                noted = time.monotonic()
                while not stop.is_set():
                    values = records.poll(POLL_SECONDS, most)
                    plays = wanted(values, destination.listener, recent, datetime.now(UTC))
                    try:
                        taken = _retrying(destination.name, stop, AwayError)(
                            deliver, plays, lambda some: send(client, destination, some)
                        )
                    except AwayError:
                        return  # the service ends
                    if taken:
                        log.info("%s: %d plays", destination.name, taken)
                    # Of what is nobody's play less often: each note is a write to the disk.
                    if plays or time.monotonic() - noted > NOTE_SECONDS:
                        records.commit()
                        noted = time.monotonic()

        try:
            _retrying(destination.name, stop, broker.KafkaError, broker.BrokerError)(once)
        except (broker.KafkaError, broker.BrokerError):
            if not stop.is_set():
                raise


def run(settings: Settings, those: Sequence[Destination], stop: threading.Event) -> None:
    """Serve every destination, each in a thread, until `stop` is set or one of them has failed."""
    notify("READY=1")
    with ThreadPoolExecutor(len(those)) as pool:
        at_work = [pool.submit(forward, settings, destination, stop) for destination in those]
        wait(at_work, return_when=FIRST_EXCEPTION)
        stop.set()
        for one in at_work:
            one.result()


@click.command()
def main() -> None:
    """Pass the plays of real players on (the service music-forward) until stopped."""
    log_to_journal()
    logging.getLogger("httpx").setLevel(logging.WARNING)
    stop = threading.Event()

    def end(*_: Any) -> None:
        notify("STOPPING=1")
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    try:
        settings = Settings.load()
        run(settings, destinations(settings), stop)
    except MusicError as fault:
        raise click.ClickException(str(fault)) from None


if __name__ == "__main__":
    main()
