"""A relay between a client and the server, which may swallow an answer or speak TLS."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from typing import Any


class Relay:
    """Between client and server, with TLS to the client where `tls` is given.

    With `at_answer` the first answer is swallowed: its first byte calls that instead.
    """

    def __init__(
        self, port: int, at_answer: Callable[[], object] | None = None, tls: ssl.SSLContext | None = None
    ) -> None:
        self._port, self._at_answer, self._tls = port, at_answer, tls
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                threading.Thread(target=self._exchange, args=(client,), daemon=True).start()

    def _exchange(self, client: socket.socket) -> None:
        with (
            contextlib.suppress(OSError),
            self._tls.wrap_socket(client, server_side=True) if self._tls else client as near,
            socket.create_connection(("127.0.0.1", self._port)) as server,
        ):
            threading.Thread(target=self._pass_on, args=(near, server), daemon=True).start()
            while answer := server.recv(65_536):
                if self._at_answer:
                    at_answer, self._at_answer = self._at_answer, None
                    at_answer()
                    return
                near.sendall(answer)

    @staticmethod
    def _pass_on(client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while sent := client.recv(65_536):
                server.sendall(sent)

    def close(self) -> None:
        self._listening.close()


@contextlib.contextmanager
def relay(port: int, **how: Any) -> Iterator[Relay]:
    """A relay to the port of the server, closed at the end."""
    made = Relay(port, **how)
    try:
        yield made
    finally:
        made.close()
