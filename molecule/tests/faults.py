"""Faults under load: each is applied, the board has to recover by itself, and every play is counted again.

A round is each fault of the catalogue once, in an order that the seed decides; those that last longer by themselves come
in the first round alone. After each fault a record sent after its end must be seen committed, every unit be active,
containerd and the dashboards answer; then account.py settles what the load has had acknowledged against Kafka, the raw
rows and each metric table. A play that no single board can keep (the tail that the broker had not yet written at a power
cut, what is deleted unread) must be one of those that the fault itself took away: it stands in its own column, and is no
loss that anybody failed to notice.
"""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import pytest
from rich.console import Console
from rich.table import Table

from account_file import ENTRY
from conftest import UNITS, Board, wait_for
from tail import cut_tail

RATE = 500
ACCOUNT = "/var/tmp/music-faults"
UNIT = "music-faults-load"
GIVE_UP_SECONDS = 600
# What lasts longer is left out of the short form.
SHORT = 100
# Kafka forces its files to disk so often; see kafka_flush_interval_ms.
FLUSH_MS = 1000

Apply = Callable[["Bench", random.Random], Iterable[str] | None]


@dataclass(frozen=True)
class Fault:
    """`apply` returns when the fault has ended, with the ids of acknowledged plays that it took away itself.

    lasts: seconds from its beginning to its end. limit: seconds that recovery may take.
    """

    name: str
    apply: Apply
    lasts: float = 0
    limit: float = 60


@dataclass
class Outcome:
    """What was seen of one fault; seconds."""

    name: str
    limit: float
    recovery: float
    acknowledged: int = 0
    kafka: int = 0
    taken: int = 0
    lost: int = 0
    doubled: int = 0
    exactness: dict[str, int] = field(default_factory=dict)
    remark: str = ""

    @property
    def ok(self) -> bool:
        return self.recovery <= self.limit and not (self.lost or self.doubled or self.remark)


