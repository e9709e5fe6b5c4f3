"""Breakages made on a board of these tests' own: each named rightly by musicctl doctor, the safe ones mended by it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from conftest import Board, inventory_of, own_board, run_playbook, wait_for

SECRETS = "/etc/music/secrets"
# Seconds: the longest answer is that of a link after another one that answers late.
ANSWER, MENDED = 300, 600


class Case(NamedTuple):
    """What breaks the board, what the doctor must name, and what mends it; "" where --fix does."""

    breaks: str
    link: str
    kind: str
    unit: str = ""
    mend: str = ""


def stopped(unit: str, link: str) -> Case:
    return Case(f"systemctl stop {unit}", link, "unit-stopped", unit)


# A unit that Docker's client ended with an error is started again by systemd; one that is to fail has to be told so.
FAILS = "mkdir -p /run/systemd/system/{0}.service.d; printf '[Service]\\nRestart=no\\nExecStartPre=false\\n' >/run/systemd/system/{0}.service.d/broken.conf; systemctl daemon-reload; systemctl restart {0} || true; rm -r /run/systemd/system/{0}.service.d; systemctl daemon-reload"
WRONG = "cp -p {1}/{0} /run/{0}; printf wrong >{1}/{0}"
RIGHT = "cp -p /run/{0} {1}/{0}; rm /run/{0}"
# Small enough to count as full; the services keep the folder beneath, whose files they have open.
NARROW = "mount -t tmpfs -o size=900M{} tmpfs /var/lib/music"
WIDE_AGAIN = "umount /var/lib/music"
RENAME = (
    '/opt/music/app/bin/python -c "from music_streaming.settings import Role, Settings\n'
    "with Settings.load().postgres.connection(Role.OWNER) as c, c: c.cursor().execute('ALTER TABLE {} RENAME TO {}')\""
)
CASES = {
    "Kafka stopped": stopped("music-kafka", "kafka"),
    "PostgreSQL stopped": stopped("music-postgres", "tables"),
    "Superset stopped": stopped("music-superset", "superset"),
    "Spark master stopped": stopped("music-spark-master", "job"),
    "Spark worker stopped": stopped("music-spark-worker", "job"),
    "job stopped": stopped("music-metrics", "job"),
    "watch stopped": stopped("music-watch", "docker"),
    "avahi stopped": Case("systemctl stop avahi-daemon.socket avahi-daemon", "lan", "unit-stopped", "avahi-daemon"),
    "Kafka failed": Case(FAILS.format("music-kafka"), "kafka", "unit-failed", "music-kafka"),
    "scrobble server failed": Case(FAILS.format("music-scrobble"), "senders", "unit-failed", "music-scrobble"),
    "Superset disabled": Case("systemctl disable music-superset", "superset", "unit-disabled", "music-superset"),
    "Docker masked": Case(
        "systemctl mask docker.service; systemctl stop docker.socket docker.service",
        "docker", "unit-masked", "docker",
        "systemctl unmask docker.service; systemctl start docker.socket docker.service music.target",
    ),
    "unit deleted": Case(
        "mv /etc/systemd/system/music-superset.service /run/kept.service; systemctl daemon-reload",
        "board", "unit-gone", "music-superset",
        "mv /run/kept.service /etc/systemd/system/music-superset.service; systemctl daemon-reload",
    ),
    "settings with a mistake": Case(
        "cp -p /etc/music/music.toml /run/music.toml; sed -i 's/^port = .*/port = many/' /etc/music/music.toml",
        "board", "settings", "", "cp -p /run/music.toml /etc/music/music.toml",
    ),
    "image removed": Case(
        "image=$(docker inspect --format '{{.Config.Image}}' music-superset); systemctl stop music-superset;"
        " docker tag $image kept/superset:1; docker image rm $image; echo $image >/run/image",
        "docker", "image-missing", "music-superset",
        "docker tag kept/superset:1 $(cat /run/image); docker image rm kept/superset:1; systemctl start music-superset",
    ),
    "topic deleted": Case(
        "/opt/music/app/bin/python -c \"from music_streaming.broker import admin\n"
        "with admin('127.0.0.1:9092') as client: client.delete_topics(['stream_events'])\"",
        "topic", "topic-missing", "music-kafka",
    ),
    "disk full": Case(
        f"mkdir -p /var/cache/apt/archives; fallocate -l 64M /var/cache/apt/archives/old.deb; {NARROW.format('')}",
        "disk", "disk-full", "", WIDE_AGAIN,
    ),
    "disk read-only": Case(NARROW.format(",ro,nr_inodes=0,size=4G"), "disk", "disk-read-only", "", WIDE_AGAIN),
    "data folder gone": Case(
        "mv /var/lib/music /var/lib/music.away", "disk", "disk-missing", "", "mv /var/lib/music.away /var/lib/music"
    ),
    "writer's password changed": Case(
        WRONG.format("postgres_music_writer", SECRETS), "tables", "postgres-refuses", "music-postgres",
        RIGHT.format("postgres_music_writer", SECRETS),
    ),
    "Superset's password changed": Case(
        WRONG.format("superset_appliance", SECRETS), "superset", "superset-login", "music-superset",
        RIGHT.format("superset_appliance", SECRETS),
    ),
    "table renamed": Case(
        RENAME.format("device_usage_metrics", "away"), "tables", "table-missing", "music-postgres",
        RENAME.format("away", "device_usage_metrics"),
    ),
    "rule of the dashboards deleted": Case(
        "ufw delete allow 8088/tcp", "firewall", "firewall-closed", "",
        "ufw allow proto tcp to any port 8088 comment 'music dashboards 8088 tcp any'",
    ),
    "rule taken from the kernel": Case(
        "iptables -D ufw-user-input -p tcp --dport 8088 -j ACCEPT", "firewall", "firewall-not-loaded", "ufw"
    ),
    "firewall off": Case("ufw --force disable", "firewall", "firewall-off", "", "ufw --force enable"),
}  # fmt: skip
NO_NAMES = Case(
    "cat /etc/resolv.conf >/run/resolv.kept; echo nameserver 192.0.2.1 >/etc/resolv.conf",
    "lan", "lan-names", "", "cat /run/resolv.kept >/etc/resolv.conf",
)  # fmt: skip


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Board]:
    """A board of these tests' own, set up, on which every link holds."""
    with own_board("doctor") as made:
        inventory = inventory_of(made, tmp_path_factory.mktemp("inventory"))
        done = run_playbook(str(inventory), "site.yml", "-e", "pipeline_history_days=0")
        assert done.returncode == 0, done.stdout[-3000:]
        whole(made)
        yield made


