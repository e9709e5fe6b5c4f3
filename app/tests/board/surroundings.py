"""What a doctor asks beside the flow's services: a bus with systemd's interface, Docker's interface, a small Superset.

The answers have the shape that org.freedesktop.systemd1(5), Docker's Engine API and Superset's REST API document; what is
asked goes over a real bus and real sockets, by the libraries that the product uses.
"""

from __future__ import annotations

import contextlib
import http.server
import json
import socketserver
import subprocess
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from jeepney import HeaderFields, MessageType, new_error, new_method_return
from jeepney.bus_messages import message_bus
from jeepney.io.blocking import open_dbus_connection

from music_streaming.board.doctor import examine
from music_streaming.board.machine import Board
from music_streaming.board.systemd import NAME
from music_streaming.testing import wait_for

BUS = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-BUS Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>session</type><listen>unix:path={path}</listen>
<policy context="default"><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/></policy>
</busconfig>"""
PATH = "/org/freedesktop/systemd1/unit/"
RUNNING = {
    "LoadState": "loaded",
    "ActiveState": "active",
    "SubState": "running",
    "UnitFileState": "enabled",
    "NRestarts": 0,
    "Result": "success",
    "StatusText": "",
    "ControlGroup": "",
}
SIGNATURES = {"NRestarts": "u"}
ALL = (
    "docker", "avahi-daemon", "music-kafka", "music-metrics", "music-postgres", "music-producer", "music-scrobble",
    "music-spark-master", "music-spark-worker", "music-superset", "music-watch",
)  # fmt: skip
IMAGE = "music/kafka:0123456789ab"
RULES = """*filter
:ufw-user-input - [0:0]
### tuple ### allow tcp 22 0.0.0.0/0 any 0.0.0.0/0 in comment=6d75736963207373682032322074637020616e79
-A ufw-user-input -p tcp --dport 22 -j ACCEPT
### tuple ### allow tcp PORT 0.0.0.0/0 any 192.168.0.0/16 in
-A ufw-user-input -p tcp --dport PORT -s 192.168.0.0/16 -j ACCEPT
COMMIT
"""
# In place of iptables: the rules that "the kernel" has are the lines of a file.
IPTABLES = """#!/bin/sh
shift 3
grep --quiet --line-regexp --fixed-strings -- "$*" {file} || {{ echo 'Bad rule' >&2; exit 1; }}
"""


class Units:
    """Serves systemd's units on a bus of its own: `states` is what they are, `calls` what was asked to change them."""

    def __init__(self, folder: Path) -> None:
        self.states: dict[str, dict[str, Any]] = {name: dict(RUNNING) for name in ALL}
        self.images = {"music-kafka": IMAGE}
        self.calls: list[tuple[str, str]] = []
        self.refuse = False
        path = folder / "bus"
        (folder / "bus.conf").write_text(BUS.format(path=path))
        self.address = f"unix:path={path}"
        self.daemon = subprocess.Popen(["dbus-daemon", "--nofork", f"--config-file={folder / 'bus.conf'}"])
        connected = wait_for(self._connect, bool, 20)
        assert connected, "dbus-daemon did not start"
        self._connection = connected
        self._connection.send_and_get_reply(message_bus.RequestName(NAME))
        self._ending = False
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _connect(self) -> Any:
        with contextlib.suppress(OSError):
            return open_dbus_connection(self.address, auth_timeout=10)
        return None

    def close(self) -> None:
        self._ending = True
        self._thread.join()
        self._connection.close()
        self.daemon.terminate()
        self.daemon.wait()

    def _serve(self) -> None:
        while not self._ending:
            with contextlib.suppress(TimeoutError):
                message = self._connection.receive(timeout=0.1)
                if message.header.message_type is MessageType.method_call:
                    self._connection.send(self._answer(message))

    def _answer(self, message: Any) -> Any:
        fields = message.header.fields
        method = fields[HeaderFields.member]
        if method == "ListUnitFilesByPatterns":
            there = [name for name, state in self.states.items() if state["LoadState"] != "not-found"]
            files = [
                (f"/etc/systemd/system/{name}.service", "enabled")
                for name in there
                if name.startswith("music-")
            ]
            return new_method_return(message, "a(ss)", (files,))
        if method == "LoadUnit":
            name = message.body[0].removesuffix(".service")
            self.states.setdefault(name, RUNNING | {"LoadState": "not-found", "ActiveState": "inactive"})
            return new_method_return(message, "o", (PATH + name.replace("-", "_2d"),))
        if method == "GetAll":
            return new_method_return(
                message, "a{sv}", (self._properties(fields[HeaderFields.path], message.body[0]),)
            )
        if self.refuse:
            return new_error(
                message,
                "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired",
                "s",
                ("Interactive …",),
            )
        return self._change(message, method)

    def _change(self, message: Any, method: str) -> Any:
        asked = message.body[0] if message.body else ""
        name = (asked if isinstance(asked, str) else asked[0]).removesuffix(".service")
        self.calls.append((method, name))
        if method in ("StartUnit", "RestartUnit"):
            self.states[name] |= {"ActiveState": "active", "SubState": "running"}
            return new_method_return(message, "o", ("/org/freedesktop/systemd1/job/1",))
        if method == "EnableUnitFiles":
            self.states[name]["UnitFileState"] = "enabled"
            return new_method_return(message, "ba(sss)", (True, []))
        return new_method_return(message)

    def _properties(self, path: str, interface: str) -> dict[str, tuple[str, Any]]:
        name = path.removeprefix(PATH).replace("_2d", "-")
        of_unit = {"LoadState", "ActiveState", "SubState", "UnitFileState"}
        found = {
            key: (SIGNATURES.get(key, "s"), value)
            for key, value in self.states[name].items()
            if (key in of_unit) == interface.endswith(".Unit")
        }
        if interface.endswith(".Service") and (image := self.images.get(name)):
            program = "/usr/local/libexec/music/run-image"
            start = (program, [program, image, "/usr/bin/docker", "run"], False, 0, 0, 0, 0, 0, 0, 0)
            found["ExecStart"] = ("a(sasbttttuii)", [start])
        return found


