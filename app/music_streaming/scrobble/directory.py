"""Who a token belongs to, held in memory: plays are taken while PostgreSQL is away.

Read anew every few seconds, so that a revoked token is soon useless, and sooner for a token that is unknown.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from music_streaming.listener import Listener, Token, token_hashes

FRESH_SECONDS = 5.0
# A token that nobody knows is looked up at once, but no more often: all who wait share one look.
UNKNOWN_SECONDS = 0.2


@dataclass(frozen=True)
class Player:
    """A player of a listener, as a token names it."""

    listener: Listener
    player: str
    md5: str

    @property
    def session(self) -> str:
        """Its session key in the older protocols; it ends with the token, and is stored nowhere."""
        return hashlib.sha256(f"session\x1f{self.md5}".encode()).hexdigest()[:32]


class DirectoryUnavailableError(Exception):
    """PostgreSQL has not answered since the start: nobody is known."""


@dataclass
class _Known:
    by_sha256: dict[bytes, Player] = field(default_factory=dict)
    by_session: dict[str, Player] = field(default_factory=dict)


class Directory:
    """Players by token or session. `load` gives listeners and tokens, and raises where it cannot."""

    def __init__(self, load: Callable[[], Awaitable[tuple[Mapping[str, Listener], list[Token]]]]) -> None:
        self._load = load
        self._known: _Known | None = None
        self._read_at = float("-inf")
        self._lock = asyncio.Lock()

    async def by_token(self, token: str) -> Player | None:
        """The player whose token this is; None where it is of nobody or revoked."""
        sha256, _ = token_hashes(token)
        return await self._find(lambda known: known.by_sha256.get(sha256))

    async def by_session(self, session: str) -> Player | None:
        """The player whose session this is, by an older protocol."""
        return await self._find(lambda known: known.by_session.get(session))

    async def by_proof(self, name: str, proof: str, prove: Callable[[str], str]) -> Player | None:
        """The player of listener `name` with whose MD5 of the token `prove` gives `proof`."""

        def look(known: _Known) -> Player | None:
            for player in known.by_sha256.values():
                mine = player.listener.name.lower() == name.strip().lower()
                if mine and hmac.compare_digest(prove(player.md5).encode(), proof.strip().lower().encode()):
                    return player
            return None

        return await self._find(look)

    async def _find(self, look: Callable[[_Known], Player | None]) -> Player | None:
        now = time.monotonic()
        return look(await self._read_since(now - FRESH_SECONDS)) or look(await self._read_since(now))

    async def _read_since(self, moment: float) -> _Known:
        """What a read that began at `moment` or later has found."""
        async with self._lock:
            if self._known is None or self._read_at < moment:
                await asyncio.sleep(max(0.0, self._read_at + UNKNOWN_SECONDS - time.monotonic()))
                # In case of a failure too: a PostgreSQL that is away is not asked for every play.
                self._read_at = time.monotonic()
                try:
                    self._known = _known(*await self._load())
                except Exception as error:
                    if self._known is None:
                        raise DirectoryUnavailableError(str(error)) from error
            return self._known


def _known(listeners: Mapping[str, Listener], tokens: list[Token]) -> _Known:
    known = _Known()
    for token in tokens:
        if token.revoked_at is None and token.listener in listeners:
            player = Player(listeners[token.listener], token.player, token.md5)
            known.by_sha256[token.sha256] = player
            known.by_session[player.session] = player
    return known
