"""A board whose only way out is a proxy, and whose users' files are closed to others: it is set up all the same, images included."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import Board, inventory_of, own_board, run_playbook, wait_for

GATEWAY, PORT = "10.77.0.1", 3128
# Debian's packages, the app's, and what is in the images of Kafka and Spark.
HOSTS = (
    "GET http://deb.debian.org/",
    "CONNECT pypi.org:443",
    "CONNECT files.pythonhosted.org:443",
    "CONNECT repo1.maven.org:443",
)


@pytest.fixture
def proxied_board() -> Iterator[Board]:
    """A bare board without a route, with umask 077."""
    with own_board("proxied") as board:
        board.ssh(
            "sudo sh -c 'echo UMASK 077 >>/etc/login.defs; ip route del default; ip -6 route del default || true'"
        )
        assert board.ssh("sudo sh -c umask").stdout == "0077\n"
        yield board


def answers() -> bool:
    with socket.socket() as asking:
        return asking.connect_ex((GATEWAY, PORT)) == 0


@pytest.fixture
def proxy_log(proxied_board: Board, tmp_path: Path) -> Iterator[Path]:
    """What a proxy on this machine was asked for by the boards' network."""
    log, config = tmp_path / "proxy.log", tmp_path / "proxy.conf"
    config.write_text(
        f'Port {PORT}\nListen {GATEWAY}\nTimeout 600\nLogLevel Connect\nLogFile "{log}"\nMaxClients 50\n'
        "Allow 10.77.0.0/24\nConnectPort 443\n",
        encoding="utf-8",
    )
    with subprocess.Popen(["tinyproxy", "-d", "-c", str(config)], stdout=subprocess.DEVNULL) as proxy:
        try:
            wait_for("the proxy", answers, every=0.1)
            yield log
        finally:
            proxy.terminate()


def test_packages_images_and_app_come_through_the_proxy_and_are_open_to_the_services(
    proxied_board, proxy_log, tmp_path
):
    inventory = inventory_of(proxied_board, tmp_path)
    done = run_playbook(
        str(inventory), "site.yml",
        "-e", f"music_http_proxy=http://{GATEWAY}:{PORT}", "-e", "music_no_proxy=localhost,127.0.0.1,mirror.example",
        "-e", "music_images_cache=",
        timeout=2400,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]
    asked = proxy_log.read_text(encoding="utf-8")
    for host in HOSTS:
        assert host in asked, asked[-3000:]
    closed = proxied_board.ssh("sudo find /opt/music /usr/local -not -perm -o=r -not -type l").stdout
    assert closed == ""
