"""What the tests of the wing board share."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from surroundings import IMAGE, IPTABLES, RULES, Units, docker_with, superset_with, workers_with

from music_streaming.board import doctor, network
from music_streaming.board.engine import Engine
from music_streaming.board.machine import Board
from music_streaming.board.systemd import Systemd
from music_streaming.topic import ensure_topics


@pytest.fixture
def units(tmp_path: Path) -> Iterator[Units]:
    """A bus with systemd's interface; every unit of a board runs."""
    if shutil.which("dbus-daemon") is None:
        pytest.fail("found no dbus-daemon; make setup-test installs it")
    served = Units(tmp_path)
    yield served
    served.close()


@pytest.fixture
def whole(settings, units, broker, topic, tmp_path, monkeypatch):  # noqa: PLR0917
    """A board on which every link up to the network holds; its parts can be broken one by one."""
    with contextlib.ExitStack() as stack:
        docker = stack.enter_context(docker_with(tmp_path, IMAGE))
        url = stack.enter_context(superset_with("opensesame", "0.0.0.0"))  # noqa: S104
        port = stack.enter_context(workers_with("DEAD", "ALIVE"))
        (tmp_path / "superset_appliance").write_text("opensesame\n")
        settings = settings.with_changes(
            kafka={"bootstrap": broker.bootstrap, "topic": topic, "partitions": 2},
            spark={"master_web_port": port},
            superset={"url": url},
            stream={"clock_trusted": True},
        )
        ensure_topics(settings)
        _firewall(tmp_path, url.rpartition(":")[2], monkeypatch)
        monkeypatch.setattr(network, "no_names", lambda: "")
        monkeypatch.setattr(doctor, "FLOW_SECONDS", 1.0)
        monkeypatch.setattr(doctor, "MENDED_LIMIT", 5.0)
        yield Board(settings, Systemd(units.address, seconds=5), Engine(docker, 5), tmp_path)


def _firewall(root: Path, port: str, monkeypatch) -> None:
    (root / "etc/ufw").mkdir(parents=True)
    (root / "etc/default").mkdir()
    (root / "bin").mkdir()
    (root / "etc/ufw/ufw.conf").write_text("# comment\nENABLED=yes\nLOGLEVEL=off\n")
    (root / "etc/default/ufw").write_text('IPV6=yes\nDEFAULT_INPUT_POLICY="DROP"\n')
    (root / "etc/ufw/user.rules").write_text(RULES.replace("PORT", port))
    (root / "etc/ufw/user6.rules").write_text("*filter\nCOMMIT\n")
    (root / "kernel").write_text(
        f"INPUT -j ufw-before-input\nufw-user-input -p tcp --dport {port} -s 192.168.0.0/16 -j ACCEPT\n"
    )
    for name in ("iptables", "ip6tables"):
        (root / "bin" / name).write_text(IPTABLES.format(file=root / "kernel"))
        (root / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{root / 'bin'}:/usr/bin:/bin:/usr/sbin:/sbin")
