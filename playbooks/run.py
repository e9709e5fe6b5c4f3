"""Run playbooks on boards: the login is seen to first, and sudo's password is asked for once."""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from login import Login, RefusedError, at_a_terminal

INVENTORY = Path(__file__).parents[1] / "inventory"
# The first label of a name on the network (RFC 1123); one of digits alone would be read as an address.
LABEL = re.compile(r"(?!\d+$)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")
# Names that systems come with, and that nobody has chosen.
UNCHOSEN = {"raspberrypi", "debian", "localhost", ""}
ASKS_ITSELF = re.compile(r"-K$|--ask-become-pass$|--become-pass")


def main() -> int:
    """The exit code of the first playbook that fails, or 0."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog="What follows -- goes to ansible-playbook.", allow_abbrev=False
    )
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("-i", "--inventory", help="an inventory that is there")
    where.add_argument("--board", metavar="[USER@]ADDRESS", help="one board; its inventory is written")
    parser.add_argument("--name", default="", help="the name that it shall have")
    parser.add_argument("playbook", nargs="+")
    own, options = sys.argv[1:], []
    if "--" in own:
        at = own.index("--")
        own, options = own[:at], own[at + 1 :]
    given = parser.parse_args(own)
    try:
        inventory = board_inventory(given.board, given.name) if given.board else given.inventory
        logins = logins_of(inventory, options)
        for login, _ in logins:
            login.open()
        password = "" if any(map(ASKS_ITSELF.match, options)) else password_of(logins)
    except RefusedError as refusal:
        print(refusal, file=sys.stderr)
        return 1
    for playbook in given.playbook:
        code = run(inventory, playbook, options, password)
        if code != 0:
            return code
    return 0


def run(inventory: str, playbook: str, options: list[str], password: str) -> int:
    """Exit code of one playbook; the password goes through a pipe: it is in no file, process list or log."""
    argv = ["ansible-playbook", "-i", inventory, playbook, *options]
    print(shlex.join(argv), flush=True)
    if not password:
        return subprocess.run(argv, check=False).returncode
    argv += ["--become-password-file", "-"]
    return subprocess.run(argv, input=password, text=True, check=False).returncode


def logins_of(inventory: str, options: list[str]) -> list[tuple[Login, bool]]:
    """Each board of an inventory that is reached over ssh, and whether that has a password for its sudo."""
    parser = argparse.ArgumentParser(allow_abbrev=False, add_help=False)
    parser.add_argument("-l", "--limit")
    for name in ("--vault-id", "--vault-password-file"):
        parser.add_argument(name, action="append", default=[])
    known = parser.parse_known_args(options)[0]
    argv = ["ansible-inventory", "-i", inventory, "--list"]
    argv += ["--limit", known.limit] if known.limit else []
    argv += [word for file in known.vault_id for word in ("--vault-id", file)]
    argv += [word for file in known.vault_password_file for word in ("--vault-password-file", file)]
    tree = json.loads(subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=True).stdout)
    found = []
    for host in sorted(set(hosts_below(tree, "boards"))):
        variables = tree["_meta"]["hostvars"].get(host, {})
        if variables.get("ansible_connection", "ssh") in ("ssh", "smart"):
            knows = "ansible_become_password" in variables or "ansible_become_pass" in variables
            found.append((Login.of(host, variables), knows))
    return found


def hosts_below(tree: dict[str, Any], group: str) -> Iterable[str]:
    """Hosts of a group and of the groups in it."""
    node = tree.get(group, {})
    yield from node.get("hosts", [])
    for child in node.get("children", []):
        yield from hosts_below(tree, child)


def password_of(logins: list[tuple[Login, bool]]) -> str:
    """Sudo's password where it wants one and the inventory has none: from the owner's file, or asked for."""
    password = ""
    for login, known in logins:
        if known or not login.sudo_asks():
            continue
        file = os.environ.get("ANSIBLE_BECOME_PASSWORD_FILE", "")
        if os.access(file, os.X_OK):
            return ""  # Ansible runs it
        if not password and file:
            password = password_in(Path(file).expanduser())
        if not password and not at_a_terminal():
            raise RefusedError(
                f"a sudo on {login.name} that asks for a password, and no terminal to ask for it",
                "the password",
                "run again in a terminal, or put it into a file that you alone can read (chmod 600) and set "
                "ANSIBLE_BECOME_PASSWORD_FILE=FILE.",
            )
        if not password:
            password = login.ask_password()
        elif not login.check_password(password):
            raise RefusedError(
                f"a password that sudo on {login.name} does not take",
                f"the one of {login.user or 'its user'}",
                f"correct {file}."
                if file
                else "where boards have different ones, give each ansible_become_password in "
                "inventory/host_vars (Ansible Vault keeps it).",
            )
    return password


def password_in(file: Path) -> str:
    """The first line of the file that the owner named."""
    try:
        return file.read_text(encoding="utf-8").partition("\n")[0]
    except (OSError, UnicodeDecodeError) as error:
        raise RefusedError(
            f"no password in {file} ({error})", "a text file", "correct ANSIBLE_BECOME_PASSWORD_FILE."
        ) from error


def board_inventory(board: str, name: str) -> str:
    """Write the inventory of one board, with a name that no other in this folder has; the file's path."""
    user, _, address = board.rpartition("@")
    if name and not LABEL.match(name):
        raise RefusedError(
            f"the name {name}",
            "1 to 63 letters a-z, digits and hyphens, neither first nor last a hyphen, not digits alone",
            "give another NAME=.",
        )
    login = Login(board, address, user)
    login.open()
    own, machine = [*login.run("hostname; cat /etc/machine-id").stdout.split(), "", ""][:2]
    file = INVENTORY / f"board-{board.replace('@', '-')}.yml"
    others = {}
    for path in sorted(INVENTORY.glob("board-*.yml")):
        text = path.read_text(encoding="utf-8")
        for host in yaml.safe_load(text)["all"]["hosts"]:
            others[host] = path
            # The address may have changed, the board has not.
            if path == file or f"# machine {machine}\n" in text:
                del others[host]
                own = host
    if name in others:
        raise RefusedError(
            f"the name {name} in {others[name].relative_to(INVENTORY.parent)}",
            "a name for each board",
            "give another NAME=, or delete that file if the board is gone.",
        )
    tree = yaml.safe_load((INVENTORY / "hosts.example.yml").read_text(encoding="utf-8"))
    groups = tree["boards"]["children"]
    name = name or free_name(own.partition(".")[0].lower(), {*others, *groups, "all", "boards"})
    tree["all"]["hosts"] = {name: {"ansible_host": address} | ({"ansible_user": user} if user else {})}
    for group in groups.values():
        group["hosts"] = {name: {}}
    head = f"# Written by make for HOST={board}.\n# machine {machine}\n---\n"
    file.write_text(head + yaml.safe_dump(tree, sort_keys=False), encoding="utf-8")
    return str(file.relative_to(Path.cwd())) if file.is_relative_to(Path.cwd()) else str(file)


def free_name(own: str, taken: set[str]) -> str:
    """The name that a board has from its owner; else music, or music-2 and so on where others have that."""
    if own not in UNCHOSEN | taken and LABEL.match(own):
        return own
    numbered = (f"music-{number}" for number in range(2, 1000))
    return next(name for name in ("music", *numbered) if name not in taken)


if __name__ == "__main__":
    sys.exit(main())
