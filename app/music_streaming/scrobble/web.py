"""What the routes of every protocol share: the server's parts, bodies with a limit, the last requests."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TypeVar
from urllib.parse import parse_qsl

import psycopg2
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse

from music_streaming.scrobble import store
from music_streaming.scrobble.approval import Approvals
from music_streaming.scrobble.database import Database
from music_streaming.scrobble.directory import Directory, DirectoryUnavailableError, Player
from music_streaming.scrobble.inferred import LOOK_SECONDS, Playing
from music_streaming.scrobble.plays import Heard, RefusedError, event_of
from music_streaming.scrobble.sender import BrokerAwayError, Sender
from music_streaming.scrobble.uploads import Imports
from music_streaming.settings import Settings

log = logging.getLogger("music_streaming.scrobble.web")

T = TypeVar("T")

BODY_SECONDS = 30.0
FORM_BYTES = 1_000_000
# Bodies that are read at the same time, of those that are longer than a page of memory matters.
LARGE_BYTES, LARGE_AT_ONCE = 262_144, 4
REQUESTS_KEPT = 300


@dataclass(frozen=True)
class Seen:
    """One request: what came, from whom, and what became of it ("ok" or the reason)."""

    at: datetime
    client: str
    address: str
    request: str
    listener: str | None
    outcome: str


@dataclass
class Context:
    """The parts of the server. playing: where plays are to be inferred."""

    settings: Settings
    directory: Directory
    sender: Sender
    database: Database
    seen: deque[Seen] = field(default_factory=lambda: deque(maxlen=REQUESTS_KEPT))
    large: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(LARGE_AT_ONCE))
    approvals: Approvals = field(default_factory=Approvals)
    imports: Imports = field(default_factory=Imports)
    playing: Playing | None = None

    async def send(self, player: Player, plays: Sequence[Heard]) -> None:
        """Send the plays to Kafka; BrokerAwayError where it did not take them all."""
        now = store.utc_now()
        await self.sender.send([event_of(heard, player, now) for heard in plays])
        if self.playing is not None:
            self.playing.reported(player, plays)

    async def set_playing(self, player: Player, heard: Heard) -> None:
        """Note what the player plays now; psycopg2.Error as it comes."""
        name, now = player.listener.name, store.utc_now()
        if self.playing is not None:
            self.playing.begins(player, heard, now)
        await self.database.run(lambda cursor: store.set_playing(cursor, name, heard, player.player, now))

    async def infer(self) -> None:
        """Send the plays that are due, for ever; those that Kafka does not take are due again."""
        while self.playing is not None:
            await asyncio.sleep(LOOK_SECONDS)
            for player, heard in self.playing.due(store.utc_now()):
                with contextlib.suppress(BrokerAwayError):
                    await self.send(player, [heard])
                    log.info("inferred: %s played %s – %s", player.listener.name, heard.artist, heard.title)


def context(request: Request) -> Context:
    """The parts of the server that answers this request."""
    found: Context = request.app.state.context
    return found


async def body(request: Request, limit: int) -> bytes:
    """The body; RefusedError (413) where it is longer than `limit` bytes, (408) where it takes too long."""
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and int(announced) > limit:
        raise too_long(limit)
    # Without a word about its length it may be long as well.
    small = announced.isdigit() and int(announced) <= LARGE_BYTES
    try:
        async with asyncio.timeout(BODY_SECONDS):
            if small:
                return await _read(request, limit)
            async with context(request).large:
                return await _read(request, limit)
    except TimeoutError:
        raise RefusedError(f"The body: found it unfinished after {BODY_SECONDS:.0f} s", 408) from None
    except ClientDisconnect:
        raise RefusedError("The body: found the connection closed before its end", 400) from None


async def _read(request: Request, limit: int) -> bytes:
    parts, length = [], 0
    async for part in request.stream():
        length += len(part)
        if length > limit:
            raise too_long(limit)
        parts.append(part)
    return b"".join(parts)


def too_long(limit: int) -> RefusedError:
    """The refusal of a body that is longer than `limit` bytes."""
    return RefusedError(f"The body: found more than {limit} bytes, wanted at most {limit}", 413)


async def form(request: Request) -> dict[str, str]:
    """The fields of the query and of a URL-encoded body; the body's win."""
    sent = await body(request, FORM_BYTES) if request.method == "POST" else b""
    try:
        fields = parse_qsl(sent.decode(), keep_blank_values=True, max_num_fields=2_000)
    except ValueError:
        raise RefusedError("The body: found no form in UTF-8, wanted one") from None
    return {**request.query_params, **dict(fields)}


def note(request: Request, outcome: str, listener: str | None = None) -> None:
    """Keep what came of the request, for the page."""
    path = request.scope.get("music_path", request.url.path)
    client = request.headers.get("user-agent", "")[:120] or "unknown client"
    address = request.client.host if request.client else ""
    seen = Seen(datetime.now(UTC), client, address, f"{request.method} {path[:200]}", listener, outcome[:300])
    context(request).seen.append(seen)


def error(message: str, status: int, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """An error as ListenBrainz words it: code and error."""
    return JSONResponse({"code": status, "error": message}, status, dict(headers or {}))


async def or_unavailable(work: Awaitable[T], what: str) -> T:
    """What `work` gives; RefusedError (503) where Kafka or PostgreSQL does not answer."""
    try:
        return await work
    except BrokerAwayError:
        raise RefusedError(
            f"{what}: found Kafka away, wanted its acknowledgement; send it again", 503
        ) from None
    except (psycopg2.OperationalError, psycopg2.InterfaceError, DirectoryUnavailableError) as fault:
        log.warning("PostgreSQL: %s", " ".join(str(fault).split()))
        raise RefusedError(f"{what}: found PostgreSQL away; try again", 503) from None
