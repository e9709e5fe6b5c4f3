"""What of a system an installation could change, as a JSON object of objects: what is looked at, name, state.

Runs on the board as root with the system's own Python, before the appliance is there and after it has gone.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import subprocess
from pathlib import Path

# Listed with all that is below them, or so many levels deep.
TREES = {"/etc": None, "/opt": None, "/usr/local": None, "/boot": None, "/srv": None, "/var/spool": None}
LEVELS = {
    "/": 1,
    "/root": 1,
    "/home": 2,
    "/var": 1,
    "/var/lib": 1,
    "/var/tmp": 1,
    "/run": 1,
    "/usr/lib/systemd/system": 1,
}
LISTED_ONLY = 256 * 1024
# Of services that come and go by themselves.
PASSING = ("systemd-private-",)
# Of the system's own, in lines of `changes`: backups of the account tools, locks that are gone with the next boot.
OF_THE_SYSTEM = (
    r"files (/etc/(passwd|group|shadow|gshadow|subuid|subgid)-|/run/(adduser|ufw\.lock|xtables\.lock)): "
)

Snapshot = dict[str, dict[str, str]]


def said(*command: str) -> list[str]:
    """Lines that a command prints; none where there is no such command."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return []
    return done.stdout.splitlines()


def state(path: Path, content: bool) -> str:
    """Kind, mode and owner of a file, and of its content the hash."""
    found = path.lstat()
    text = f"{stat.filemode(found.st_mode)} {found.st_uid}:{found.st_gid}"
    if stat.S_ISLNK(found.st_mode):
        return f"{text} -> {os.readlink(path)}"
    if content and stat.S_ISREG(found.st_mode) and found.st_size < LISTED_ONLY:
        return f"{text} {hashlib.sha256(path.read_bytes()).hexdigest()[:16]}"
    return text


def files() -> dict[str, str]:
    """Path -> state."""
    found: dict[str, str] = {}
    for top, deep in (TREES | LEVELS).items():
        for folder, folders, names in os.walk(top):
            depth = len(Path(folder).parts) - len(Path(top).parts) + 1
            for name in folders + names:
                if name.startswith(PASSING):
                    continue
                path = Path(folder, name)
                found[str(path)] = state(path, content=deep is None)
            if depth == deep:
                folders.clear()
    return found


def changes(before: Snapshot, after: Snapshot) -> list[str]:
    """What differs, a line each: kind, name, state before and after."""
    return sorted(
        f"{kind} {name}: {before[kind].get(name, 'absent')} became {after[kind].get(name, 'absent')}"
        for kind in before
        for name in before[kind].keys() | after[kind].keys()
        if before[kind].get(name) != after[kind].get(name)
    )


def pairs(lines: list[str], separator: str | None = None) -> dict[str, str]:
    """First word of each line -> the rest."""
    return {
        line.split(separator, 1)[0]: line.split(separator, 1)[-1].strip() for line in lines if line.strip()
    }


def snapshot() -> Snapshot:
    """All that is looked at."""
    firewall = said("ufw", "status", "verbose") + said("ufw", "show", "added")
    return {
        "packages": pairs(
            said("dpkg-query", "--show", "--showformat=${Package}:${Architecture} ${db:Status-Abbrev}\n")
        ),
        "files": files(),
        "users": pairs(said("getent", "passwd"), ":"),
        "groups": pairs(said("getent", "group"), ":"),
        "units": pairs(said("systemctl", "list-unit-files", "--no-legend", "--no-pager")),
        "failed": pairs(said("systemctl", "list-units", "--failed", "--plain", "--no-legend")),
        "firewall": dict.fromkeys(firewall, ""),
        "rules": dict.fromkeys((rule for rule in said("iptables-save") if rule.startswith("-A")), ""),
        "name": {"now": said("hostname")[0], "at boot": said("hostnamectl", "--static")[0]},
        "interfaces": dict.fromkeys(said("ls", "/sys/class/net"), ""),
    }


if __name__ == "__main__":
    print(json.dumps(snapshot()))
