"""A real Kafka broker for tests: the jars of the image, one KRaft node, on free ports."""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import signal
import socket
import subprocess
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path

# kafka-python reads its own files in a way that Python 3.11 calls deprecated; once, at its first import.
with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    from music_streaming.broker import admin, end_offsets

from music_streaming.testing import FILES, free_ports, wait_for

IMAGE = FILES / "images" / "kafka"
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "music-streaming"
START_SECONDS = 120
# Less than a test's time limit, so that the output is shown.
FETCH_SECONDS = 240


def jars(image: Path = IMAGE) -> Path:
    """The folder with the jars of an image, by default the broker's; fetched once, checked as in the image.

    Raises RuntimeError with what Ivy or the check said.
    """
    pinned = (image / "jars.sha256").read_bytes()
    folder = CACHE / f"{image.name}-jars-{hashlib.sha256(pinned).hexdigest()[:12]}"
    if folder.exists():
        return folder
    CACHE.mkdir(parents=True, exist_ok=True)
    # Whoever comes second waits for the first one's jars; the lock goes with its process.
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            with tempfile.TemporaryDirectory(prefix=f"{folder.name}.", dir=CACHE) as partial:
                _fetch(image, Path(partial)).rename(folder)
    return folder


def _fetch(image: Path, scratch: Path) -> Path:
    """Fetch the jars of `image` into a new folder in `scratch`; there is Ivy's cache, too: it shares none."""
    wanted = scratch / "jars"
    wanted.mkdir()
    # Spark brings Ivy along, which the image takes from its distribution.
    spark = importlib.util.find_spec("pyspark")
    if spark is None or spark.origin is None:
        raise RuntimeError("Found no pyspark, wanted the tests' environment. Remedy: make setup-test")
    ivy = Path(spark.origin).parent / "jars" / "*"
    fetch = [
        "java", "-cp", str(ivy), "org.apache.ivy.Main", "-warn", "-ivy", str(image / "ivy.xml"),
        "-cache", str(scratch / "ivy"), "-confs", "run", "-types", "jar", "bundle",
        "-retrieve", f"{wanted}/[artifact]-[revision](-[classifier]).[ext]",
    ]  # fmt: skip
    check = ["sha256sum", "--quiet", "--check", str(image / "jars.sha256")]
    for command, folder in ((fetch, scratch), (check, wanted)):
        try:
            done = subprocess.run(
                command, cwd=folder, capture_output=True, text=True, check=False, timeout=FETCH_SECONDS
            )
        except subprocess.TimeoutExpired as error:
            raise RuntimeError(
                f"Found the jars of {image.name} not fetched after {FETCH_SECONDS} s. "
                f"Last words: {error.stdout!r}"
            ) from error
        if done.returncode:
            raise RuntimeError(
                f"Found exit code {done.returncode} of {command[0]} fetching the jars of {image.name}, "
                f"wanted the jars of {image / 'jars.sha256'} from Maven Central. "
                f"It said:\n{done.stdout}{done.stderr}"
            )
    return wanted


class Broker:
    """One KRaft node with its data in `folder`; it can be killed, paused and started again on its port.

    environment: variables that it has besides this process's own. properties: of the server, besides those
    that make it one small node.
    """

    def __init__(
        self,
        folder: Path,
        environment: Mapping[str, str] | None = None,
        properties: Mapping[str, str] | None = None,
    ) -> None:
        self._folder = folder
        self._environment = os.environ | (environment or {})
        self.data = folder / "data"
        self._process: subprocess.Popen[bytes] | None = None
        self.port, controller = free_ports(2)
        self.bootstrap = f"127.0.0.1:{self.port}"
        self._properties = folder / "server.properties"
        self._properties.write_text(
            "\n".join(
                (
                    "process.roles=broker,controller",
                    "node.id=1",
                    f"controller.quorum.voters=1@127.0.0.1:{controller}",
                    f"listeners=PLAINTEXT://{self.bootstrap},CONTROLLER://127.0.0.1:{controller}",
                    f"advertised.listeners=PLAINTEXT://{self.bootstrap}",
                    "controller.listener.names=CONTROLLER",
                    f"log.dirs={self.data}",
                    "offsets.topic.replication.factor=1",
                    "transaction.state.log.replication.factor=1",
                    "transaction.state.log.min.isr=1",
                    "auto.create.topics.enable=false",
                    "log.retention.check.interval.ms=1000",
                    *(f"{name}={value}" for name, value in (properties or {}).items()),
                )
            )
        )
        self._java(
            "kafka.tools.StorageTool", "format", "-t", "AAAAAAAAAAAAAAAAAAAAAQ", "-c", self._properties
        )

    def _command(self, *arguments: str | Path) -> list[str | Path]:
        return ["java", "-Xmx384m", "-XX:+UseSerialGC", "-cp", f"{jars()}/*", *arguments]

    def _java(self, *arguments: str | Path) -> None:
        done = subprocess.run(self._command(*arguments), capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{arguments[0]} failed: {done.stdout}\n{done.stderr}")

    def start(self) -> None:
        """Start, and wait until it answers."""
        log = self._folder / "log"
        with log.open("ab") as output:
            process = self._process = subprocess.Popen(
                self._command("kafka.Kafka", self._properties),
                env=self._environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                # Ctrl-C on the terminal must not reach it.
                start_new_session=True,
            )
        if not wait_for(self._listens, bool, START_SECONDS, ended=lambda: process.poll() is not None):
            raise RuntimeError(f"the broker did not start:\n{log.read_text(errors='replace')[-4000:]}")

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def _signal(self, number: signal.Signals) -> None:
        if self._process:
            self._process.send_signal(number)

    @property
    def pid(self) -> int:
        """The number of its process, which must have been started."""
        assert self._process
        return self._process.pid

    def count(self, topic: str) -> int:
        """Records that were ever written to `topic`."""
        with admin(self.bootstrap) as client:
            return sum(end_offsets(client, topic).values())

    def stop(self) -> None:
        """Stop it as systemd does: it closes its files, and says so in one of them."""
        if self._process:
            self._process.terminate()
            self._process.wait(START_SECONDS)
            self._process = None

    def kill(self) -> None:
        """Kill the process, as a power cut would."""
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        """Make it answer nobody until `resume`."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """End a pause."""
        self._signal(signal.SIGCONT)
