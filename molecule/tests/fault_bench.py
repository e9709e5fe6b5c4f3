"""A board under load, to which faults are applied one by one: what is asked of it after each."""

from __future__ import annotations

import json
import os
import random
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import pytest

from account_file import ENTRY
from conftest import UNITS, Board, wait_for

RATE = 500
# Of one player that sends its plays one by one.
SCROBBLE_RATE, SCROBBLER = 5, "faults"
ACCOUNT = "/var/tmp/music-faults"
UNIT, SCROBBLES = "music-faults-load", "music-faults-scrobbles"
GIVE_UP_SECONDS = 600
# What lasts longer is left out of the short form.
SHORT = 100
# Kafka forces its files to disk so often; see kafka_flush_interval_ms.
FLUSH_MS = 1000

Apply = Callable[["Bench", random.Random], Iterable[str] | None]


@dataclass(frozen=True)
class Fault:
    """`apply` returns when the fault has ended, with the ids of acknowledged plays that it took away itself.

    lasts: seconds from its beginning to its end. limit: seconds that recovery may take. daily: whether the story
    picks it; those that are new are applied by `make test-faults` alone.
    """

    name: str
    apply: Apply
    lasts: float = 0
    limit: float = 60
    daily: bool = True


@dataclass
class Outcome:
    """What was seen of one fault; seconds."""

    name: str
    limit: float
    recovery: float
    acknowledged: int = 0
    # Of those, by the scrobble server.
    scrobbled: int = 0
    kafka: int = 0
    taken: int = 0
    lost: int = 0
    doubled: int = 0
    exactness: dict[str, int] = field(default_factory=dict)
    remark: str = ""
    # Of the machine over the last minute, when the board had recovered: others may work there, too.
    load: float = 0

    @property
    def ok(self) -> bool:
        return self.within(1)

    def within(self, slack: float) -> bool:
        """Whether nothing is wrong, where recovery may take `slack` times its limit."""
        return self.recovery <= slack * self.limit and not (self.lost or self.doubled or self.remark)