class _UnixServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


class _Docker(http.server.BaseHTTPRequestHandler):
    """Engine API 1.51: /version, and /images/NAME/json, where an image that is not there is a 404 with a message."""

    images: frozenset[str] = frozenset()
    containers: Mapping[str, str] = MappingProxyType({})

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        image = path.partition("/images/")[2].removesuffix("/json")
        if path.endswith("/containers/json"):
            self._say(
                200, [{"Id": identity, "Names": [f"/{name}"]} for name, identity in self.containers.items()]
            )
        elif path.partition("/containers/")[2]:
            identity = path.split("/")[-2]
            (name,) = (name for name, found in self.containers.items() if found == identity)
            self._say(200, {"Id": identity, "Name": f"/{name}", "Config": {}})
        elif path.endswith("/version"):
            self._say(
                200, {"Version": "26.1.5+dfsg1", "ApiVersion": "1.45", "MinAPIVersion": "1.24", "Os": "linux"}
            )
        elif image in self.images:
            self._say(200, {"Id": "sha256:" + "0" * 64, "RepoTags": [image]})
        else:
            self._say(404, {"message": f"No such image: {image}"})

    def _say(self, status: int, content: Any) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self) -> str:
        return "unix"

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def docker_with(
    folder: Path, *images: str, containers: Mapping[str, str] = MappingProxyType({})
) -> Iterator[str]:
    """Docker's socket, of a daemon that has these images, and runs containers, name -> id."""
    path = str(folder / "docker.sock")
    handler = type("Handler", (_Docker,), {"images": frozenset(images), "containers": containers})
    with _serving(_UnixServer(path, handler)):
        yield path


class _Superset(_Docker):
    """/health, and a login that takes one password."""

    password = ""

    def do_GET(self) -> None:
        self._say(200, "OK")

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        right = asked == {"username": "appliance", "password": self.password, "provider": "db"}
        self._say(200 if right else 401, {"access_token": "t"} if right else {"message": "Not authorized"})


@contextlib.contextmanager
def superset_with(password: str, address: str = "127.0.0.1") -> Iterator[str]:
    """The address of a Superset whose account `appliance` has this password."""
    handler = type("Handler", (_Superset,), {"password": password})
    server = http.server.ThreadingHTTPServer((address, 0), handler)
    with _serving(server):
        yield f"http://127.0.0.1:{server.server_port}"


@contextlib.contextmanager
def workers_with(*states: str) -> Iterator[int]:
    """The port of a Spark master's page as JSON, with workers in these states."""

    def answer(self: Any) -> None:
        self._say(200, {"workers": [{"id": f"worker-{n}", "state": state} for n, state in enumerate(states)]})

    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), type("Handler", (_Docker,), {"do_GET": answer})
    )
    with _serving(server):
        yield server.server_port


@contextlib.contextmanager
def _serving(server: socketserver.BaseServer) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def named(of: Board) -> tuple[str, str, str]:
    """Link, kind and unit of the first broken link."""
    broken = examine(of).broken
    assert broken is not None
    assert broken.found
    assert broken.wanted
    assert broken.remedy
    return broken.link, broken.kind, broken.unit
