"""A board's login over SSH and its sudo: what is missing is seen to, or refused in their own words."""

from __future__ import annotations

import getpass
import os
import pwd
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# A board that has just been switched on.
BOOT_SECONDS = 30
STILL_STARTING = (
    "timed out",
    "refused",
    "No route to host",
    "reset by peer",
    "not resolve",
    "Connection closed",
)
PASSWORD_METHODS = ("password", "keyboard-interactive")
# ssh looks into the account's home folder, whatever $HOME says.
HOME = Path(pwd.getpwuid(os.getuid()).pw_dir)


class RefusedError(Exception):
    """Why a run does not begin, as found, wanted, remedy."""

    def __init__(self, found: str, wanted: str, remedy: str) -> None:
        super().__init__(f"Found {found}, wanted {wanted}: {remedy}")


def at_a_terminal() -> bool:
    """Whether somebody can be asked."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True


def quoted(said: str, program: str = "ssh") -> str:
    """What a program said, on one line."""
    return f'{program} said "{" ".join(said.split())}"'


@dataclass(frozen=True)
class Login:
    """How a board is reached, as ssh takes it."""

    name: str
    address: str
    user: str = ""
    options: tuple[str, ...] = ()

    @classmethod
    def of(cls, name: str, variables: Mapping[str, Any]) -> Login:
        """The login that an inventory's variables of a host describe."""
        options: list[str] = []
        if key := variables.get("ansible_ssh_private_key_file") or variables.get("ansible_private_key_file"):
            options += ["-o", f"IdentityFile={key}"]
        if port := variables.get("ansible_port") or variables.get("ansible_ssh_port"):
            options += ["-o", f"Port={port}"]
        for more in ("ansible_ssh_common_args", "ansible_ssh_extra_args"):
            options += str(variables.get(more, "")).split()
        address = variables.get("ansible_host") or variables.get("ansible_ssh_host") or name
        user = variables.get("ansible_user") or variables.get("ansible_ssh_user") or ""
        return cls(name, str(address), str(user), tuple(options))

    @property
    def destination(self) -> str:
        return f"{self.user}@{self.address}" if self.user else self.address

    def run(self, command: str, *options: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run `command` on the board without asking anybody anything."""
        argv = ["ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10", *options, *self.options]
        return subprocess.run(
            [*argv, self.destination, f"LC_ALL=C; export LC_ALL; {command}"],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
        )

    def open(self) -> None:
        """Make sure that ssh gets in: ask about a new host key, copy the owner's key, wait for a boot."""
        deadline = time.monotonic() + BOOT_SECONDS
        tried: set[str] = set()
        while True:
            done = self.run("true")
            if done.returncode == 0:
                return
            said = done.stderr.strip()
            if "IDENTIFICATION HAS CHANGED" in said:
                raise self._other_host_key(said)
            if "Host key verification failed" in said and "host key" not in tried:
                tried.add("host key")
                self._accept_host_key(said)
            elif "Permission denied" in said and "key" not in tried:
                tried.add("key")
                self._copy_key(said)
            elif any(words in said for words in STILL_STARTING) and time.monotonic() < deadline:
                time.sleep(1)
            else:
                raise self._no_login(said)

    def _found(self, said: str) -> str:
        return f"no login on {self.name} ({self.destination}); {quoted(said)}"

    def _other_host_key(self, said: str) -> RefusedError:
        known = next((line.split()[-1] for line in said.splitlines() if line.startswith("Offending")), "")
        file = f" -f {known.rpartition(':')[0]}" if ":" in known else ""
        return RefusedError(
            f"another host key on {self.address} than the one that this computer knows",
            "the same board as before",
            f'if its card was written anew, forget the old key with "ssh-keygen{file} -R {self.address}" and '
            "run again; if not, another machine answers at that address.",
        )

    def _accept_host_key(self, said: str) -> None:
        if not at_a_terminal():
            raise RefusedError(
                f"a host key of {self.address} that this computer does not know; {quoted(said)}",
                "one that it knows",
                "run again in a terminal, where ssh shows its fingerprint and asks, or accept it with "
                f'"ssh -o StrictHostKeyChecking=accept-new {self.destination}".',
            )
        # ssh shows the fingerprint and asks on the terminal; nobody is logged in here.
        asking = ["-o", "StrictHostKeyChecking=ask", "-o", "PreferredAuthentications=none"]
        argv = ["ssh", *asking, "-o", "ConnectTimeout=10", *self.options, self.destination, "true"]
        done = subprocess.run(argv, stderr=subprocess.PIPE, text=True, check=False)
        if "Host key verification failed" in done.stderr:
            raise self._no_login(done.stderr)

    def _copy_key(self, said: str) -> None:
        copy = f"ssh-copy-id {self.destination}"
        if not any(method in said for method in PASSWORD_METHODS):
            raise RefusedError(
                self._found(said),
                "a login with your SSH key",
                "give the Raspberry Pi Imager your public key (or put it into ~/.ssh/authorized_keys) and "
                "see that the user's name is right.",
            )
        if not at_a_terminal():
            raise RefusedError(
                self._found(said),
                "a login with your SSH key",
                f'copy it with "{copy}", which asks for the password (no key: "ssh-keygen"), and run again.',
            )
        print(f"{self.name} does not know your SSH key yet: {copy}", flush=True)
        given = [option.partition("=")[2] for option in self.options if option.startswith("IdentityFile=")]
        if not given and not self._has_key():
            key = HOME / ".ssh/id_ed25519"
            print(f"You have none: making {key}", flush=True)
            key.parent.mkdir(mode=0o700, exist_ok=True)
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
        chosen = ["-i", given[0]] if given else []
        argv = ["ssh-copy-id", *chosen, *self.options, self.destination]
        done = subprocess.run(argv, env=os.environ | {"HOME": str(HOME)}, check=False)
        if done.returncode != 0:
            raise self._no_login(said)

    @staticmethod
    def _has_key() -> bool:
        if any((HOME / ".ssh").glob("id_*.pub")):
            return True
        return subprocess.run(["ssh-add", "-L"], capture_output=True, check=False).returncode == 0

    def _no_login(self, said: str) -> RefusedError:
        if "Permission denied" in said:
            return RefusedError(
                self._found(said),
                "a login with your SSH key",
                f'try "ssh {self.destination}"; a key with a passphrase must be in the agent (ssh-add).',
            )
        return RefusedError(
            self._found(said),
            f"an answer within {BOOT_SECONDS} s",
            "see that the board has power and network, that SSH was switched on in the Raspberry Pi Imager "
            f'and that {self.address} is its address; try "ssh {self.destination}" by hand, then run again.',
        )

    def sudo_asks(self) -> bool:
        """Whether sudo wants a password; RefusedError if it would not take one either."""
        done = self.run('[ "$(id -u)" = 0 ] || sudo -n true')
        if done.returncode == 0:
            return False
        if "password is required" in done.stderr:
            return True
        raise self._no_root(done.stderr)

    def check_password(self, password: str) -> bool:
        """Whether sudo takes this password; RefusedError if the user may not become root with any."""
        done = self.run("sudo -S -k -p '' true", stdin=f"{password}\n")
        if (
            done.returncode != 0
            and "incorrect password" not in done.stderr
            and "try again" not in done.stderr
        ):
            raise self._no_root(done.stderr)
        return done.returncode == 0

    def _no_root(self, said: str) -> RefusedError:
        return RefusedError(
            f"no root rights for {self.user or 'the user'} on {self.name}; {quoted(said, 'sudo')}",
            "a user that may use sudo",
            f'log in as one, or run "usermod -aG sudo {self.user or "USER"}" on the board as root.',
        )

    def ask_password(self) -> str:
        """Sudo's password from the terminal, tried on the board; RefusedError after three wrong ones."""
        who = f"{self.user} on {self.name}" if self.user else f"your user on {self.name}"
        for _ in range(3):
            password = getpass.getpass(f"Password of {who} for sudo (asked once, kept nowhere): ")
            if self.check_password(password):
                return password
            print("sudo does not take it.", flush=True)
        raise RefusedError(
            "three passwords that sudo does not take", f"the one of {who}", "run again; nothing was changed."
        )
