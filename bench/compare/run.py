"""One run of one contender: what it took, what it used, and what its result holds."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psycopg2

from compare import measure
from compare.contenders import Contender, Place, check
from compare.services import Services

LIMIT_SECONDS = 900
LOOK_SECONDS = 0.2
# Between two looks at the memory, which costs more than the others.
MEMORY_EVERY = 5


# What the services had used before and after.
Spent = tuple[dict[str, Any], dict[str, Any]]


@dataclass
class Result:
    """A run. seconds: from the start of the query to the last commit. cpu: CPU seconds by service, start-up
    included; other: of all else on the machine. written: MB by service. pss: largest, in MB. holds: plays
    by table. crashed: whether it was killed once and started again."""

    contender: str
    plays: int
    seconds: float = 0
    cpu: dict[str, float] = field(default_factory=dict)
    written: dict[str, float] = field(default_factory=dict)
    wal: int = 0
    pss: float = 0
    holds: dict[str, int] = field(default_factory=dict)
    crashed: bool = False
    failed: str = ""

    @property
    def exact(self) -> bool:
        """Whether every table holds each play once."""
        return not self.failed and all(held == self.plays for held in self.holds.values())

    @property
    def per_second(self) -> float:
        """Plays a second."""
        return self.plays / self.seconds if self.seconds else 0

    @property
    def cpu_per_million(self) -> float:
        """CPU seconds of the contender, PostgreSQL and Kafka."""
        return sum(value for name, value in self.cpu.items() if name != "other") / self.plays * 1e6

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        rates = {"exact": self.exact, "per_second": self.per_second, "cpu_per_million": self.cpu_per_million}
        return asdict(self) | rates


class Process:
    """The contender's program, and what it and its descendants have used in all its lives."""

    def __init__(self, place: Place, contender: Contender) -> None:
        self.log = place.folder / "log"
        self._command = contender.command()
        self._environment = os.environ | contender.environment(place)
        self._looks = 0
        self._before = measure.Use()
        self.used = measure.Use()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, or start it again."""
        self._before = self.used
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                self._command, env=self._environment, stdout=output, stderr=output, start_new_session=True
            )

    def look(self) -> int | None:
        """Note what it uses; returns its exit code once it has ended."""
        assert self._process  # noqa: S101
        code = self._process.poll()
        if code is None:
            now = measure.use(self._process.pid, memory=self._looks % MEMORY_EVERY == 0)
            self._looks += 1
            self.used = measure.Use(
                max(self.used.cpu, self._before.cpu + now.cpu),
                max(self.used.pss, now.pss),
                max(self.used.written, self._before.written + now.written),
            )
        return code

    def end(self, number: signal.Signals) -> None:
        """Send a signal to it and wait for its end, and its descendants'."""
        assert self._process  # noqa: S101
        group = self._process.pid
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, number) if number == signal.SIGKILL else os.kill(group, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(30)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)
        self._process.wait()

    @property
    def pid(self) -> int:
        """The number of the program's process, which must have been started."""
        assert self._process  # noqa: S101
        return self._process.pid

    @property
    def said(self) -> str:
        """What it has written so far."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def time_of(self, name: str) -> float | None:
        """When it said FIRST or LAST; of several, the last one."""
        found = re.findall(rf"^{name} ([\d.]+)$", self.said, re.MULTILINE)
        return float(found[-1]) if found else None


def run(services: Services, contender: Contender, topic: str, plays: int, *, crash: bool = False) -> Result:
    """Have the contender read the topic. crash: kill it once a third of the raw plays is there."""
    result = Result(contender.name, plays, crashed=crash)
    with _place(services, contender, topic, plays) as place:
        process = Process(place, contender)
        before = _services_now(services)
        started = time.monotonic()
        process.start()
        ending = False
        try:
            while (code := process.look()) is None:
                if time.monotonic() - started > LIMIT_SECONDS:
                    result.failed = f"not done after {LIMIT_SECONDS} s"
                    break
                if crash and _stored(contender, place) >= plays / 3:
                    process.end(signal.SIGKILL)
                    process.start()
                    crash = False
                elif contender.name == "ours" and _read(place) >= plays:
                    ending = True
                    break
                time.sleep(LOOK_SECONDS)
            if not ending and not result.failed and code != 0:
                result.failed = f"exit code {code}: {process.said[-2000:]}"
            after = _services_now(services)
        finally:
            process.end(signal.SIGTERM)
        _fill(result, contender, place, process, (before, after))
    return result


@contextlib.contextmanager
def _place(services: Services, contender: Contender, topic: str, plays: int) -> Iterator[Place]:
    folder = Path(tempfile.mkdtemp(prefix=f"{contender.name}-", dir=services.folder))
    try:
        with services.database(product=contender.product) as database:
            yield Place(services, database, folder, topic, plays)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _services_now(services: Services) -> dict[str, Any]:
    broker = services.broker.pid
    with contextlib.closing(services.postgres.connect("postgres", "postgres")) as connection, connection:
        cursor = connection.cursor()
        cursor.execute("SELECT wal_bytes FROM pg_stat_wal")
        wal = int(cursor.fetchone()[0])
    return {
        "postgres": measure.use(services.postgres.pid, memory=False),
        "kafka": measure.use(broker, memory=False),
        "busy": measure.busy(),
        "wal": wal,
    }


def _fill(result: Result, contender: Contender, place: Place, process: Process, spent: Spent) -> None:
    before, after = spent
    result.cpu = {"contender": round(process.used.cpu, 1)}
    result.written = {"contender": round(process.used.written, 1)}
    for name in ("postgres", "kafka"):
        result.cpu[name] = round(after[name].cpu - before[name].cpu, 1)
        result.written[name] = round(after[name].written - before[name].written, 1)
    result.cpu["other"] = round(after["busy"] - before["busy"] - sum(result.cpu.values()), 1)
    result.wal = after["wal"] - before["wal"]
    result.pss = round(process.used.pss, 1)
    try:
        result.seconds = round(_seconds(contender, place, process), 2)
        result.holds = check(contender, place.database)
    except (psycopg2.Error, TypeError) as error:
        result.failed = result.failed or f"{error}: {process.said[-2000:]}"


def _seconds(contender: Contender, place: Place, process: Process) -> float:
    if contender.name == "ours":
        between = "SELECT extract(epoch FROM max(committed_at) - min(read_at)) FROM ingest_batches"
        return float(place.database.value(between))
    first, last = process.time_of("FIRST"), process.time_of("LAST")
    if first is None or last is None:
        raise TypeError("it never said when it began or ended")
    return last - first


def _read(place: Place) -> int:
    return int(place.database.value("SELECT coalesce(sum(records), 0) FROM ingest_batches"))


def _stored(contender: Contender, place: Place) -> int:
    if contender.product:
        return _read(place)
    return int(place.database.value("SELECT count(*) FROM raw", role="postgres")) if contender.stores else 0
