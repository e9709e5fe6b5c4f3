"""The page of the server: what to type into each player, with QR codes, and what became of the last requests.

The browser asks for the listener's name and a token (HTTP Basic), so that the page can show both to copy.
Nothing on it runs a script, and templates escape all that players have sent.
"""

from __future__ import annotations

import base64
import hmac
import io
from dataclasses import dataclass
from hashlib import sha256

import segno
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from music_streaming.scrobble.directory import Player
from music_streaming.scrobble.plays import RefusedError
from music_streaming.scrobble.web import context, form, note, or_unavailable

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
TEMPLATES = Environment(
    loader=PackageLoader("music_streaming.scrobble"), autoescape=True, undefined=StrictUndefined
)


@dataclass(frozen=True)
class Recipe:
    """What to type into a player: labels and values."""

    player: str
    values: tuple[tuple[str, str], ...]
    remark: str = ""


def recipes(address: str, name: str, token: str) -> list[Recipe]:
    """For each known player what it wants; address: of this server, without a slash at the end."""
    host = address.partition("://")[2]
    return [
        Recipe(
            "Pano Scrobbler (Android, desktop)",
            (("API URL (Custom ListenBrainz)", f"{address}/"), ("Token", token)),
        ),
        Recipe(
            "Web Scrobbler (browsers)",
            (("ListenBrainz API URL", f"{address}/1/submit-listens"), ("Token", token)),
        ),
        Recipe("Navidrome", (("ND_LISTENBRAINZ_BASEURL", f"{address}/1/"), ("Token, in the profile", token))),
        Recipe("Jellyfin (ListenBrainz plugin)", (("API base URL", address), ("Token", token))),
        Recipe("Tauon, Strawberry, Rhythmbox plugins", (("ListenBrainz server", address), ("Token", token))),
        Recipe(
            "listenbrainz-mpd",
            (
                (
                    "~/.config/listenbrainz-mpd/config.toml",
                    f'[submission]\napi_url = "{address}"\ntoken = "{token}"',
                ),
            ),
        ),
        Recipe(
            "mpdscribble (AudioScrobbler 1.2)",
            (("mpdscribble.conf", f"[board]\nurl = {address}/\nusername = {name}\npassword = {token}"),),
        ),
        Recipe(
            "Players of Last.fm's API 2.0 with an address of their own",
            (("API root", f"{address}/2.0/"), ("User", name), ("Password", token)),
            "API key and secret are not looked at.",
        ),
        Recipe(
            "By hand",
            (("curl", f"curl -H 'Authorization: Token {token}' http://{host}/1/validate-token"),),
        ),
    ]


async def visitor(request: Request) -> tuple[Player, str]:
    """Who has logged in, and with which token; RefusedError (401) where nobody has."""
    scheme, _, sent = request.headers.get("authorization", "").partition(" ")
    name, token = "", ""
    if scheme.lower() == "basic":
        try:
            name, _, token = base64.b64decode(sent, validate=True).decode().partition(":")
        except ValueError:
            token = ""
    player = await or_unavailable(context(request).directory.by_token(token), "login") if token else None
    if player is None or player.listener.name.lower() != name.strip().lower():
        raise RefusedError("Login: wanted the listener's name and a player's token as password", 401)
    request.state.listener = player.listener.name
    return player, token.strip().lower()


async def guarded(request: Request, status: int = 200, said: str = "") -> Response:
    """The page, or the question for name and token."""
    try:
        player, token = await visitor(request)
    except RefusedError as fault:
        # The first question of a browser is no failure.
        if "authorization" in request.headers:
            note(request, f"{fault.status}: {fault.message}")
        headers = HEADERS | (
            {"WWW-Authenticate": 'Basic realm="music", charset="UTF-8"'} if fault.status == 401 else {}
        )
        return HTMLResponse(
            TEMPLATES.get_template("login.html").render(message=fault.message), fault.status, headers
        )
    address = f"{request.url.scheme}://{request.url.netloc}"
    name = player.listener.name
    # Those that came with no valid token are the ones that somebody is looking for.
    seen = [one for one in reversed(context(request).seen) if one.listener in (None, name)][:50]
    content = TEMPLATES.get_template("page.html").render(
        address=address,
        name=name,
        player=player.player,
        recipes=recipes(address, name, token),
        qr=qr_code(f"{address}/"),
        qr_token=qr_code(token),
        seen=seen,
        said=said,
    )
    return HTMLResponse(content, status, HEADERS)


def qr_code(text: str) -> str:
    """A QR code as an address of an image (data:)."""
    drawn = io.BytesIO()
    segno.make(text, error="m").save(drawn, kind="svg", scale=4, border=2)
    return f"data:image/svg+xml;base64,{base64.b64encode(drawn.getvalue()).decode()}"


async def ask_approval(request: Request) -> Response:
    """The web login of Last.fm's API: ask the listener whether the program with this token may send plays."""
    token = request.query_params.get("token", "")
    try:
        player, _ = await visitor(request)
    except RefusedError:
        return await guarded(request)
    if not context(request).approvals.waits(token):
        return await guarded(
            request, 404, "This login is not waited for any more: begin again in the player."
        )
    content = TEMPLATES.get_template("approve.html").render(
        name=player.listener.name, token=token, proof=proof(player, token)
    )
    return HTMLResponse(content, 200, HEADERS)


def proof(player: Player, what: str) -> str:
    """What shows that a form was filled in on a page of this server: another page cannot know it."""
    return hmac.new(player.session.encode(), what.encode(), sha256).hexdigest()


async def approve(request: Request) -> Response:
    """The listener's yes."""
    try:
        fields = await form(request)
        player, _ = await visitor(request)
    except RefusedError:
        return await guarded(request)
    token = fields.get("token", "")
    if not hmac.compare_digest(fields.get("proof", "").encode(), proof(player, token).encode()):
        return await guarded(request, 403, "This yes did not come from this page.")
    context(request).approvals.approve(token, player)
    return await guarded(request, 200, "The player may send plays now: go on there.")


ROUTES = [
    Route("/api/auth", ask_approval, methods=["GET"]),
    Route("/api/auth", approve, methods=["POST"]),
]
