"""Last.fm's API 2.0 for scrobbling, below /2.0; source: https://www.last.fm/api/scrobbling.

The password is the player's token. API keys and signatures are not looked at: they prove which program asks,
and this server knows none. A session key is made of the token and ends with it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any
from xml.etree.ElementTree import Element, SubElement, tostring

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from music_streaming.event import song_id
from music_streaming.scrobble import store
from music_streaming.scrobble.directory import Player
from music_streaming.scrobble.plays import Heard, RefusedError, checked_text, started_at
from music_streaming.scrobble.web import context, form, note, or_unavailable

MOST = 50
WRITES = ("track.scrobble", "track.updatenowplaying", "track.love", "track.unlove", "auth.getmobilesession")
# Last.fm's numbers of errors, with the status that goes along.
FAILED, METHOD, LOGIN, MISSING, SESSION, OFFLINE, UNAPPROVED = 8, 3, 4, 6, 9, 16, 14
_STATUS = {FAILED: 400, METHOD: 400, LOGIN: 403, MISSING: 400, SESSION: 403, OFFLINE: 503, UNAPPROVED: 403}

Fields = Mapping[str, str]


class FailedError(Exception):
    """An answer of Last.fm's kind: a number and a sentence."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.number, self.message = number, message


async def serve(request: Request) -> Response:
    """Any method, by its name in the field `method`."""
    fields: Fields = {}
    try:
        fields = await form(request)
        method = fields.get("method", "").lower()
        if method not in METHODS:
            raise FailedError(METHOD, f"method: found {method[:60]!r}, wanted one of {', '.join(METHODS)}")
        if method in WRITES and request.method != "POST":
            raise FailedError(MISSING, f"{method}: found a GET request, wanted POST")
        answer = await METHODS[method](request, fields)
        return _answer(fields, answer, 200)
    except FailedError as fault:
        note(request, f"{fault.number}: {fault.message}", getattr(request.state, "listener", None))
        return _failure(fields, fault)
    except RefusedError as fault:
        note(request, f"{fault.status}: {fault.message}", getattr(request.state, "listener", None))
        number = OFFLINE if fault.status == 503 else MISSING
        return _failure(fields, FailedError(number, fault.message))


def _failure(fields: Fields, fault: FailedError) -> Response:
    if fields.get("format") == "json":
        return JSONResponse({"error": fault.number, "message": fault.message}, _STATUS[fault.number])
    root = Element("lfm", status="failed")
    SubElement(root, "error", code=str(fault.number)).text = _plain(fault.message)
    return _xml(root, _STATUS[fault.number])


def _answer(fields: Fields, content: dict[str, Any], status: int) -> Response:
    """The content as JSON, or as the XML that Last.fm makes of the same."""
    if fields.get("format") == "json":
        return JSONResponse(content, status)
    root = Element("lfm", status="ok")
    for name, value in content.items():
        _add(root, name, value)
    return _xml(root, status)


def _add(parent: Element, name: str, value: Any) -> None:
    for one in value if isinstance(value, list) else [value]:
        element = SubElement(parent, name)
        if not isinstance(one, dict):
            element.text = _plain(str(one))
            continue
        for key, inner in one.items():
            if key == "@attr":
                element.attrib.update({attribute: str(given) for attribute, given in inner.items()})
            elif key == "#text":
                element.text = _plain(str(inner))
            elif key in ("corrected", "code"):
                element.set(key, str(inner))
            else:
                _add(element, key, inner)


def _xml(root: Element, status: int) -> Response:
    content = tostring(root, encoding="utf-8", xml_declaration=True)
    return Response(content, status, media_type="application/xml")


def _plain(text: str) -> str:
    """The text without what XML cannot hold."""
    return re.sub("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", text)


async def _session_player(request: Request, fields: Fields) -> Player:
    if not fields.get("sk"):
        raise FailedError(MISSING, "sk: found none, wanted the session key of auth.getMobileSession")
    player = await or_unavailable(context(request).directory.by_session(fields["sk"]), "session")
    if player is None:
        raise FailedError(
            SESSION, "sk: found none of this board's or a revoked one; log in again with the token"
        )
    request.state.listener = player.listener.name
    return player


def _session(player: Player) -> dict[str, Any]:
    return {"session": {"name": player.listener.name, "key": player.session, "subscriber": 0}}


async def _mobile_session(request: Request, fields: Fields) -> dict[str, Any]:
    name, password, proof = (fields.get(key, "").strip() for key in ("username", "password", "authToken"))
    directory = context(request).directory
    if not name or not (password or proof):
        raise FailedError(
            MISSING, "username, password: found one of them missing, wanted the listener's name and token"
        )
    if password:
        player = await or_unavailable(directory.by_token(password), "session")
    else:
        player = await or_unavailable(
            directory.by_proof(name, proof, lambda md5: _md5(name + md5)), "session"
        )
    if player is None or player.listener.name.lower() != name.lower():
        raise FailedError(
            LOGIN, "password: found another one, wanted the player's token (musicctl listener add)"
        )
    note(request, "ok: session for the player", player.listener.name)
    return _session(player)


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


