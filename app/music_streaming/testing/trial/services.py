"""The parts of the flow as processes of this machine: broker, PostgreSQL, job and producer, in one folder."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from music_streaming.error import MusicError
from music_streaming.settings import Settings
from music_streaming.testing import FILES
from music_streaming.testing.broker import Broker, jars
from music_streaming.testing.driver import Driver
from music_streaming.testing.postgres import (
    ROLES,
    Database,
    migrated_database,
    newest_postgres,
    throw_away_cluster,
)
from music_streaming.topic import EVENTS, ensure_topics

PACKAGES = "default-jre-headless postgresql and its hll (postgresql-15-hll on Debian 12, -17- on 13)"


class TrialError(MusicError):
    """The flow cannot run on this machine, or a part of it ended."""


@dataclass(frozen=True)
class Flow:
    """The parts at work, and the settings that reach them."""

    settings: Settings
    database: Database
    job: Driver
    producer: Driver
    environment: dict[str, str]

    def refuse_ended(self) -> None:
        """TrialError with the end of its log where a process has ended unexpectedly."""
        for name, process in (("Spark job", self.job), ("producer", self.producer)):
            if not process.alive:
                raise TrialError.of(
                    name,
                    found=f"it ended: {process.said[-2000:]}",
                    wanted="it at work",
                    remedy="make try again",
                )

    def validate(self) -> int:
        """`musicctl validate` on this flow; its exit code."""
        return subprocess.run(
            [sys.executable, "-m", "music_streaming.cli", "validate"],
            env=os.environ | self.environment,
            check=False,
            # Ctrl-C on the terminal is for us.
            start_new_session=True,
        ).returncode


def refuse_machine() -> None:
    """TrialError where Java or PostgreSQL with hll is missing; nothing is changed."""
    missing = [] if shutil.which("java") else ["Java"]
    if newest_postgres() is None:
        missing.append("PostgreSQL with the extension hll")
    if missing:
        raise TrialError.of(
            "This machine",
            found=f"no {' and no '.join(missing)}",
            wanted="both installed",
            remedy=f"make try as root, once; or install {PACKAGES}",
        )


@contextlib.contextmanager
def flow(rate: float, say: Callable[[str], None]) -> Iterator[Flow]:
    """All parts at work, in a new folder; nothing of them is left behind. `rate`: plays a second."""
    refuse_machine()
    with contextlib.ExitStack() as left:
        folder = Path(tempfile.mkdtemp(prefix="music-try-"))
        left.callback(shutil.rmtree, folder, ignore_errors=True)
        # The server of PostgreSQL is another user's where root starts it.
        folder.chmod(0o755)
        # Whatever a program leaves behind is left in there.
        scratch = folder / "tmp"
        scratch.mkdir()
        scratch.chmod(0o1777)
        java = f"-Djava.io.tmpdir={scratch} -XX:-UsePerfData"
        os.environ |= {"TMPDIR": str(scratch), "JAVA_TOOL_OPTIONS": java}
        began = time.monotonic()
        say("Fetching the jars of Kafka and Spark's connector, once")
        for image in ("kafka", "spark"):
            jars(FILES / "images" / image)
        say("Starting PostgreSQL and Kafka")
        # Both at the same moment; what has started is ended, whatever happens to the other one.
        with ThreadPoolExecutor() as pool:
            database = pool.submit(left.enter_context, _database(folder))
            broker = pool.submit(left.enter_context, _broker(folder / "kafka"))
        environment = _environment(folder, broker.result(), database.result(), rate)
        os.environ |= environment
        settings = Settings.load()
        ensure_topics(settings)
        say("Starting the Spark job and the producer")
        job = Driver(folder, environment)
        producer = Driver(folder, environment, "music_streaming.demo.producer", "producer")
        for process in (job, producer):
            left.callback(process.close)
            process.start()
        say(f"All parts started after {time.monotonic() - began:.0f} s; Spark's first batch takes a while")
        yield Flow(settings, database.result(), job, producer, environment)
        for process in (producer, job):
            if process.alive:
                process.end(signal.SIGTERM)


@contextlib.contextmanager
def _database(folder: Path) -> Iterator[Database]:
    with throw_away_cluster(folder) as cluster, migrated_database(cluster) as database:
        yield database


@contextlib.contextmanager
def _broker(folder: Path) -> Iterator[Broker]:
    folder.mkdir()
    broker = Broker(folder)
    try:
        broker.start()
        yield broker
    finally:
        broker.kill()


def _environment(folder: Path, broker: Broker, database: Database, rate: float) -> dict[str, str]:
    """What a process needs to reach these parts."""
    for role in ROLES:
        (folder / f"postgres_{role}").write_text(role)
    spark_jars = ",".join(map(str, sorted(jars(FILES / "images" / "spark").glob("*.jar"))))
    settings = {
        "KAFKA__BOOTSTRAP": broker.bootstrap,
        "KAFKA__TOPIC": EVENTS,
        "POSTGRES__PORT": str(database.postgres.port),
        "POSTGRES__DATABASE": database.name,
        "POSTGRES__SECRETS_DIR": str(folder),
        "SPARK__MASTER": "local[2]",
        # Driver and executor are one process here.
        "SPARK__DRIVER_MEMORY": "512m",
        "SPARK__SCRATCH_DIR": str(folder / "scratch"),
        "PRODUCER__PACE": "rate",
        "PRODUCER__RATE": str(rate),
        "PATHS__FILES": str(FILES),
        "PATHS__DATA": str(folder),
    }
    (folder / "music.toml").touch()
    return {f"MUSIC_{name}": value for name, value in settings.items()} | {
        "MUSIC_CONFIG": str(folder / "music.toml"),
        "PYTHONPATH": str(FILES.parent / "app"),
        "PYSPARK_SUBMIT_ARGS": f"--jars {spark_jars} pyspark-shell",
        # Spark would ask for this machine's name, which not every network knows.
        "SPARK_LOCAL_IP": "127.0.0.1",
    }
