"""The test kit: real servers and scripted events for the tests, the stories on a board, and the figures.

Nothing of the product imports it, and each module only pays for its own: broker (Kafka), postgres,
driver (the Spark job), events (hypothesis).
"""

from __future__ import annotations

import socket
from pathlib import Path

FILES = Path(__file__).parents[3] / "files"
"""The repository's data contract: topics.yml, schema, dashboards, images."""


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