@dataclass
class Bench:
    """The board under load, and what has been seen of it."""

    board: Board
    taken: set[str] = field(default_factory=set)

    def root(self, script: str, *, check: bool = True, timeout: float = 600) -> str:
        """Run a shell script on the board as root; what it prints."""
        quoted = script.replace("'", "'\\''")
        return self.board.ssh(f"sudo sh -c '{quoted}'", check=check, timeout=timeout).stdout

    def start_load(self) -> None:
        """Start load.py as a service that starts again whatever happens, at boot as well."""
        # One that a run left which was killed.
        self.end_load()
        self.root(f"rm -rf {ACCOUNT}; mkdir {ACCOUNT}; touch {ACCOUNT}/acknowledged")
        self.board.send(ACCOUNT, "account_file.py", "load.py")
        # Whatever is acknowledged from here on lies behind this.
        self.settle()
        unit = (
            "[Unit]\nStartLimitIntervalSec=0\n[Service]\nRestart=always\nRestartSec=1\n"
            f"ExecStart=/opt/music/app/bin/python {ACCOUNT}/load.py {RATE} {ACCOUNT} 0\n"
            "[Install]\nWantedBy=multi-user.target\n"
        )
        self.board.ssh(
            f"sudo tee /etc/systemd/system/{UNIT}.service >/dev/null <<'UNIT'\n{unit}UNIT\n"
            f"sudo systemctl daemon-reload && sudo systemctl enable --quiet --now {UNIT}"
        )

    def end_load(self) -> None:
        """Stop the load and leave no trace of it but its plays."""
        self.root(
            f"systemctl disable --quiet --now {UNIT}; rm -rf {ACCOUNT} /etc/systemd/system/{UNIT}.service;"
            " systemctl daemon-reload",
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

        def size() -> int:
            return int(self.root(f"stat --format=%s {ACCOUNT}/acknowledged"))

        before = size()
        wait_for(
            f"{RATE} more acknowledged plays behind byte {before}",
            lambda: size() >= before + RATE * ENTRY.size,
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

    def settle(self) -> dict[str, Any]:
        """The account since the last time, as account.py prints it."""
        return self.board.script_on_board("account.py", ACCOUNT)

    def once(self, fault: Fault, chance: random.Random) -> Outcome:
        """Apply one fault, wait for recovery, count."""
        started = time.monotonic()
        try:
            self.taken |= set(fault.apply(self, chance) or ())
            recovery = self.wait_recovered()
            self.wait_load()
            seen = self.settle()
        except (TimeoutError, subprocess.SubprocessError, pytest.fail.Exception) as error:
            return Outcome(fault.name, fault.limit, time.monotonic() - started, remark=str(error)[-500:])
        gone = set(seen["not_in_postgres"])
        unexplained = sorted(set(seen["not_in_kafka"]) - self.taken)
        remarks = []
        if unexplained:
            remarks.append(f"{len(unexplained)} acknowledged plays not in Kafka: {unexplained[:3]}")
        if invented := sorted(set(seen["not_sent"]) - self.taken):
            remarks.append(f"{len(invented)} rows that nobody sent: {invented[:3]}")
        if not seen["acknowledged"]:
            remarks.append("no play was acknowledged")
        return Outcome(
            name=fault.name,
            limit=fault.limit,
            recovery=recovery,
            acknowledged=seen["acknowledged"],
            kafka=seen["kafka"],
            taken=len(gone & self.taken),
            lost=len(gone - self.taken) + seen["short"],
            doubled=seen["doubled"],
            exactness=seen["exactness"],
            remark="; ".join(remarks),
        )


# --- which processes ---


def main_of(container: str) -> str:
    """Shell text for the process that a container is for: the child of its init."""
    return f"$(pgrep -P $(docker inspect --format {{{{.State.Pid}}}} music-{container}))"


def all_of(container: str) -> str:
    return f"$(docker top music-{container} -o pid | tail -n +2)"


def like(container: str, words: str) -> str:
    return f"$(docker top music-{container} -o pid,args | awk '/{words}/ {{print $1}}')"


def unit(name: str) -> str:
    return f"$(systemctl show --property MainPID --value {name})"


EXECUTOR = like("spark-worker", "CoarseGrainedExecutorBackend")
BACKEND = like("postgres", "postgres: music_writer")

KILLED = {
    "broker": main_of("kafka"),
    "driver": main_of("metrics"),
    "executor": EXECUTOR,
    "worker": main_of("spark-worker"),
    "master": main_of("spark-master"),
    "PostgreSQL backend": BACKEND,
    "postmaster": main_of("postgres"),
    "Superset": main_of("superset"),
    "producer": unit("music-producer"),
    "dockerd": unit("docker"),
    "containerd": unit("containerd"),
}
STOPPED = KILLED | {
    "broker": all_of("kafka"),
    "driver": all_of("metrics"),
    "worker": all_of("spark-worker"),
    "postmaster": all_of("postgres"),
    "Superset": all_of("superset"),
}


def _pids(script: str) -> str:
    # An empty list would make a fault that is none.
    return f'pids="{script}"; [ -n "$pids" ] || {{ echo "no such process" >&2; exit 1; }}; '


def kill(pids: str) -> Apply:
    def apply(bench: Bench, _chance: random.Random) -> None:
        bench.root(_pids(pids) + "kill -KILL $pids")

    return apply


def stop_for(pids: str, seconds: int) -> Apply:
    def apply(bench: Bench, _chance: random.Random) -> None:
        # Some may be ended and replaced meanwhile.
        bench.root(_pids(pids) + f"kill -STOP $pids; sleep {seconds}; kill -CONT $pids 2>/dev/null || true")

    return apply


def down_for(name: str, seconds: int) -> Apply:
    def apply(bench: Bench, _chance: random.Random) -> None:
        bench.root(
            f"systemctl stop {name}; sleep {seconds}; systemctl start --no-block {name}",
            timeout=seconds + 120,
        )

    return apply


def shell(script: str) -> Apply:
    def apply(bench: Bench, _chance: random.Random) -> None:
        bench.root(script)

    return apply


def end_unheard(bench: Bench, _chance: random.Random) -> None:
    """Kill Superset when Docker does not listen: as soon as containerd is back that was killed."""
    bench.root(
        _pids(main_of("superset"))
        + f"old={unit('containerd')}; kill -KILL $old; new=0;"
        + f' until [ "$new" -gt 0 ] && [ "$new" -ne $old ]; do new={unit("containerd")}; done; kill -KILL $pids'
    )


# --- the board's plug ---


def power_cut(bench: Bench, _chance: random.Random) -> None:
    _molecule_board("power-cut", bench.board.name)
    _molecule_board("power-on", bench.board.name)


def power_cut_with_tail(bench: Bench, _chance: random.Random) -> set[str]:
    """The same, and what the broker appended in its last second had not reached the disk.

    How much of that second there is depends on the load; none of it need have been written.
    """
    _molecule_board("power-cut", bench.board.name)
    cache = Path(os.environ.get("MUSIC_CACHE", Path.home() / ".cache/music-streaming"))
    taken = cut_tail(
        cache / "boards" / bench.board.name / "root/var/lib/music/kafka", "stream_events", FLUSH_MS
    )
    _molecule_board("power-on", bench.board.name)
    return taken


def _molecule_board(verb: str, name: str) -> None:
    subprocess.run([Board.script, verb, name], check=True, capture_output=True, timeout=300)


# --- Spark ---


def spoil_scratch(bench: Bench, chance: random.Random) -> None:
    """Delete or truncate one file of the job's scratch."""
    files = bench.root("docker exec music-metrics find /tmp/spark -type f").split()
    harm = chance.choice(["rm -f", "truncate -s 0", "truncate -s 7"])
    bench.root(f"docker exec music-metrics {harm} {chance.choice(sorted(files))}", check=False)


def delete_scratch(bench: Bench, _chance: random.Random) -> None:
    bench.root("docker exec music-metrics sh -c 'rm -rf /tmp/spark/*'", check=False)


def replace_worker(bench: Bench, _chance: random.Random) -> None:
    """Kill the worker while the master is away: the master comes back and remembers one that is no more."""
    answer = "/usr/local/libexec/music/spark-ask worker 127.0.0.1 8081 2>/dev/null | grep -q id"
    bench.root(
        "systemctl stop music-spark-master; docker kill music-spark-worker >/dev/null;"
        f' timeout 60 sh -c "until {answer}; do sleep 0.5; done" || exit 1;'
        " systemctl start --no-block music-spark-master"
    )


def second_driver(bench: Bench, _chance: random.Random) -> None:
    """Run another driver for a while, with executors of its own so that it does read and write."""
    bench.root(
        "command=$(systemctl cat music-metrics | sed -n '/^ExecStart=/,/[^\\\\]$/p' | sed 's/^ExecStart=//; s/\\\\$//'"
        " | sed 's/--name music-metrics/--name music-second --env MUSIC_SPARK__MASTER=local[1]/' | tr '\\n' ' ');"
        ' eval "timeout --kill-after 10 75 $command" >/tmp/second-driver 2>&1;'
        " docker rm --force music-second >/dev/null 2>&1;"
        " grep -q 'goes on at\\|records in' /tmp/second-driver || { tail -n 20 /tmp/second-driver >&2; exit 1; }"
    )


# --- Kafka's topic ---


def recreate_topic(bench: Bench, _chance: random.Random) -> list[str]:
    """Delete the topic under load and make it again; what the job had not read went with it.

    Settled just before, so that only the plays of the moments around the deletion can be in question.
    """
    bench.settle()
    return list(bench.board.script_on_board("fault_topic.py", "recreate", ACCOUNT)["ids"])


def retention(bench: Bench, _chance: random.Random) -> list[str]:
    """While the job is down, Kafka deletes half of what it has not read; the gap must be noted to the record."""
    bench.root("systemctl stop music-metrics; sleep 10")
    done = bench.board.script_on_board("fault_topic.py", "retention", ACCOUNT)
    bench.root("systemctl start --no-block music-metrics")
    deadline = time.monotonic() + 120
    gaps: list[list[int]] = []
    while gaps != done["gaps"]:
        if time.monotonic() > deadline:
            raise TimeoutError(f"saw the gaps {gaps} noted, wanted {done['gaps']}")
        time.sleep(1)
        rows = bench.board.sql(
            "SELECT partition, from_offset, to_offset FROM ingest_gaps WHERE cause = 'retention'"
            " AND noticed_at > now() - interval '3 minutes' ORDER BY 1"
        )
        gaps = [[int(cell) for cell in row] for row in rows if row[0].isdigit()]
    return list(done["ids"])


# --- disk, network, clock ---


def disk_full(bench: Bench, _chance: random.Random) -> None:
    """All data on a small disk, which is filled up under load and freed again."""
    data, whole, image = "/var/lib/music", "/var/lib/music.whole", "/var/tmp/music-disk.img"
    stop = f"systemctl stop {' '.join(UNITS)} music.target"
    start = "systemctl start --no-block music.target"
    # A simulated board has no devices but those that are made.
    bench.root(
        "set -e; command -v mkfs.ext4 >/dev/null || apt-get install -y -q e2fsprogs >/dev/null;"
        " [ -e /dev/loop-control ] || { mknod /dev/loop-control c 10 237; mknod /dev/loop0 b 7 0; };"
        f" truncate -s $(($(du -sm {data} | cut -f1) + 500))M {image}; mkfs.ext4 -q -m 0 {image}"
    )
    try:
        bench.root(
            f"set -e; {stop}; mv {data} {whole}; mkdir {data}; mount -o loop {image} {data};"
            f" cp -a {whole}/. {data}/; {start}"
        )
        bench.wait_recovered()
        bench.root(
            f"free=$(df --output=avail -B1 {data} | tail -n 1); fallocate -l $free {data}/filler"
            f" || dd if=/dev/zero of={data}/filler bs=1M status=none; sleep 40; df {data} >&2; rm {data}/filler",
            check=False,
        )
        bench.wait_recovered()
        bench.settle()
    finally:
        bench.root(
            f"set -e; {stop}; if mountpoint -q {data}; then rm -rf {whole}; mkdir {whole}; cp -a {data}/. {whole}/; umount {data}; fi;"
            f" if [ -e {whole} ]; then rmdir {data}; mv {whole} {data}; fi; rm {image}; {start}"
        )


def partition(seconds: int) -> Apply:
    """Drop every packet from the driver to the database."""
    rule = "OUTPUT -p tcp --dport 5432 -m owner --uid-owner music-spark -j DROP"

    def apply(bench: Bench, _chance: random.Random) -> None:
        bench.root(f"iptables -w -I {rule}; sleep {seconds}; iptables -w -D {rule}")

    return apply


def clock(shift: str, *, rejected: bool) -> Apply:
    """Another load whose clock is wrong: what is dated ahead is a reject, what is old is a late play."""

    def apply(bench: Bench, _chance: random.Random) -> None:
        count, folder = 1000, f"{ACCOUNT}/clock"
        counted = "SELECT coalesce(sum(rejected), 0) FROM ingest_reject_totals WHERE reason = 'in_future'"
        if not rejected:
            counted = "SELECT count(*) FROM stream_events WHERE source = 'import' AND event_time < now() - interval '399 days'"
        before = int(bench.board.sql(counted)[-1][0])
        bench.root(
            "test -e /usr/lib/*/faketime/libfaketime.so.1 || apt-get install -y -q libfaketime >/dev/null;"
            f" rm -rf {folder}; mkdir {folder}; LD_PRELOAD=$(ls /usr/lib/*/faketime/libfaketime.so.1)"
            f" FAKETIME='{shift}' FAKETIME_DONT_FAKE_MONOTONIC=1 /opt/music/app/bin/python {ACCOUNT}/load.py"
            f" 200 {folder} {count}"
        )
        deadline = time.monotonic() + 60
        while (seen := int(bench.board.sql(counted)[-1][0])) < before + count and time.monotonic() < deadline:
            time.sleep(1)
        if seen < before + count:
            raise TimeoutError(f"counted {seen - before} plays of a clock {shift}, wanted {count}")

    return apply


CATALOGUE = [
    *(Fault(f"kill -9 {part}", kill(pids)) for part, pids in KILLED.items()),
    *(Fault(f"SIGSTOP {part} 40 s", stop_for(pids, 40), lasts=40) for part, pids in STOPPED.items()),
    Fault("restart of Docker", shell("systemctl restart docker")),
    Fault(
        "Docker stopped and started",
        shell("systemctl stop docker.socket docker; sleep 5; systemctl start docker"),
    ),
    Fault("restart of containerd", shell("systemctl restart containerd")),
    Fault("kill -9 Superset, unheard by Docker", end_unheard),
    Fault("power cut", power_cut, limit=90),
    Fault("power cut, unflushed tail gone", power_cut_with_tail, limit=90),
    Fault("a file of the scratch spoiled", spoil_scratch),
    Fault("the whole scratch deleted", delete_scratch),
    Fault("worker replaced while the master is away", replace_worker),
    Fault("second driver 75 s", second_driver, lasts=75),
    Fault("database down 30 s", down_for("music-postgres", 30), lasts=30),
    Fault("database down 5 min", down_for("music-postgres", 300), lasts=300),
    Fault("broker down 30 s", down_for("music-kafka", 30), lasts=30),
    Fault("broker down 6 min", down_for("music-kafka", 360), lasts=360),
    Fault("disk full 40 s", disk_full, lasts=120),
    Fault("topic deleted and recreated", recreate_topic),
    Fault("retention passes the job", retention),
    Fault("driver cut off from the database 45 s", partition(45), lasts=45),
    Fault("driver cut off from the database 5 min", partition(300), lasts=300),
    Fault("clock 3 h ahead", clock("+3h", rejected=True)),
    Fault("clock 400 days back", clock("-400d", rejected=False)),
]


def run(bench: Bench, faults: Iterable[Fault], chance: random.Random) -> Iterator[Outcome]:
    """Apply the faults one after another under load."""
    bench.wait_recovered()
    bench.start_load()
    try:
        for fault in faults:
            yield bench.once(fault, chance)
    finally:
        bench.end_load()


def summary(outcomes: list[Outcome]) -> Table:
    """One line a fault, and all of them together."""
    table = Table(title="Faults under load")
    for column in ("fault", "times", "longest recovery s", "lost", "doubled", "taken by the fault", "remark"):
        table.add_column(column, justify="left" if column in ("fault", "remark") else "right")

    def row(name: str, several: list[Outcome], remark: str = "") -> None:
        table.add_row(
            name,
            str(len(several)),
            f"{max(one.recovery for one in several):.0f}",
            *(str(sum(getattr(one, column) for one in several)) for column in ("lost", "doubled", "taken")),
            remark or ("" if all(one.ok for one in several) else "missed"),
        )

    for name in dict.fromkeys(one.name for one in outcomes):
        those = [one for one in outcomes if one.name == name]
        row(name, those, "; ".join(one.remark for one in those if one.remark))
    table.add_section()
    row("all", outcomes)
    return table


@click.command()
@click.option("--board", "name", default="faults", help="A board that is set up.")
@click.option("--rounds", default=1, help="How often each fault is applied; those that last, once.")
@click.option("--seed", default=1, help="Decides order and chance.")
@click.option("--quick", is_flag=True, help="Leave out those that take minutes.")
@click.option("--only", default="", help="Only faults whose name this regular expression finds.")
def main(name: str, rounds: int, seed: int, quick: bool, only: str) -> None:
    """Apply each fault to a board under load and count every play."""
    chance = random.Random(seed)  # noqa: S311
    chosen = [
        fault for fault in CATALOGUE if re.search(only, fault.name) and not (quick and fault.lasts > SHORT)
    ]
    order = [
        fault
        for number in range(rounds)
        for fault in chance.sample(chosen, len(chosen))
        if number == 0 or not fault.lasts
    ]
    console = Console(width=150)
    # The load ends with the run, however that ends, and what was seen until then is told.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    outcomes: list[Outcome] = []
    try:
        for outcome in run(Bench(Board(name)), order, chance):
            outcomes.append(outcome)
            console.print(
                f"{time.strftime('%H:%M:%S')} {outcome.name}: {outcome.recovery:.0f} s, {outcome.acknowledged} acknowledged,"
                f" {outcome.kafka} in Kafka, {outcome.taken} taken, {outcome.lost} lost, {outcome.doubled} doubled"
                f" {outcome.remark}",
                highlight=False,
            )
    finally:
        if outcomes:
            console.print(summary(outcomes))
            console.print("the load's own plays, by table:", outcomes[-1].exactness)
    sys.exit(0 if all(outcome.ok for outcome in outcomes) else 1)


if __name__ == "__main__":
    main()
