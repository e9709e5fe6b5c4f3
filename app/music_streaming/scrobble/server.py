"""The service music-scrobble: what players send, by HTTP, into Kafka."""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import re
from collections.abc import AsyncIterator, Iterable
from datetime import timedelta

import click
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from music_streaming import listener
from music_streaming.error import MusicError
from music_streaming.listener import Listener, Token
from music_streaming.scrobble import audioscrobbler, history, lastfm, listenbrainz, page
from music_streaming.scrobble.database import Database
from music_streaming.scrobble.directory import Directory
from music_streaming.scrobble.inferred import Playing
from music_streaming.scrobble.plays import RefusedError
from music_streaming.scrobble.protection import CONNECTIONS, GuardedProtocol, Tidy
from music_streaming.scrobble.sender import Sender
from music_streaming.scrobble.web import Context, error, note
from music_streaming.service import log_to_journal, notify
from music_streaming.settings import Settings


async def root(request: Request) -> Response:
    """The handshake of AudioScrobbler 1.2, or the page."""
    if audioscrobbler.is_handshake(request):
        return await audioscrobbler.handshake(request)
    return await page.guarded(request)


ROUTES: list[Route] = [
    Route("/", root, methods=["GET"]),
    *listenbrainz.ROUTES,
    *lastfm.ROUTES,
    *audioscrobbler.ROUTES,
    *page.ROUTES,
    *history.ROUTES,
]
PREFLIGHT_SECONDS = 21_600


def application(settings: Settings) -> Starlette:
    """The ASGI application; its parts are made when it starts."""

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        database, sender = Database(settings.postgres), Sender(settings.kafka)

        async def load() -> tuple[dict[str, Listener], list[Token]]:
            return await database.run(
                lambda cursor: (listener.listeners(cursor.connection), listener.tokens(cursor.connection))
            )

        playing = None
        if settings.scrobble.infer_plays:
            playing = Playing(timedelta(seconds=settings.scrobble.infer_grace_seconds))
        parts = app.state.context = Context(settings, Directory(load), sender, database, playing=playing)
        inferring = asyncio.create_task(parts.infer())
        try:
            yield
        finally:
            inferring.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await inferring
            await parts.imports.close()
            await sender.close()
            database.close()

    return Starlette(
        routes=ROUTES,
        lifespan=lifespan,
        middleware=[
            Middleware(
                CORSMiddleware,
                allow_origins=["*"],
                allow_methods=["GET", "POST", "OPTIONS"],
                allow_headers=["Authorization", "Content-Type"],
                # Chrome asks for this before a page of the internet may reach a home network.
                allow_private_network=True,
                max_age=PREFLIGHT_SECONDS,
            ),
            Middleware(Tidy),
        ],
        exception_handlers={RefusedError: refused, HTTPException: not_served},
    )


async def refused(request: Request, fault: Exception) -> Response:
    """Say what was found and wanted."""
    if not isinstance(fault, RefusedError):
        raise fault
    note(request, f"{fault.status}: {fault.message}", getattr(request.state, "listener", None))
    headers = {"WWW-Authenticate": "Token"} if fault.status == 401 else None
    return error(fault.message, fault.status, headers)


async def not_served(request: Request, fault: Exception) -> Response:
    """A path or method that nothing serves, with the right one where it is a near miss."""
    if not isinstance(fault, HTTPException):
        raise fault
    path = request.scope.get("music_path", request.url.path)[:200]
    if fault.status_code == 405:
        allowed = ", ".join(sorted(method for method in allowed_methods(request) if method != "HEAD"))
        message = f"{request.method} {path}: found method {request.method}, wanted {allowed}"
    elif fault.status_code == 404:
        message = f"{path}: found no such path. {advice(path, request)}"
    else:
        message = str(fault.detail)
    note(request, f"{fault.status_code}: {message}")
    return error(message, fault.status_code, fault.headers)


def allowed_methods(request: Request) -> set[str]:
    """What the routes of the path take."""
    return {
        method
        for route in ROUTES
        if route.path_regex.match(request.scope["path"])
        for method in route.methods or ()
    }


def advice(path: str, request: Request) -> str:
    """Which address a player wants, from the path that it asked for."""
    address = f"{request.url.scheme}://{request.url.netloc}"
    close = near_miss(path, ROUTES)
    if close is None:
        return f"In a player, the server's address is {address} (some want {address}/1/)"
    return (
        f"Wanted {close}: set the server's address in the player to {address}, and {address}/1/ if that fails"
    )


def near_miss(path: str, routes: Iterable[BaseRoute]) -> str | None:
    """The path of a route that this one was probably meant to be."""
    known = [route.path for route in routes if isinstance(route, Route) and route.path != "/"]
    found = "/" + path.strip("/").lower()
    for end in sorted(known, key=len, reverse=True):
        # The right end behind a wrong beginning: /api/submit-listens.
        tail = re.sub(r"^/1(?=/)", "", end)
        if len(tail) > 1 and re.search(
            f"{re.sub('{[a-z]+}', '[^/]+', re.escape(tail).replace(chr(92), ''))}$", found
        ):
            return end
    (close,) = difflib.get_close_matches(found, known, 1, 0.6) or (None,)
    return close


class Server(uvicorn.Server):
    """Tells systemd when it answers, and when it ends."""

    async def startup(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]
        """Begin to answer."""
        await super().startup(sockets)  # type: ignore[arg-type]
        if self.started:
            notify("READY=1")

    async def shutdown(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]
        """Answer what is being asked, then end."""
        notify("STOPPING=1")
        await super().shutdown(sockets)  # type: ignore[arg-type]


def configuration(settings: Settings) -> uvicorn.Config:
    """How uvicorn is to serve it."""
    bind = settings.scrobble.bind
    return uvicorn.Config(
        application(settings),
        # Without a name it listens on every address of both families.
        host="" if bind == "*" else bind,
        port=settings.scrobble.port,
        http=GuardedProtocol,
        ws="none",
        loop="asyncio",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=CONNECTIONS,
        timeout_keep_alive=15,
        timeout_graceful_shutdown=15,
        h11_max_incomplete_event_size=16_384,
    )


@click.command()
def main() -> None:
    """Take the plays of real players (the service music-scrobble) until stopped."""
    log_to_journal()
    try:
        settings = Settings.load()
    except MusicError as fault:
        raise click.ClickException(str(fault)) from None
    Server(configuration(settings)).run()


if __name__ == "__main__":
    main()
