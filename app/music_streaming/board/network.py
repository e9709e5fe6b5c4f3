"""The last links of `musicctl doctor`: the firewall, and the network that the board is in."""

from __future__ import annotations

import contextlib
import itertools
import shlex
import socket
import subprocess
from urllib.parse import urlsplit

from music_streaming.board.breakages import LAN, UNITS, Broken, Doubtful, Unseen
from music_streaming.board.machine import NEEDS_ROOT, Board, running

SECONDS = 10
# Of documentation (RFC 5737, RFC 3849): connecting a datagram socket sends nothing, and finds the way.
SOMEWHERE = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))
# Debian's package archive, which a board needs for updates.
A_NAME = "deb.debian.org"
FAMILIES = (("user.rules", "iptables", "ufw-before-input"), ("user6.rules", "ip6tables", "ufw6-before-input"))


def firewall(of: Board) -> str:
    """ufw is on and denies by default; the kernel has its rules, among them one for the dashboards."""
    etc = of.root / "etc"
    try:
        on = "ENABLED=yes" in (etc / "ufw/ufw.conf").read_text(encoding="utf-8").splitlines()
        policy = (etc / "default/ufw").read_text(encoding="utf-8")
        written = {name: (etc / "ufw" / name).read_text(encoding="utf-8") for name, _, _ in FAMILIES}
    except FileNotFoundError as error:
        raise Broken("firewall-off", f"no {error.filename}") from error
    except PermissionError:
        raise Unseen(NEEDS_ROOT) from None
    if not on:
        raise Broken("firewall-off", "ufw off")
    if 'DEFAULT_INPUT_POLICY="DROP"' not in policy:
        raise Broken("firewall-off", "a firewall that lets everything in by default")
    rules = {
        name: allowing(text, urlsplit(of.settings.superset.url).port or 8088)
        for name, text in written.items()
    }
    if of.settings.superset.shared and not any(rules.values()):
        raise Broken("firewall-closed", "none", port=urlsplit(of.settings.superset.url).port)
    for name, program, chain in FAMILIES:
        # Without IPv6 ufw has no rules of it.
        if rules[name] or program == "iptables":
            _loaded(program, [["INPUT", "-j", chain], *rules[name]])
    return f"ufw on, {sum(map(len, rules.values()))} rule(s) for the dashboards"


def allowing(rules: str, port: int) -> list[list[str]]:
    """Those of ufw's rules (a file for iptables-restore) that let somebody to TCP `port`: words after -A."""
    words = [shlex.split(line) for line in rules.splitlines() if line.startswith("-A ")]
    return [
        rule[1:]
        for rule in words
        if rule[-2:] == ["-j", "ACCEPT"] and ("--dport", str(port)) in itertools.pairwise(rule)
    ]


def _loaded(program: str, rules: list[list[str]]) -> None:
    """Raise Broken unless the kernel has each of `rules`."""
    for rule in rules:
        command = [program, "--wait", "5", "--check", *rule]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS)
        except FileNotFoundError:
            raise Unseen(f"no program {program}") from None
        if done.returncode and "you must be root" in done.stderr:
            raise Unseen(NEEDS_ROOT)
        if done.returncode:
            raise Broken("firewall-not-loaded", f"no rule {' '.join(rule)} in the kernel", unit="ufw")


def lan(of: Board) -> str:
    """The board has an address, answers there, announces its name, and a name server answers it."""
    here = addresses()
    if not here:
        raise Broken("lan-no-route", "no way to any other address", unit="systemd-networkd")
    address = urlsplit(of.settings.superset.url)
    local = of.systemd.unit("music-superset").load == "loaded"
    if local and of.settings.superset.shared and not _listens(here[0], address.port or 8088):
        raise Broken("lan-dashboards", f"no answer at {here[0]}", unit="music-superset", port=address.port)
    with contextlib.suppress(Unseen):
        running(of, *UNITS[LAN])
    if why := no_names():
        raise Doubtful("lan-names", why)
    return f"{here[0]}, names are known"


def addresses() -> list[str]:
    """The addresses with which the board reaches others, of IPv4 first."""
    found = []
    for family, somewhere in SOMEWHERE:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect((somewhere, 9))
                found.append(str(probe.getsockname()[0]))
            except OSError:
                continue
    return found


def _listens(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), timeout=SECONDS).close()
    except OSError:
        return False
    return True


def no_names(name: str = A_NAME) -> str:
    """Why no name server answers, or ""; that there is no such name is an answer, too."""
    try:
        socket.getaddrinfo(name, 80, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        return "" if error.errno == socket.EAI_NONAME else f"{error.strerror} for {name}"
    return ""
