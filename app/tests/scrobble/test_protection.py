"""Clients that cost too much are sent away, and the others are served meanwhile."""

from __future__ import annotations

import contextlib
import json
import socket
import time

import httpx
import pytest

from music_streaming.scrobble import protection
from music_streaming.testing import wait_for

# Loopback is a whole network: a client of its own address.
ANOTHER = "127.0.0.2"


@pytest.fixture
def connect(board):
    """Open raw connections, from 127.0.0.1 unless told otherwise; closed at the end."""
    opened: list[socket.socket] = []

    def opening() -> socket.socket:
        opened.append(socket.create_connection(("127.0.0.1", board.settings.scrobble.port), timeout=30))
        return opened[-1]

    yield opening
    for one in opened:
        one.close()


def closed(connection: socket.socket) -> bool:
    """Whether the server has closed it."""
    connection.setblocking(False)
    try:
        return connection.recv(1_000) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def from_another_address(board) -> float:
    """Seconds that a client of another address waits for its answer."""
    begun = time.monotonic()
    transport = httpx.HTTPTransport(local_address=ANOTHER)
    with httpx.Client(transport=transport, timeout=20) as client:
        answer = client.get(f"{board.url}/1/validate-token", params={"token": "nobody"})
    assert answer.json()["valid"] is False
    return time.monotonic() - begun


def test_a_thousand_connections_of_one_client_keep_nobody_out(board, connect):
    connections = [connect() for _ in range(1_000)]
    assert from_another_address(board) < 10
    left = wait_for(
        lambda: sum(not closed(one) for one in connections),
        lambda number: number <= protection.CONNECTIONS_FROM_ONE,
        20,
    )
    assert left <= protection.CONNECTIONS_FROM_ONE


def test_a_head_that_never_ends_is_given_up(board, connect):
    """A byte now and then does not set the clock back."""
    slow = connect()
    slow.sendall(b"POST /1/submit-listens HTTP/1.1\r\n")
    begun = time.monotonic()

    def drip() -> bool:
        with contextlib.suppress(OSError):
            slow.setblocking(True)
            slow.sendall(b"X-a: b\r\n")
        return closed(slow)

    assert wait_for(drip, bool, protection.HEAD_SECONDS * 3, every=0.5)
    assert time.monotonic() - begun < protection.HEAD_SECONDS * 2 + 5


def test_one_that_says_nothing_is_given_up_too(board, connect):
    silent = connect()
    assert wait_for(lambda: closed(silent), bool, protection.HEAD_SECONDS * 3, every=0.5)


@pytest.mark.slow
def test_a_body_that_never_ends_is_given_up(board, connect):
    _, token = board.token()
    slow = connect()
    slow.sendall(
        b"POST /1/submit-listens HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n"
        b"Authorization: Token " + token.encode() + b"\r\n\r\n{"
    )
    slow.settimeout(60)
    answer = slow.recv(65_536)
    assert b"408" in answer.split(b"\r\n")[0]
    assert json.loads(answer.partition(b"\r\n\r\n")[2] or slow.recv(65_536))["code"] == 408


def test_an_oversized_head_is_refused(board, connect):
    loud = connect()
    loud.sendall(b"GET / HTTP/1.1\r\nX: " + b"x" * 40_000 + b"\r\n\r\n")
    assert b"400" in loud.recv(1_000).split(b"\r\n")[0]


def test_it_still_serves(board):
    assert from_another_address(board) < 5
