"""The simulated board of the stories, as its owner and as a stranger on the same network see it."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from music_streaming import testing
from snapshot import Snapshot

PROJECT = Path(__file__).parents[2]
NAME = os.environ.get("MUSIC_TEST_BOARD", "test")
# On the board; gone with its next boot.
SCRIPTS = "/run/board-tests"
# The board as it was before anything was installed; the story `bare` notes it for `removed`.
BARE = PROJECT / ".cache/bare-board.json"
CONTAINERS = ["kafka", "postgres", "spark-master", "spark-worker", "metrics", "superset"]
DASHBOARDS = sorted(path.stem for path in (PROJECT / "files/dashboards/dashboards").glob("*.yaml"))
UNITS = [f"music-{name}.service" for name in [*CONTAINERS, "producer", "scrobble", "watch"]]


class Board:
    """The board: commands over SSH as user pi, commands from a machine next to it, its address."""

    script = str(PROJECT / "molecule" / "board")

    def __init__(self, name: str = NAME) -> None:
        self.name = name

    @property
    def address(self) -> str:
        return self._run([self.script, "address", self.name]).stdout.strip()

    @property
    def address6(self) -> str:
        return f"fd77:6d75::{self.address.rpartition('.')[2]}"

    def ssh(
        self, command: str, *, check: bool = True, timeout: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Run `command` by the board's shell as user pi."""
        return self._run([self.script, "ssh", self.name, command], check=check, timeout=timeout)

    def power(self, verb: str) -> str:
        """What a verb of molecule/board prints: up, reboot, power-cut, down, inventory."""
        return self._run([self.script, verb, self.name], timeout=300).stdout

    def outside(
        self, *command: str, check: bool = True, timeout: float = 300
    ) -> subprocess.CompletedProcess[str]:
        """Run `command` on another machine of the board's network."""
        return self._run([self.script, "outside", *command], check=check, timeout=timeout)

    def open_ports(self, target: str, *options: str) -> list[str]:
        """Ports of an address that answer another machine of its network, as NUMBER/STATE/PROTOCOL; all of TCP
        when no nmap options are given.
        """
        family = ["-6"] if ":" in target else []
        asked = options or ("-p-", "--min-rate", "8000")
        scan = self.outside("nmap", "-n", "-Pn", "--max-retries", "2", "-oG", "-", *asked, *family, target)
        return sorted(re.findall(r"(\d+/open/\w+)", scan.stdout))

    def sql(self, statement: str) -> list[list[str]]:
        """Rows of a query through the read-only role, as text."""
        quoted = statement.replace("'", "'\\''")
        out = self.ssh(f"sudo musicctl sql --csv -c '{quoted}'").stdout
        return [line.split(",") for line in out.splitlines()]

    def script_on_board(self, name: str, *arguments: str, timeout: float = 300) -> dict[str, Any]:
        """Run molecule/tests/`name` in the app's Python on the board; the JSON object that it prints."""
        self.send(SCRIPTS, "on_board.py", "account_file.py", name)
        command = f"sudo /opt/music/app/bin/python {SCRIPTS}/{name} {' '.join(arguments)}"
        found: dict[str, Any] = json.loads(self.ssh(command, timeout=timeout).stdout)
        return found

    def snapshot(self) -> Snapshot:
        """What an installation could change of the system (see snapshot.py)."""
        script = (PROJECT / "molecule/tests/snapshot.py").read_text(encoding="utf-8")
        found: Snapshot = json.loads(self.ssh(f"sudo python3 - <<'SCRIPT'\n{script}\nSCRIPT").stdout)
        return found

    def send(self, folder: str, *names: str) -> None:
        """Copy these of molecule/tests into a folder on the board."""
        command = f"sudo mkdir -p {folder}"
        for name in names:
            script = (PROJECT / "molecule/tests" / name).read_text(encoding="utf-8")
            command += f"\nsudo tee {folder}/{name} >/dev/null <<'SCRIPT'\n{script}\nSCRIPT"
        self.ssh(command)

    def produce(self, value: bytes) -> None:
        """Send one record to the topic of the plays."""
        self.ssh(
            "sudo /opt/music/app/bin/python - <<'SCRIPT'\n"
            "from kafka import KafkaProducer\n"
            "p = KafkaProducer(bootstrap_servers='127.0.0.1:9092')\n"
            f"p.send('stream_events', key=b'x', value={value!r}).get(30)\n"
            "p.close()\nSCRIPT"
        )

    @contextlib.contextmanager
    def superset(self, user: str, password: str) -> Iterator[httpx.Client]:
        """Superset's REST interface as `user`, from this machine."""
        url = f"http://{self.address}:8088"
        with httpx.Client(base_url=url, headers={"Referer": url}, timeout=60) as client:
            login = {"username": user, "password": password, "provider": "db"}
            answer = client.post("/api/v1/security/login", json=login).raise_for_status()
            client.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"
            client.headers["X-CSRFToken"] = client.get("/api/v1/security/csrf_token/").json()["result"]
            yield client

    @contextlib.contextmanager
    def superset_admin(self) -> Iterator[httpx.Client]:
        """The same as the owner."""
        password = self.ssh("sudo cat /etc/music/secrets/superset_admin").stdout.strip()
        with self.superset("admin", password) as client:
            yield client

    def _run(
        self, argv: list[str], *, check: bool = True, timeout: float = 120
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=timeout, check=False)
        if check and done.returncode != 0:
            # A script that was sent along would hide what it said.
            command = [word.partition("\n")[0] for word in argv]
            pytest.fail(f"{command} ended with {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done


def count_of_a_dataset(client: httpx.Client) -> httpx.Response:
    """Ask Superset for the number of rows of a dataset that the user may read."""
    metric = {"expressionType": "SQL", "sqlExpression": "count(*)", "label": "n"}
    return ask_dataset(client, "user_engagement_metrics", {"columns": [], "metrics": [metric]})


def ask_dataset(client: httpx.Client, table: str, query: dict[str, Any], **more: Any) -> httpx.Response:
    """Ask Superset, as a chart does, a query of the dataset on `table`; `more` goes beside the query."""
    asked = {
        "datasource": {"id": dataset_of(client, table), "type": "table"},
        "queries": [query],
        "force": True,
    }
    return client.post("/api/v1/chart/data", json=asked | more)


def dataset_of(client: httpx.Client, table: str) -> int:
    """Superset's number of the dataset on `table`."""
    wanted = {"filters": [{"col": "table_name", "opr": "eq", "value": table}]}
    (found,) = client.get("/api/v1/dataset/", params={"q": json.dumps(wanted)}).json()["result"]
    return int(found["id"])


@pytest.fixture(scope="session")
def board() -> Board:
    return Board()


@contextlib.contextmanager
def own_board(name: str) -> Iterator[Board]:
    """A fresh, bare board of some tests' own, removed at the end."""
    board = Board(name)
    try:
        for verb in ("down", "up"):
            board.power(verb)
        yield board
    finally:
        board.power("down")


def board_of_a_story(name: str) -> Any:
    """The fixture `board` of a story that makes a board of its own: board = board_of_a_story("moved")."""

    @pytest.fixture(scope="module", name="board")
    def made() -> Iterator[Board]:
        with own_board(name) as board:
            yield board

    return made


def inventory_of(board: Board, folder: Path) -> Path:
    """An inventory file of a board, in `folder`."""
    file = folder / f"{board.name}.yml"
    file.write_text(board.power("inventory"), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def inventory(board: Board, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The inventory file of a story's own board."""
    return str(inventory_of(board, tmp_path_factory.mktemp("inventory")))


def status(board: Board) -> dict[str, Any]:
    """What `musicctl status` says."""
    found: dict[str, Any] = json.loads(board.ssh("sudo musicctl status --json", check=False).stdout)
    return found


def stand_still(board: Board, seconds: float = 180) -> None:
    """Nothing plays, and the job has read all."""
    board.ssh("sudo systemctl stop music-producer")
    wait_for("the job to have read all", lambda: status(board)["lag"] == 0, seconds=seconds)


def problems(board: Board) -> set[str]:
    """What `musicctl status` finds wrong."""
    return set(status(board)["problems"])


def wait_until_healthy(board: Board, but: Collection[str] = (), seconds: float = 180) -> None:
    """Wait until `musicctl status` finds nothing wrong but what is known; what it finds last is shown."""
    found = testing.wait_for(lambda: problems(board).difference(but), lambda wrong: not wrong, seconds)
    assert not found, "\n".join(sorted(found))


def playbook_command(inventory: str, *arguments: str) -> tuple[list[str], dict[str, str]]:
    """The command that runs a playbook in the folder of a release, and its environment."""
    argv = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", inventory, *arguments]
    environment = os.environ | {"ANSIBLE_CONFIG": "ansible.cfg", "ANSIBLE_NOCOLOR": "1", "LC_ALL": "C.UTF-8"}
    # Molecule's own variables would reach the inner run.
    return argv, {k: v for k, v in environment.items() if not k.startswith(("MOLECULE_", "ANSIBLE_ROLES"))}


def run_playbook(
    inventory: str, *arguments: str, project: Path = PROJECT, timeout: float = 900
) -> subprocess.CompletedProcess[str]:
    """Run a playbook of the project, or of another release of it, against the boards of an inventory file.

    At most `timeout` seconds.
    """
    argv, environment = playbook_command(inventory, *arguments)
    return subprocess.run(
        argv, cwd=project, env=environment, capture_output=True, text=True, timeout=timeout, check=False
    )


@pytest.fixture(scope="session")
def play() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a playbook of the project against the board: play("site.yml", "-e", "x=1")."""
    return functools.partial(run_playbook, os.environ["MUSIC_INVENTORY"])


def wait_for(what: str, ask: Callable[[], object], *, seconds: float = 60, every: float = 1) -> object:
    """The first true answer of `ask`; after `seconds` the test fails and shows the last answer."""
    seen = testing.wait_for(ask, bool, seconds, every=every)
    if not seen:
        pytest.fail(f"waited {seconds:.0f} s for {what}; last seen: {seen!r}")
    return seen


@contextlib.contextmanager
def playing(board: Board, rate: float) -> Iterator[None]:
    """The demo audience at so many plays a second; afterwards as the settings say."""
    board.ssh(f"sudo musicctl demo rate {rate:g}")
    try:
        yield
    finally:
        board.ssh("sudo musicctl demo rate --reset")


def recount(board: Board) -> None:
    """Distinct valid event ids straight from Kafka equal the raw rows in PostgreSQL (see recount.py)."""
    count = board.script_on_board("recount.py")
    print(count)
    assert count["only_kafka"] == count["only_postgres"] == [], count
