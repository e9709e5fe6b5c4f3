"""Imports in the browser: the page takes an export and shows the same report as `musicctl import`.

The file goes to disk as it comes (TMPDIR, in a file without a name); uploads.py has what becomes of it.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncGenerator
from hmac import compare_digest
from typing import cast
from zoneinfo import available_timezones

from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from music_streaming.scrobble.page import HEADERS, TEMPLATES, guarded, proof, visitor
from music_streaming.scrobble.plays import RefusedError
from music_streaming.scrobble.web import context, note, too_long

PATH = "/import"
UPLOAD_BYTES = 1 << 30
"""The largest exports are those of Takeout, some hundred MB."""
FREE_BYTES = 1 << 30
"""So much stays free on the disk: the file's plays need room, too."""
SILENT_SECONDS, UPLOAD_SECONDS = 30.0, 3_600.0
FORM_OVERHEAD = 10_000


async def show(request: Request, status: int = 200, refused: str = "") -> Response:
    """The page: what became of the last import, and the form for the next one."""
    try:
        player, _ = await visitor(request)
    except RefusedError:
        return await guarded(request)
    content = TEMPLATES.get_template("import.html").render(
        name=player.listener.name,
        last=context(request).imports.last(player.listener.name),
        proof=proof(player, PATH),
        megabytes=UPLOAD_BYTES >> 20,
        refused=refused,
    )
    return HTMLResponse(content, status, HEADERS)


async def take(request: Request) -> Response:
    """Take a file of the form (multipart/form-data), and begin to import it."""
    try:
        player, _ = await visitor(request)
    except RefusedError:
        return await guarded(request)
    listener, imports = player.listener.name, context(request).imports
    try:
        # In the address, so that nothing of a file has been read that another page sent.
        if not compare_digest(request.query_params.get("proof", "").encode(), proof(player, PATH).encode()):
            raise RefusedError("Import: this file did not come from this page", 403)
        with imports.claim():
            upload, options = _chosen(await read_form(request))
            cast("tempfile.SpooledTemporaryFile[bytes]", upload.file).rollover()
            imports.start(listener, upload, *options)
    except RefusedError as fault:
        note(request, f"{fault.status}: {fault.message}", listener)
        return await show(request, fault.status, fault.message)
    note(request, f"ok: {upload.size:,} bytes to be imported", listener)
    return RedirectResponse(PATH, 303, HEADERS)


def _chosen(fields: FormData) -> tuple[UploadFile, list[str]]:
    upload, zone = fields.get("file"), fields.get("timezone") or ""
    if not isinstance(upload, UploadFile) or not upload.size:
        raise RefusedError("Import: found no file, wanted an export: choose one")
    if not isinstance(zone, str) or (zone and zone not in available_timezones()):
        raise RefusedError(f"Time zone: found {zone!r}, wanted a name such as Europe/Berlin")
    options = [f"--timezone={zone}"] if zone else []
    return upload, options + (["--dry-run"] if fields.get("dry_run") else [])


async def read_form(request: Request) -> FormData:
    """The form, its file on disk; RefusedError where it is too long, too slow, or none."""
    announced = request.headers.get("content-length", "")
    size = int(announced) if announced.isdigit() else UPLOAD_BYTES
    if size > UPLOAD_BYTES + FORM_OVERHEAD:
        raise too_long(UPLOAD_BYTES)
    free = shutil.disk_usage(tempfile.gettempdir()).free
    if free - size < FREE_BYTES:
        raise RefusedError(
            f"Import: found {free:,} bytes free on the disk, wanted {size + FREE_BYTES:,}; free some", 507
        )
    try:
        async with asyncio.timeout(UPLOAD_SECONDS):
            return await MultiPartParser(request.headers, _pieces(request), max_files=1, max_fields=5).parse()
    except TimeoutError:
        raise RefusedError("Import: found the file unfinished, and nothing more came", 408) from None
    except ClientDisconnect:
        raise RefusedError("Import: found the connection closed before the end of the file") from None
    except (MultiPartException, KeyError):
        raise RefusedError("Import: found no file of a form, wanted the one of this page") from None


async def _pieces(request: Request) -> AsyncGenerator[bytes]:
    length, stream = 0, request.stream()
    while True:
        async with asyncio.timeout(SILENT_SECONDS):
            piece = await anext(stream, None)
        if piece is None:
            return
        length += len(piece)
        if length > UPLOAD_BYTES + FORM_OVERHEAD:
            raise too_long(UPLOAD_BYTES)
        yield piece


ROUTES = [
    Route(PATH, show, methods=["GET"]),
    Route(PATH, take, methods=["POST"]),
]