async def _get_token(request: Request, _fields: Fields) -> dict[str, Any]:
    return {"token": context(request).approvals.make()}


async def _get_session(request: Request, fields: Fields) -> dict[str, Any]:
    return _session(_redeemed(request, fields.get("token", "")))


def _redeemed(request: Request, token: str) -> Player:
    player = context(request).approvals.redeem(token)
    if player is None:
        raise FailedError(
            UNAPPROVED, "token: found one that nobody has approved, wanted one approved in a browser"
        )
    return player


def _heard(fields: Fields, suffix: str, now: datetime | None) -> Heard:
    at = fields.get(f"timestamp{suffix}", "")
    seconds = fields.get(f"duration{suffix}", "")
    return Heard(
        title=checked_text(fields.get(f"track{suffix}", ""), "track"),
        artist=checked_text(fields.get(f"artist{suffix}", ""), "artist"),
        started=started_at(at, "timestamp", now) if now else None,
        album=fields.get(f"album{suffix}") or None,
        duration_ms=f"{seconds}000" if seconds.isdigit() else None,
        player=None,
    )


def _shown(fields: Fields, suffix: str) -> dict[str, Any]:
    def corrected(name: str) -> dict[str, Any]:
        return {"corrected": 0, "#text": fields.get(f"{name}{suffix}", "")}

    return {
        "track": corrected("track"),
        "artist": corrected("artist"),
        "album": corrected("album"),
        "albumArtist": {"corrected": 0, "#text": fields.get(f"albumArtist{suffix}", "")},
    }


async def _scrobble(request: Request, fields: Fields) -> dict[str, Any]:
    player = await _session_player(request, fields)
    suffixes = [f"[{number}]" for number in range(MOST + 1) if f"track[{number}]" in fields] or [""]
    if len(suffixes) > MOST:
        raise FailedError(MISSING, f"track: found more than {MOST} plays, wanted at most {MOST} in a request")
    now, plays, shown = store.utc_now(), [], []
    for suffix in suffixes:
        ignored = {"code": 0, "#text": ""}
        try:
            plays.append(_heard(fields, suffix, now))
        except RefusedError as fault:
            # Last.fm takes the good ones and says of the others why not.
            ignored = {"code": _ignored(fault.message), "#text": fault.message}
        at = fields.get(f"timestamp{suffix}", "")
        shown.append(_shown(fields, suffix) | {"timestamp": at, "ignoredMessage": ignored})
    if plays:
        await or_unavailable(context(request).send(player, plays), "track.scrobble")
    ignored_count = len(shown) - len(plays)
    reason = next((one["ignoredMessage"]["#text"] for one in shown if one["ignoredMessage"]["code"]), "")
    said = f"ok: {len(plays)} plays" + (f", {ignored_count} not: {reason}" if ignored_count else "")
    note(request, said, player.listener.name)
    counted = {"accepted": len(plays), "ignored": ignored_count}
    return {"scrobbles": {"@attr": counted, "scrobble": shown if len(shown) > 1 else shown[0]}}


def _ignored(message: str) -> int:
    """Last.fm's number for why a play is ignored."""
    for number, words in ((1, "artist:"), (2, "track:"), (4, "hour from now")):
        if words in message:
            return number
    return 3


async def _now_playing(request: Request, fields: Fields) -> dict[str, Any]:
    player = await _session_player(request, fields)
    heard = _heard(fields, "", None)
    await or_unavailable(context(request).set_playing(player, heard), "track.updateNowPlaying")
    note(request, f"ok: now playing {heard.artist} - {heard.title}", player.listener.name)
    return {"nowplaying": _shown(fields, "") | {"ignoredMessage": {"code": 0, "#text": ""}}}


async def _feedback(request: Request, fields: Fields, score: int) -> dict[str, Any]:
    player = await _session_player(request, fields)
    heard = _heard(fields, "", None)
    song = song_id(heard.artist, heard.title)

    def ask(cursor: Any) -> None:
        store.set_feedback(
            cursor, player.listener.name, song, score, title=heard.title, artist=heard.artist, mbid=None
        )

    await or_unavailable(context(request).database.run(ask), "track.love")
    return {}


async def _love(request: Request, fields: Fields) -> dict[str, Any]:
    return await _feedback(request, fields, 1)


async def _unlove(request: Request, fields: Fields) -> dict[str, Any]:
    return await _feedback(request, fields, 0)


Method = Callable[[Request, Fields], Awaitable[dict[str, Any]]]
METHODS: dict[str, Method] = {
    "auth.getmobilesession": _mobile_session,
    "auth.gettoken": _get_token,
    "auth.getsession": _get_session,
    "track.scrobble": _scrobble,
    "track.updatenowplaying": _now_playing,
    "track.love": _love,
    "track.unlove": _unlove,
}
ROUTES = [Route("/2.0", serve, methods=["GET", "POST"])]