def doctor(board: Board, *options: str, timeout: float = ANSWER) -> dict[str, Any]:
    """What the doctor says as root."""
    done = board.ssh(f"sudo musicctl doctor --json {' '.join(options)}", check=False, timeout=timeout)
    assert done.stdout.startswith("{"), done
    found: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == (0 if found["ok"] else 1)
    return found


def whole(board: Board) -> None:
    """Wait until every link holds."""
    seen: list[dict[str, Any]] = []

    def holds() -> bool:
        seen.append(doctor(board))
        return bool(seen[-1]["ok"])

    wait_for("a board on which every link holds", holds, seconds=400, every=5)
    assert [step["state"] for step in seen[-1]["steps"] if step["state"] == "not looked at"] == []
    assert seen[-1]["steps"][-1]["link"] == "flow"


@pytest.mark.parametrize("name", CASES)
def test_a_breakage_is_named_and_mended(board, name):
    case = CASES[name]
    board.ssh(f"sudo sh -c {quoted(case.breaks)}")
    try:
        found = doctor(board)
        step = found["steps"][-1]
        assert (found["broken"], step["kind"], step["unit"]) == (case.link, case.kind, case.unit), found
        assert step["found"]
        assert step["remedy"]
        if case.unit.startswith("music-"):
            assert step["journal"]
        # What only a person may do is left.
        fixed = doctor(board, "--fix", timeout=MENDED)
        assert fixed["ok"] == (not case.mend), fixed
        if case.kind == "disk-full":
            assert fixed["steps"][-1]["mended"][0].startswith("freed "), fixed
    finally:
        if case.mend:
            board.ssh(f"sudo sh -c {quoted(case.mend)}", timeout=300)
    whole(board)


def test_no_names_are_a_note_with_which_the_flow_goes_on(board):
    board.ssh(f"sudo sh -c {quoted(NO_NAMES.breaks)}")
    try:
        found = doctor(board)
        assert found["ok"], found
        assert [step["kind"] for step in found["steps"] if step["state"] == "note"] == [NO_NAMES.kind]
    finally:
        board.ssh(f"sudo sh -c {quoted(NO_NAMES.mend)}")
    whole(board)


def test_who_is_not_root_is_told_what_was_not_looked_at(board):
    done = board.ssh("musicctl doctor --json", check=False, timeout=ANSWER)
    found = json.loads(done.stdout)
    assert found["ok"], found
    unseen = {step["link"]: step["found"] for step in found["steps"] if step["state"] == "not looked at"}
    assert set(unseen) == {"docker", "tables", "superset", "firewall", "flow"}
    assert all("sudo musicctl doctor" in why for why in unseen.values())


# Takes one message and writes it down, as a service of the owner's would.
OWNER = """
import http.server
class Owner(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        open("/run/owner", "wb").write(body)
        self.send_response(200)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", 9099), Owner).handle_request()
"""


def test_what_turns_red_is_in_the_banner_on_pipeline_health_and_told(board):
    """The unit that the timer starts every hour, in its sandbox."""
    assert board.ssh("systemctl is-active music-health.timer").stdout == "active\n"
    board.ssh(
        "sudo sh -ec 'umask 077; printf json://127.0.0.1:9099/hook >/etc/music/secrets/notices_url'\n"
        f"sudo systemd-run --unit=owner --collect python3 -c {quoted(OWNER)}"
    )
    case = CASES["Kafka stopped"]
    board.ssh(f"sudo sh -c {quoted(case.breaks)}")
    try:
        board.ssh("sudo systemctl start music-health", timeout=600)
        banner = board.ssh("cat /run/motd.d/music").stdout
        assert "RED    kafka: unit-stopped" in banner, banner
        assert "sudo systemctl start music-kafka" in banner
        found = board.sql("SELECT level, name FROM board_findings ORDER BY position LIMIT 1")
        assert found == [["red", "kafka: unit-stopped"]]
        told = json.loads(board.ssh("sudo cat /run/owner").stdout)
        assert "RED kafka: unit-stopped" in told["message"], told
        assert json.loads(board.ssh("cat /var/lib/music-health/state.json").stdout)["told"]["red"]
    finally:
        board.ssh("sudo systemctl start music-kafka; sudo rm -f /etc/music/secrets/notices_url /run/owner")
        board.ssh("sudo systemctl stop owner", check=False)
    whole(board)

    def green() -> bool:
        board.ssh("sudo systemctl start music-health", timeout=600)
        return "RED" not in board.ssh("cat /run/motd.d/music").stdout

    wait_for("a look that finds nothing red", green, seconds=300, every=10)


def quoted(command: str) -> str:
    return "'" + command.replace("'", "'\\''") + "'"
