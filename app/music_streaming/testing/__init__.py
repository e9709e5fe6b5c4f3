"""The test kit: real servers and scripted events for the tests, the stories on a board, and the figures.

Nothing of the product imports it, and each module only pays for its own: broker (Kafka), postgres,
driver (the Spark job), events (hypothesis).
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import tenacity

FILES = Path(__file__).parents[3] / "files"
"""The repository's data contract: topics.yml, schema, dashboards, images."""

T = TypeVar("T")


def free_ports(count: int) -> list[int]:
    """Different ports that nobody listens on now."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def free_port() -> int:
    """A port that nobody listens on now."""
    return free_ports(1)[0]


def wait_for(
    look: Callable[[], T],
    wanted: Callable[[T], bool],
    seconds: float,
    *,
    ended: Callable[[], bool] = lambda: False,
    every: float = 0.1,
) -> T:
    """What is `wanted`, as soon as `look` gives it, or what was seen last after `seconds` or once `ended`."""
    over = tenacity.stop_after_delay(seconds)
    waiting = tenacity.Retrying(
        retry=tenacity.retry_if_result(lambda seen: not wanted(seen)),
        stop=lambda state: over(state) or ended(),
        wait=tenacity.wait_fixed(every),
        retry_error_callback=lambda state: state.outcome.result() if state.outcome else None,
    )
    return waiting(look)
