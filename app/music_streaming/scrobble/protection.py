"""Against clients that cost too much: few connections each, a time for the head of a request, tidy paths."""

from __future__ import annotations

import asyncio
import logging
import re
from collections import Counter
from typing import ClassVar

import h11
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from music_streaming.scrobble.web import error, note

log = logging.getLogger("music_streaming.scrobble.protection")

HEAD_SECONDS = 10.0
CONNECTIONS_FROM_ONE = 64
CONNECTIONS = 512


class GuardedProtocol(H11Protocol):
    """HTTP of uvicorn, which alone waits for the head of a request for ever and takes any number of them."""

    open_from: ClassVar[Counter[str]] = Counter()
    _deadline: asyncio.TimerHandle | None = None
    _address = ""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Count the connection, and close it where its client holds too many."""
        super().connection_made(transport)
        self._address = self.client[0] if self.client else ""
        self.open_from[self._address] += 1
        if self.open_from[self._address] > CONNECTIONS_FROM_ONE:
            transport.abort()
            return
        self._arm()

    def data_received(self, data: bytes) -> None:
        """Stop the clock once a head is complete."""
        super().data_received(data)
        if self.conn.their_state is h11.IDLE:
            self._arm()
        else:
            self._disarm()

    def connection_lost(self, exc: Exception | None) -> None:
        """Count it no more."""
        self._disarm()
        self.open_from[self._address] -= 1
        if self.open_from[self._address] <= 0:
            del self.open_from[self._address]
        super().connection_lost(exc)

    def _arm(self) -> None:
        # One clock from the first byte on: a byte now and then does not set it back.
        if self._deadline is None:
            self._deadline = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


class Tidy:
    """ASGI middleware: tidies the path, and answers a mistake of the program with JSON as all else."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope["music_path"] = scope["path"]
        scope["path"] = tidy(scope["path"])
        started = False

        async def sent(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, sent)
        except Exception:
            log.exception("a mistake of the program: %s %s", scope["method"], scope["path"])
            if started:
                raise
            note(Request(scope), "a mistake of the server: journalctl -u music-scrobble -n 50")
            answer = error(
                "A mistake of the server; journalctl -u music-scrobble -n 50 on the board tells more", 500
            )
            await answer(scope, receive, send)


def tidy(path: str) -> str:
    """The path as the routes have it: single slashes, none at the end, no prefix of another server's API."""
    found = re.sub("/{2,}", "/", path)
    found = re.sub("^/apis/listenbrainz(?=/)", "", found)
    # Root .../1 in a player that adds /1 itself.
    found = re.sub("^/1/1(?=/)", "/1", found)
    return found.rstrip("/") or "/"
