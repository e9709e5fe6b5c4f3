"""Real listeners and the tokens of their players, as rows of the tables listeners and listener_tokens.

A token is a random UUID: 122 bits, shown once and stored as hashes. Older protocols send it as a password, of
which they prove to know the MD5; that is why it is stored, too.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from music_streaming.country import UNKNOWN_CODE
from music_streaming.error import MusicError
from music_streaming.event import UNKNOWN, normalise

if TYPE_CHECKING:
    from psycopg2.extensions import connection

_NAME = re.compile(r"[^\x00-\x1f\x7f-\x9f/]{1,64}")


class ListenerError(MusicError):
    """A listener or a player that is not there, or there already."""


@dataclass(frozen=True)
class Listener:
    """One person; the name is the user_id of the plays, the rest goes along with each of them."""

    name: str
    age_group: str = UNKNOWN
    country: str = UNKNOWN_CODE
    subscription_type: str = UNKNOWN


@dataclass(frozen=True)
class Token:
    """What a player proves itself with, as it is stored."""

    listener: str
    player: str
    sha256: bytes
    md5: str
    made_at: datetime
    revoked_at: datetime | None


def token_hashes(token: str) -> tuple[bytes, str]:
    """SHA-256 and MD5 (hex) of a token, whatever the case of its letters."""
    plain = token.strip().lower().encode()
    # MD5 is what AudioScrobbler 1.2 and Last.fm 2.0 send; nobody finds 122 random bits by it.
    return hashlib.sha256(plain).digest(), hashlib.md5(plain, usedforsecurity=False).hexdigest()


def checked_name(name: str, what: str = "listener") -> str:
    """The name as it is stored; ListenerError where it can be no name of a listener or player."""
    found = normalise(name)
    if not _NAME.fullmatch(found):
        raise ListenerError.of(
            f"Name of a {what}",
            found=repr(name),
            wanted="1 to 64 characters, none of them a slash or a control character",
            remedy="choose another name.",
        )
    return found


def listeners(connection: connection) -> dict[str, Listener]:
    """Everybody, by name."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT name, age_group, country, subscription_type FROM listeners ORDER BY name")
        return {row[0]: Listener(*row) for row in cursor.fetchall()}


def find(connection: connection, name: str) -> Listener:
    """The listener of that name, whatever its case; ListenerError naming those there are."""
    there = listeners(connection)
    wanted = normalise(name).lower()
    for known, listener in there.items():
        if known.lower() == wanted:
            return listener
    raise ListenerError.of(
        "Listener",
        found=f"nobody of the name {name}",
        wanted=f"one of {', '.join(there)}" if there else "a listener (there is none yet)",
        remedy=f"sudo musicctl listener add {name!r}",
    )


def one(connection: connection, name: str | None) -> Listener:
    """The listener of that name; without a name the only one. ListenerError where nobody can tell."""
    if name is not None:
        return find(connection, name)
    there = listeners(connection)
    if len(there) == 1:
        return next(iter(there.values()))
    raise ListenerError.of(
        "Listener",
        found=f"{len(there)} listeners" + (f" ({', '.join(there)})" if there else ""),
        wanted="to know whose plays are meant",
        remedy="add --listener NAME" if there else "sudo musicctl listener add NAME --no-token",
    )


def add(connection: connection, listener: Listener) -> bool:
    """Add the listener, as music_owner, or give the one of that name these attributes; whether it is new."""
    with connection, connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO listeners AS l (name, age_group, country, subscription_type) "
            "VALUES (%s, %s, %s, %s) ON CONFLICT (lower(name)) DO UPDATE SET age_group = excluded.age_group, "
            "country = excluded.country, subscription_type = excluded.subscription_type "
            "RETURNING xmax = 0",
            (
                checked_name(listener.name),
                listener.age_group,
                listener.country,
                listener.subscription_type,
            ),
        )
        return bool(_row(cursor)[0])


def make_token(connection: connection, name: str, player: str) -> str:
    """A new token for a player of the listener, as music_owner; this is the only time it is seen.

    ListenerError where the player has one that is not revoked.
    """
    listener, player, token = find(connection, name).name, checked_name(player, "player"), str(uuid.uuid4())
    sha256, md5 = token_hashes(token)
    with connection, connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO listener_tokens (token_sha256, token_md5, listener, player) VALUES (%s, %s, %s, %s) "
            "ON CONFLICT (listener, lower(player)) WHERE revoked_at IS NULL DO NOTHING",
            (sha256, md5, listener, player),
        )
        if cursor.rowcount == 0:
            raise ListenerError.of(
                "Token",
                found=f"one for {player} of {listener} already, which is shown only once",
                wanted="a player without a token",
                remedy=f"sudo musicctl listener revoke {listener!r} --player {player!r}, then ask again",
            )
    return token


def revoke(connection: connection, name: str, player: str | None = None) -> int:
    """Let the tokens of the listener (of one player) open nothing any more; returns how many there were."""
    listener = find(connection, name).name
    with connection, connection.cursor() as cursor:
        cursor.execute(
            "UPDATE listener_tokens SET revoked_at = now() WHERE listener = %s AND revoked_at IS NULL "
            "AND (%s::text IS NULL OR lower(player) = lower(%s))",
            (listener, player, player),
        )
        return cursor.rowcount


def tokens(connection: connection) -> list[Token]:
    """Every token that was ever made, the oldest first."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT listener, player, token_sha256, token_md5, made_at, revoked_at FROM listener_tokens "
            "ORDER BY made_at, listener, player"
        )
        return [Token(row[0], row[1], bytes(row[2]), *row[3:]) for row in cursor.fetchall()]


def _row(cursor: Any) -> tuple[Any, ...]:
    row: tuple[Any, ...] = cursor.fetchone()
    return row
