"""One archive for whoever helps the owner: what runs, what is wrong, what was logged; never a secret.

The folder of secrets is read only to know what to leave out. Everything that goes into the archive is
searched for each secret's text, and for what is named like one.
"""

from __future__ import annotations

import dataclasses
import io
import json
import os
import platform
import re
import subprocess
import tarfile
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from functools import partial
from importlib.metadata import distributions
from pathlib import Path
from typing import Any
from urllib.parse import quote

from music_streaming.board.machine import Board
from music_streaming.board.systemd import journal
from music_streaming.error import MusicError

LINES = 500
FOLDER = "music-support"
HIDDEN = "[secret]"
# Shorter ones are words of any text.
SECRET_LENGTH = 6
FILES = (
    "etc/os-release", "etc/resolv.conf",
    "proc/cmdline", "proc/meminfo", "proc/loadavg", "proc/device-tree/model",
)  # fmt: skip
# NAME=VALUE, NAME: VALUE, and as JSON, where the name says that it is secret; user:password@ in an address;
# HTTP's header.
_WORDS = "password|passwd|passphrase|secret|token|api[_-]?key|credential"
_NAMED = re.compile(
    rf"""(?ix)
    ( ["']? [\w.-]* (?: {_WORDS} ) [\w.-]* ["']? \s* [=:] \s* )
    ( "[^"\n]*" | '[^'\n]*' | [^\s,;&}}\]]+ )
    """
)
_ADDRESS = re.compile(r"(://[^/\s:@]*:)[^/\s@]+(@)")
_HEADER = re.compile(r"(?i)\b(Authorization\s*[:=]\s*\S+\s+|Bearer\s+|Token\s+)[\w.~+/=-]{6,}")


def without_secrets(text: str, secrets: Iterable[str]) -> str:
    """`text` with each of `secrets`, and whatever is named like one, replaced by HIDDEN."""
    # Longer ones first: one may be part of another.
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    text = _NAMED.sub(lambda found: f"{found[1]}{HIDDEN}", text)
    text = _ADDRESS.sub(rf"\1{HIDDEN}\2", text)
    return _HEADER.sub(lambda found: f"{found[1]}{HIDDEN}", text)


def clean(value: Any, secrets: Iterable[str]) -> Any:
    """`value`, of what JSON can hold, with every text in it as by `without_secrets`."""
    if isinstance(value, dict):
        return {key: clean(inner, secrets) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [clean(inner, secrets) for inner in value]
    return without_secrets(value, secrets) if isinstance(value, str) else value


def secrets_of(folder: Path) -> list[str]:
    """The content of each file in the folder of secrets, in each form in which a line may have it.

    MusicError for whoever may not read them all: without them nobody could tell that they are in no line.
    """
    try:
        contents = [
            path.read_bytes().decode(errors="replace") for path in sorted(folder.iterdir()) if path.is_file()
        ]
    except PermissionError as error:
        raise MusicError.of(
            "Support",
            found=f"{error.filename} closed to this user",
            wanted="root, who knows what to leave out",
            remedy="sudo musicctl support",
        ) from None
    except FileNotFoundError:
        return []
    words = {
        word for text in contents for word in (text.strip(), *text.split()) if len(word) >= SECRET_LENGTH
    }
    return sorted({form for word in words for form in (word, quote(word, safe=""), json.dumps(word)[1:-1])})


def parts(
    of: Board, status: Callable[[], Any], diagnosis: Callable[[], Any]
) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Name and question of each file of the archive; an answer is text, or what JSON can hold."""
    yield "versions.json", lambda: versions(of)
    yield "status.json", status
    yield "doctor.json", diagnosis
    yield "units.json", lambda: [dataclasses.asdict(of.systemd.unit(name)) for name in _units(of)]
    yield "settings.json", lambda: of.settings.model_dump(mode="json")
    for name in FILES:
        yield f"system/{name.replace('/', '-')}", partial(_text, of.root / name)
    for unit in [*_units(of), "docker", "ssh", "systemd-timesyncd", "kernel"]:
        yield f"journal/{unit}.txt", partial(_journal, unit)


def _units(of: Board) -> list[str]:
    try:
        return of.systemd.installed()
    except MusicError:
        return []


def _journal(unit: str) -> str:
    return "\n".join(journal(unit, LINES, kernel=unit == "kernel"))


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace").replace("\0", "")


def versions(of: Board) -> dict[str, Any]:
    """Of the app and its Python packages, the system, and the images that the units run."""
    images = {name: unit.image for name in _units(of) if (unit := of.systemd.unit(name)).image}
    return {
        "packages": {found.name: found.version for found in distributions()},
        "python": platform.python_version(),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "images": images,
    }


def write(
    of: Board,
    place: Path,
    now: datetime,
    *,
    status: Callable[[], Any],
    diagnosis: Callable[[], Any],
    tell: Callable[[str], None] = lambda _: None,
) -> Path:
    """Write the archive into the folder `place`, readable by its owner alone; its path.

    A part that cannot be had is in it as the reason why. MusicError where a secret would be in it all the
    same.
    """
    secrets = secrets_of(of.settings.postgres.secrets_dir)
    path = place / f"{FOLDER}-{platform.node()}-{now:%Y%m%dT%H%M%SZ}.tar.gz"
    unfinished = path.with_name(f".{path.name}.part")
    try:
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as raw, tarfile.open(fileobj=raw, mode="w:gz") as archive:
            for name, ask in parts(of, status, diagnosis):
                tell(name)
                _add(archive, f"{FOLDER}/{name}", _answer(ask, secrets), secrets, now)
        unfinished.rename(path)
    except OSError as error:
        raise MusicError.of(
            "Support",
            found=f"{error.strerror} at {place}",
            wanted="a folder with room that this user may write",
            remedy="sudo musicctl support FOLDER",
        ) from None
    finally:
        unfinished.unlink(missing_ok=True)
    return path


def _answer(ask: Callable[[], Any], secrets: list[str]) -> str:
    try:
        answer = ask()
    except (MusicError, OSError, ValueError, subprocess.SubprocessError) as error:
        answer = f"not to be had: {type(error).__name__}: {error}"
    if isinstance(answer, str):
        return without_secrets(answer, secrets) + "\n"
    # Through JSON, so that times and paths are text before they are searched.
    plain = json.loads(json.dumps(answer, default=str))
    return json.dumps(clean(plain, secrets), ensure_ascii=False, indent=2) + "\n"


def _add(archive: tarfile.TarFile, name: str, text: str, secrets: list[str], now: datetime) -> None:
    if any(secret in text for secret in secrets if secret not in HIDDEN):
        raise MusicError.of(
            "Support",
            found=f"a secret left in {name}",
            wanted="none",
            remedy="nothing was written; report it without the file",
        )
    content = text.encode()
    entry = tarfile.TarInfo(name)
    entry.size, entry.mtime, entry.mode = len(content), int(now.timestamp()), 0o600
    archive.addfile(entry, io.BytesIO(content))
