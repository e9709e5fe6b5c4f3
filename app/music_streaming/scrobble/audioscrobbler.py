"""AudioScrobbler 1.2 for older players; source: https://www.last.fm/api/submissions.

The password is the player's token. A handshake gives a session, which is made of the token and ends with it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import datetime

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from music_streaming.scrobble import store
from music_streaming.scrobble.directory import Player
from music_streaming.scrobble.plays import Heard, RefusedError, checked_text, started_at
from music_streaming.scrobble.web import context, form, note, or_unavailable

MOST = 50
CLOCK_SECONDS = 3_600
NOW_PLAYING, SUBMIT = "/audioscrobbler/now-playing", "/audioscrobbler/submit"


def is_handshake(request: Request) -> bool:
    """Whether a request for the root is a player's handshake."""
    return request.query_params.get("hs", "").lower() == "true"


async def handshake(request: Request) -> Response:
    """Tell the player its session and where to send what."""
    fields = request.query_params
    version, name, at, proof = (fields.get(key, "") for key in ("p", "u", "t", "a"))
    if not version.startswith("1.2"):
        return _said(request, f"FAILED found protocol {version[:20]}, wanted 1.2 or 1.2.1")
    if not at.isdigit() or abs(int(at) - store.utc_now().timestamp()) > CLOCK_SECONDS:
        return _said(request, "BADTIME")

    def prove(md5: str) -> str:
        return hashlib.md5(f"{md5}{at}".encode(), usedforsecurity=False).hexdigest()

    try:
        found = context(request).directory.by_proof(name, proof, prove)
        player = await or_unavailable(found, "handshake")
    except RefusedError as fault:
        return _said(request, f"FAILED {fault.message}")
    if player is None:
        return _said(request, "BADAUTH")
    note(request, "ok: session for the player", player.listener.name)
    address = f"{request.url.scheme}://{request.url.netloc}"
    lines = ("OK", player.session, f"{address}{NOW_PLAYING}", f"{address}{SUBMIT}")
    return PlainTextResponse("\n".join(lines) + "\n")


def _said(request: Request, word: str, listener: str | None = None) -> Response:
    meaning = {
        "BADAUTH": "wanted the listener's name and a token as password",
        "BADTIME": "is its clock right?",
    }
    note(request, f"{word} {meaning.get(word, '')}".strip(), listener)
    return PlainTextResponse(f"{word}\n")


async def _player(request: Request, fields: Mapping[str, str]) -> Player | None:
    found = await or_unavailable(context(request).directory.by_session(fields.get("s", "")), "session")
    if found:
        request.state.listener = found.listener.name
    return found


async def now_playing(request: Request) -> Response:
    """What the player plays now."""
    try:
        fields = await form(request)
        player = await _player(request, fields)
        if player is None:
            return _said(request, "BADSESSION")
        heard = _heard({key: fields.get(key, "") for key in "atbl"}, None)
        await or_unavailable(context(request).set_playing(player, heard), "now playing")
    except RefusedError as fault:
        return _said(request, f"FAILED {fault.message}", getattr(request.state, "listener", None))
    note(request, f"ok: now playing {heard.artist} - {heard.title}", player.listener.name)
    return PlainTextResponse("OK\n")


async def submit(request: Request) -> Response:
    """Up to fifty plays; what can be no play is left out, as the protocol has no word for one of many."""
    left_out = []
    try:
        fields = await form(request)
        player = await _player(request, fields)
        if player is None:
            return _said(request, "BADSESSION")
        now, plays = store.utc_now(), []
        numbers = [number for number in range(MOST + 1) if f"a[{number}]" in fields]
        if not numbers or len(numbers) > MOST:
            raise RefusedError(f"found {len(numbers)} plays, wanted 1 to {MOST}")
        for number in numbers:
            one = {key: fields.get(f"{key}[{number}]", "") for key in "atiblr"}
            try:
                plays.append(_heard(one, started_at(one["i"], f"i[{number}]", now)))
            except RefusedError as fault:
                left_out.append(fault.message)
        await or_unavailable(context(request).send(player, plays), "submit")
    except RefusedError as fault:
        return _said(request, f"FAILED {fault.message}", getattr(request.state, "listener", None))
    reasons = f", {len(left_out)} not: {left_out[0]}" if left_out else ""
    note(request, f"ok: {len(plays)} plays{reasons}", player.listener.name)
    return PlainTextResponse("OK\n")


def _heard(one: Mapping[str, str], started: datetime | None) -> Heard:
    rating = one.get("r", "")
    return Heard(
        title=checked_text(one["t"], "t (track)"),
        artist=checked_text(one["a"], "a (artist)"),
        started=started,
        album=one["b"] or None,
        duration_ms=f"{one['l']}000" if one["l"].isdigit() else None,
        liked=True if rating == "L" else None,
        skipped=True if rating == "S" else None,
    )


ROUTES = [
    Route(NOW_PLAYING, now_playing, methods=["POST"]),
    Route(SUBMIT, submit, methods=["POST"]),
]