@dataclass
class Bench:
    """The board under load, and what has been seen of it."""

    board: Board
    taken: set[str] = field(default_factory=set)
    # What each settling of the account since the beginning of the fault has found.
    settled: list[dict[str, Any]] = field(default_factory=list)

    def root(self, script: str, *, check: bool = True, timeout: float = 600) -> str:
        """Run a shell script on the board as root; what it prints."""
        quoted = script.replace("'", "'\\''")
        return self.board.ssh(f"sudo sh -c '{quoted}'", check=check, timeout=timeout).stdout

    def start_load(self) -> None:
        """Start load.py and scrobbling.py as services that start again whatever happens, at boot as well."""
        # One that a run left which was killed.
        self.end_load()
        self.root(f"rm -rf {ACCOUNT}; mkdir {ACCOUNT}; touch {ACCOUNT}/acknowledged {ACCOUNT}/scrobbled")
        self.board.send(ACCOUNT, "account_file.py", "load.py", "scrobbling.py")
        told = self.board.ssh(f"sudo musicctl listener add {SCROBBLER} --player mpd --json").stdout
        self.root(f"umask 077; echo TOKEN={json.loads(told)['token']} >{ACCOUNT}/token")
        # Whatever is acknowledged from here on lies behind this.
        self.settle()
        self._serve(UNIT, f"{ACCOUNT}/load.py {RATE} {ACCOUNT} 0")
        self._serve(SCROBBLES, f"{ACCOUNT}/scrobbling.py {SCROBBLE_RATE} {ACCOUNT}")

    def _serve(self, name: str, command: str) -> None:
        unit = (
            "[Unit]\nStartLimitIntervalSec=0\n[Service]\nRestart=always\nRestartSec=1\n"
            f"EnvironmentFile=-{ACCOUNT}/token\nExecStart=/opt/music/app/bin/python {command}\n"
            "[Install]\nWantedBy=multi-user.target\n"
        )
        self.board.ssh(
            f"sudo tee /etc/systemd/system/{name}.service >/dev/null <<'UNIT'\n{unit}UNIT\n"
            f"sudo systemctl daemon-reload && sudo systemctl enable --quiet --now {name}"
        )

    def end_load(self) -> None:
        """Stop the load and leave no trace of it but its plays and their listener."""
        units = " ".join(f"/etc/systemd/system/{name}.service" for name in (UNIT, SCROBBLES))
        self.root(
            f"systemctl disable --quiet --now {UNIT} {SCROBBLES}; musicctl listener revoke {SCROBBLER};"
            f" rm -rf {ACCOUNT} {units}; systemctl daemon-reload",
            check=False,
        )

    def wait_recovered(self) -> float:
        """Seconds until all units are active, containerd and the dashboards answer and a record goes through, in one look."""
        started = time.monotonic()
        units = " ".join([*UNITS, "docker", "containerd"])
        asked: dict[str, Callable[[], str]] = {
            # Of several units the command is content with one that is active.
            "units": lambda: self._said(f"! systemctl is-active {units} | grep -v '^active$'"),
            # Containers run on without it: what follows needs it to reach into one.
            "containerd": lambda: self._said("sudo docker exec music-metrics true"),
            "dashboards": self._dashboards,
            "trace": lambda: self._said("sudo musicctl trace --seconds 10"),
        }
        while said := next((f"{what}: {answer}" for what, ask in asked.items() if (answer := ask())), ""):
            if time.monotonic() - started > GIVE_UP_SECONDS:
                raise TimeoutError(f"not well {GIVE_UP_SECONDS} s after the fault: {said}")
            time.sleep(0.5)
        return time.monotonic() - started

    def wait_load(self) -> None:
        """Wait until a second's worth of plays more is acknowledged: load upon the recovered board, counted as well."""
        for name, count in (("acknowledged", RATE), ("scrobbled", SCROBBLE_RATE)):
            self._wait_account(f"{ACCOUNT}/{name}", count)

    def _wait_account(self, path: str, count: int) -> None:
        def size() -> int:
            return int(self.root(f"stat --format=%s {path}"))

        before = size()
        wait_for(
            f"{count} more plays in {path} behind byte {before}",
            lambda: size() >= before + count * ENTRY.size,
            every=0.5,
        )

    def _said(self, command: str) -> str:
        try:
            done = self.board.ssh(command, check=False, timeout=120)
        except subprocess.TimeoutExpired as error:
            return str(error)
        return "" if done.returncode == 0 else done.stdout + done.stderr or f"exit code {done.returncode}"

    def _dashboards(self) -> str:
        try:
            with urllib.request.urlopen(f"http://{self.board.address}:8088/health", timeout=10) as answer:
                return "" if answer.status == 200 else str(answer.status)
        except (urllib.error.URLError, OSError) as error:
            return str(error)

    def settle(self) -> None:
        """Settle the account since the last time, as account.py prints it."""
        self.settled.append(self.board.script_on_board("account.py", ACCOUNT))

    def _found(self) -> dict[str, Any]:
        """All that was settled since the beginning of the fault, as one."""
        lists = ("not_in_kafka", "not_in_postgres", "not_sent")
        found = {name: {play for one in self.settled for play in one[name]} for name in lists}
        sums = {
            name: sum(one[name] for one in self.settled) for name in ("acknowledged", "scrobbled", "kafka")
        }
        most = {name: max(one[name] for one in self.settled) for name in ("doubled", "short")}
        return found | sums | most | {"exactness": self.settled[-1]["exactness"]}

    def once(self, fault: Fault, chance: random.Random) -> Outcome:
        """Apply one fault, wait for recovery, count."""
        started = time.monotonic()
        self.settled.clear()
        try:
            self.taken |= set(fault.apply(self, chance) or ())
            recovery = self.wait_recovered()
            load = os.getloadavg()[0]
            self.wait_load()
            self.settle()
        # Whatever it is, the faults behind it are still to be applied.
        except (Exception, pytest.fail.Exception) as error:
            remark = f"{type(error).__name__}: {_said_by(error)}"[-500:]
            lasted, load = time.monotonic() - started, os.getloadavg()[0]
            return Outcome(fault.name, fault.limit, lasted, remark=remark, load=load)
        seen = self._found()
        gone = seen["not_in_postgres"]
        remarks = []
        if unexplained := sorted(seen["not_in_kafka"] - self.taken):
            remarks.append(f"{len(unexplained)} acknowledged plays not in Kafka: {unexplained[:3]}")
        if invented := sorted(seen["not_sent"] - self.taken):
            remarks.append(f"{len(invented)} rows that nobody sent: {invented[:3]}")
        if not seen["acknowledged"]:
            remarks.append("no play was acknowledged")
        if not seen["scrobbled"]:
            remarks.append("no scrobble was taken")
        if said := self._said("sudo musicctl validate"):
            remarks.append(f"validate: {said[-300:]}")
        return Outcome(
            name=fault.name,
            limit=fault.limit,
            recovery=recovery,
            acknowledged=seen["acknowledged"],
            scrobbled=seen["scrobbled"],
            kafka=seen["kafka"],
            taken=len(gone & self.taken),
            lost=len(gone - self.taken) + seen["short"],
            doubled=seen["doubled"],
            exactness=seen["exactness"],
            remark="; ".join(remarks),
            load=load,
        )


def _said_by(error: BaseException) -> str:
    """What a command on the board has said at its end, besides what it was."""
    if isinstance(error, subprocess.CalledProcessError):
        return f"exit code {error.returncode}: {error.stderr or error.stdout or error.cmd}"
    return str(error)
