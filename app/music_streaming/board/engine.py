"""Docker of this board, by its Python SDK."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import docker
import requests
from docker.errors import DockerException, ImageNotFound

from music_streaming.error import MusicError

SOCKET = "/run/docker.sock"


class EngineError(MusicError):
    """Docker does not answer."""


class Engine:
    """Asks the daemon behind `socket`, each question within `seconds`."""

    def __init__(self, socket: str = SOCKET, seconds: int = 15) -> None:
        self.socket, self._seconds = socket, seconds

    @property
    def may_ask(self) -> bool:
        """Whether this user may: root, and whoever is in the group of the socket."""
        return not os.path.exists(self.socket) or os.access(self.socket, os.R_OK | os.W_OK)

    def version(self) -> str:
        """The daemon's version; EngineError where it does not answer."""
        with self._connected() as client:
            return str(client.version()["Version"])

    def missing(self, images: list[str]) -> list[str]:
        """Those of `images`, by their tags, that Docker has not."""
        absent = []
        with self._connected() as client:
            for image in images:
                try:
                    client.images.get(image)
                except ImageNotFound:
                    absent.append(image)
        return absent

    def containers(self) -> dict[str, str]:
        """Name -> id of each container that runs."""
        with self._connected() as client:
            return {container.name: container.id for container in client.containers.list()}

    @contextmanager
    def _connected(self) -> Iterator[docker.DockerClient]:
        try:
            client = docker.DockerClient(base_url=f"unix://{self.socket}", timeout=self._seconds)
            try:
                yield client
            finally:
                client.close()
        except (DockerException, requests.RequestException, OSError) as error:
            raise EngineError(" ".join(str(error).split())) from error
