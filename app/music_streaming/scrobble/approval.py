"""The web login of Last.fm's API: tokens that a program asks for and its user approves in a browser."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass

from music_streaming.scrobble.directory import Player

PENDING_SECONDS, MOST_PENDING = 3_600, 100


@dataclass
class Pending:
    """A token of auth.getToken that its user has not approved, or has: then of whom."""

    made: float
    player: Player | None = None


class Approvals:
    """Tokens of the web login, in memory: a program asks for one, its user approves it on the page."""

    def __init__(self) -> None:
        self._pending: dict[str, Pending] = {}

    def make(self) -> str:
        """A new token."""
        now = time.monotonic()
        fresh = {key: one for key, one in self._pending.items() if now - one.made < PENDING_SECONDS}
        # The oldest go first: they are in order.
        self._pending = dict(list(fresh.items())[-MOST_PENDING + 1 :])
        token = secrets.token_hex(16)
        self._pending[token] = Pending(now)
        return token

    def waits(self, token: str) -> bool:
        """Whether the token waits for its user's approval."""
        return token in self._pending and self._pending[token].player is None

    def approve(self, token: str, player: Player) -> None:
        """Let the token be the player's."""
        if self.waits(token):
            self._pending[token].player = player

    def redeem(self, token: str) -> Player | None:
        """Whose it is, once; None where nobody has approved it."""
        one = self._pending.get(token)
        if one is None or one.player is None:
            return None
        del self._pending[token]
        return one.player
