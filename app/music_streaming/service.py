"""What a service of the board's own Python tells systemd: its state, and its log."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import sys


def notify(state: str) -> None:
    """Tell systemd `state` (sd_notify(3)); nothing outside a service of Type=notify."""
    address = os.environ.get("NOTIFY_SOCKET")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel, contextlib.suppress(OSError):
            # An address that begins with @ is in the abstract namespace.
            channel.sendto(state.encode(), "\0" + address[1:] if address[0] == "@" else address)


def log_to_journal() -> None:
    """Log to standard error; under systemd each line carries its priority, as sd-daemon(3) describes."""
    if "JOURNAL_STREAM" in os.environ:
        for level, priority in ((logging.INFO, 6), (logging.WARNING, 4), (logging.ERROR, 3)):
            logging.addLevelName(level, f"<{priority}>")
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(levelname)s%(message)s")
    # The client reports each attempt to connect; the services say the same, less often.
    logging.getLogger("kafka").setLevel(logging.CRITICAL)
