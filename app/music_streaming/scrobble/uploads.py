"""The imports of files that browsers have sent: the one at work, and what became of the last ones.

The importer reads the file in a process of its own (imports/upload.py). One at a time: two would halve each
other's speed, and twice as much lie on the disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import sys
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO, cast

from starlette.datastructures import UploadFile

from music_streaming.scrobble.plays import RefusedError

log = logging.getLogger("music_streaming.scrobble.uploads")

KEPT = 50
# A report names every file of a zip.
LINE_BYTES = 16 << 20
MORE = "journalctl -u music-scrobble -n 50 on the board tells more."


@dataclass
class Import:
    """One import: what it says now, and at its end the report, or why there is none."""

    listener: str
    file: str
    said: str = "sent by the browser"
    report: list[str] = field(default_factory=list)
    error: str = ""
    ended: bool = False


class Imports:
    """The import at work, and the last ones."""

    def __init__(self) -> None:
        self._kept: deque[Import] = deque(maxlen=KEPT)
        self._task: asyncio.Task[None] | None = None
        self._busy = False

    def last(self, listener: str) -> Import | None:
        """The newest import of the listener since the server was started."""
        return next((one for one in reversed(self._kept) if one.listener == listener), None)

    @contextlib.contextmanager
    def claim(self) -> Iterator[None]:
        """Be the only one until the block ends; RefusedError (409) where there is one already."""
        if self._busy or (self._task is not None and not self._task.done()):
            raise RefusedError(
                "Import: found another one at work, wanted one at a time; wait for its end", 409
            )
        self._busy = True
        try:
            yield
        finally:
            self._busy = False

    def start(self, listener: str, upload: UploadFile, *options: str) -> None:
        """Import the file, which is closed at the end."""
        called = (upload.filename or "").replace("\0", "")[:300]
        one = Import(listener, called or "a file without a name")
        self._kept.append(one)
        self._task = asyncio.create_task(_work(one, upload, options))

    async def close(self) -> None:
        """End what is at work: to import the file again later is safe."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task


async def _work(one: Import, upload: UploadFile, options: tuple[str, ...]) -> None:
    file = cast("IO[bytes]", upload.file)
    try:
        command = ("-m", "music_streaming.imports.upload", *options, "--", one.listener, one.file)
        process = await asyncio.create_subprocess_exec(
            sys.executable, *command, stdin=file.fileno(), stdout=asyncio.subprocess.PIPE, limit=LINE_BYTES
        )
        try:
            await _listen(one, process)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    except Exception:
        log.exception("import of %s", one.listener)
    finally:
        await upload.close()
        if not (one.report or one.error):
            one.error = f"The import broke off; to repeat it is safe. {MORE}"
        one.ended = True
        log.info("import of %s: %s", one.listener, one.error or one.report[-1])


async def _listen(one: Import, process: asyncio.subprocess.Process) -> None:
    if process.stdout is None:
        raise TypeError(process)
    async for line in process.stdout:
        told = json.loads(line)
        one.said = told.get("said", one.said)
        one.report, one.error = told.get("report", one.report), told.get("error", one.error)
    await process.wait()
