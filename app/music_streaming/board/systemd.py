"""systemd of this board: units by D-Bus (org.freedesktop.systemd1(5)), the journal as JSON."""

from __future__ import annotations

import datetime as dt
import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from jeepney import DBusAddress, DBusErrorResponse, HeaderFields, MessageType, new_method_call
from jeepney.io.blocking import open_dbus_connection

from music_streaming.error import MusicError

NAME = "org.freedesktop.systemd1"
MANAGER = DBusAddress("/org/freedesktop/systemd1", bus_name=NAME, interface=f"{NAME}.Manager")
# What starts a container's unit; its first argument is the image.
RUN_IMAGE = "/run-image"
NOT_ALLOWED = ("AccessDenied", "InteractiveAuthorizationRequired")


class SystemdError(MusicError):
    """systemd does not answer, or refuses."""


class NotAllowedError(SystemdError):
    """Only root may ask for that."""


@dataclass(frozen=True)
class Unit:
    """A service as systemd sees it, names and words as in systemctl(1).

    image: of a container's unit. result: why it ended. group: its control group's path.
    """

    name: str
    load: str
    active: str
    sub: str
    enabled: str = "enabled"
    restarts: int = 0
    result: str = "success"
    text: str = ""
    image: str = ""
    group: str = ""


class Systemd:
    """Asks one question per connection, so that a broken one spoils no other; each within `seconds`."""

    def __init__(self, bus: str = "SYSTEM", seconds: float = 10) -> None:
        self._bus, self._seconds = bus, seconds

    def installed(self, pattern: str = "music-*.service") -> list[str]:
        """The names, without ``.service``, of installed units; SystemdError where nobody answers."""
        with self._connected() as ask:
            (files,) = ask(MANAGER, "ListUnitFilesByPatterns", "asas", ([], [pattern]))
        return sorted(path.rpartition("/")[2].removesuffix(".service") for path, _ in files)

    def unit(self, name: str) -> Unit:
        """The service `name`; its load is "not-found" where it is not installed."""
        with self._connected() as ask:
            (path,) = ask(MANAGER, "LoadUnit", "s", (f"{name}.service",))
            found: dict[str, Any] = {}
            for interface in ("Unit", "Service"):
                address = DBusAddress(path, bus_name=NAME, interface="org.freedesktop.DBus.Properties")
                (properties,) = ask(address, "GetAll", "s", (f"{NAME}.{interface}",))
                found |= {key: value for key, (_, value) in properties.items()}
        return Unit(
            name,
            found["LoadState"],
            found["ActiveState"],
            found["SubState"],
            found.get("UnitFileState", ""),
            int(found.get("NRestarts", 0)),
            found.get("Result", ""),
            found.get("StatusText", ""),
            _image(found.get("ExecStart", [])),
            found.get("ControlGroup", ""),
        )

    def start(self, name: str, *, again: bool = False) -> None:
        """Have systemd start the service, or restart it; returns at once. NotAllowedError unless root."""
        with self._connected() as ask:
            ask(MANAGER, "RestartUnit" if again else "StartUnit", "ss", (f"{name}.service", "replace"))

    def enable(self, name: str) -> None:
        """Have the service start at boot."""
        with self._connected() as ask:
            ask(MANAGER, "EnableUnitFiles", "asbb", ([f"{name}.service"], False, False))
            ask(MANAGER, "Reload")

    @contextmanager
    def _connected(self) -> Iterator[Any]:
        try:
            connection = open_dbus_connection(self._bus, auth_timeout=self._seconds)
        except (OSError, KeyError, ValueError) as error:
            raise _silent(error) from error

        def ask(address: DBusAddress, method: str, signature: str = "", body: tuple[Any, ...] = ()) -> Any:
            message = new_method_call(address, method, signature, body)
            try:
                reply = connection.send_and_get_reply(message, timeout=self._seconds)
            except (OSError, TimeoutError) as error:
                raise _silent(error) from error
            if reply.header.message_type is MessageType.error:
                name = str(reply.header.fields[HeaderFields.error_name])
                said = DBusErrorResponse(reply).data
                kind = NotAllowedError if name.endswith(NOT_ALLOWED) else SystemdError
                raise kind(f"{method}: {said[0] if said else name}")
            return reply.body

        with connection:
            yield ask


def _silent(error: Exception) -> SystemdError:
    return SystemdError(f"no answer by D-Bus ({type(error).__name__} {error})".replace(" )", ")"))


def _image(starts: list[Any]) -> str:
    for path, arguments, *_ in starts:
        if path.endswith(RUN_IMAGE) and len(arguments) > 1:
            return str(arguments[1])
    return ""


def journal(unit: str, lines: int = 20, *, seconds: float = 10, kernel: bool = False) -> list[str]:
    """The last lines that `unit` wrote, "TIME MESSAGE" each, in UTC; why there are none, in brackets.

    kernel: those of the kernel instead.
    """
    source = ["--dmesg"] if kernel else ["--unit", unit]
    command = ["journalctl", *source, "--lines", str(lines), "--output", "json", "--no-pager", "--utc"]
    try:
        done = subprocess.run(command, capture_output=True, check=False, timeout=seconds)
    except (OSError, subprocess.TimeoutExpired) as error:
        return [f"(the journal cannot be read: {error})"]
    if done.returncode:
        return [f"(the journal cannot be read: {done.stderr.decode(errors='replace').strip()})"]
    return read_journal(done.stdout) or [f"(no line of {unit})"]


def read_journal(output: bytes) -> list[str]:
    """Lines from what journalctl prints as JSON, an entry each; what is no text is an array of its bytes."""
    found = []
    for line in output.splitlines():
        entry = json.loads(line)
        message = entry.get("MESSAGE")
        if isinstance(message, list):
            message = bytes(message).decode(errors="replace")
        at = dt.datetime.fromtimestamp(int(entry["__REALTIME_TIMESTAMP"]) / 1e6, dt.UTC)
        found += [f"{at:%F %T} {text}" for text in str(message or "").splitlines()]
    return found
