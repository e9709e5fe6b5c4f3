"""A board as its owner has it after the Imager: no key copied yet, a host key nobody knows, a sudo with a password."""

from __future__ import annotations

import os
import pty
import pwd
import select
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from conftest import PROJECT, Board

ANSWER_SECONDS = 60
# Where ssh looks, whatever $HOME says.
SSH = Path(pwd.getpwuid(os.getuid()).pw_dir) / ".ssh"
Run = Callable[..., tuple[int, str]]


def board_state(board: Board) -> Path:
    """What molecule/board keeps of it."""
    return Path(os.environ.get("MUSIC_CACHE", Path.home() / ".cache/music-streaming")) / "boards" / board.name


@pytest.fixture
def password(board: Board) -> str:
    return (board_state(board) / "password").read_text(encoding="utf-8").strip()


@pytest.fixture
def newcomer(board: Board, tmp_path: Path) -> Iterator[Run]:
    """Run playbooks/run.py on the board as somebody whose .ssh is an empty folder, in a terminal where each question of
    `answers` gets its answer, one after another, or with no terminal; exit code and what was shown.
    """
    home = tmp_path / "ssh"
    home.mkdir(mode=0o700)
    keys = board.ssh("cat .ssh/authorized_keys").stdout
    target = f"pi@{board.address}"

    def run(
        *options: str, answers: list[tuple[str, str]] | None = None, prepare: str = "true"
    ) -> tuple[int, str]:
        script = [sys.executable, "playbooks/run.py", "--board", target, *options]
        inside = (
            f"mkdir -p {SSH} && mount --bind {home} {SSH} && {{ {prepare}; }} && exec {shlex.join(script)}"
        )
        argv = ["unshare", "--mount", "--propagation", "private", "sh", "-c", inside]
        environment = os.environ | {
            "ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg"),
            "ANSIBLE_NOCOLOR": "1",
            "HOME": str(tmp_path),
            "ANSIBLE_SSH_CONTROL_PATH_DIR": str(tmp_path / "cp"),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }
        for name in ("SSH_AUTH_SOCK", "ANSIBLE_ROLES_PATH"):
            environment.pop(name, None)
        if answers is None:
            done = subprocess.run(
                ["setsid", "--wait", *argv],
                cwd=PROJECT,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
            )
            return done.returncode, done.stdout + done.stderr
        return in_a_terminal(argv, environment, answers)

    yield run
    board.ssh(f"printf %s {shlex.quote(keys)} >.ssh/authorized_keys")
    for file in (PROJECT / "inventory").glob("board-pi-*.yml"):
        if f"ansible_host: {board.address}\n" in file.read_text(encoding="utf-8"):
            file.unlink()


def in_a_terminal(
    argv: list[str], environment: dict[str, str], answers: list[tuple[str, str]]
) -> tuple[int, str]:
    """Exit code of a program, and all that it showed; an answer is typed when its question comes after the last one."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(PROJECT)
        os.execvpe(argv[0], argv, environment)  # noqa: S606
    shown, left, seen = "", list(answers), 0
    deadline = time.monotonic() + ANSWER_SECONDS
    while True:
        ready, _, _ = select.select([terminal], [], [], 1)
        if ready:
            try:
                more = os.read(terminal, 65536).decode(errors="replace")
            except OSError:  # the program has closed the terminal
                break
            if not more:
                break
            shown += more
            deadline = time.monotonic() + ANSWER_SECONDS
        if left and (at := shown.find(left[0][0], seen)) >= 0:
            seen = at + len(left[0][0])
            os.write(terminal, f"{left.pop(0)[1]}\n".encode())
        if time.monotonic() > deadline:
            os.kill(pid, 9)
            pytest.fail(f"nothing new for {ANSWER_SECONDS} s; shown:\n{shown}")
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert not left, f"never asked: {left[0][0]}; shown:\n{shown}"
    return code, shown


def first_login(board: Board, password: str) -> list[tuple[str, str]]:
    return [("(yes/no/[fingerprint])?", "yes"), (f"pi@{board.address}'s password:", password)]


def test_newcomer_gets_in_and_is_asked_once(newcomer, board, password, tmp_path):
    """Two playbooks and one question each: the fingerprint, the login's password, sudo's password."""
    become = tmp_path / "become.yml"
    become.write_text(
        "- hosts: boards\n  gather_facts: false\n  become: true\n  tasks:\n"
        "    - ansible.builtin.command: id -un\n      register: who\n"
        "    - ansible.builtin.debug: {msg: 'became {{ who.stdout }}'}\n",
        encoding="utf-8",
    )
    questions = [*first_login(board, password), ("for sudo", password)]
    code, shown = newcomer("--name", "jukebox", str(become), str(become), answers=questions)
    assert code == 0, shown
    assert "key fingerprint is SHA256:" in shown
    assert shown.count("became root") == 2, shown
    assert password not in shown
    # The key and the name stay: nothing but sudo's password is asked for again.
    code, shown = newcomer(str(become), answers=[("for sudo", password)])
    assert code == 0, shown
    assert shown.count("for sudo") == 1, shown
    assert "ok: [jukebox]" in shown, shown


def test_wrong_password_of_sudo_is_told_before_anything_runs(newcomer, board, password):
    code, shown = newcomer(
        "site.yml",
        answers=[*first_login(board, password), *[("for sudo", "wrong")] * 3],
    )
    assert code == 1
    assert "three passwords that sudo does not take" in shown, shown
    assert "PLAY" not in shown


def test_unknown_host_key_is_refused_where_nobody_can_be_asked(newcomer, board):
    began = time.monotonic()
    code, shown = newcomer("site.yml")
    assert code == 1
    assert "Host key verification failed" in shown, shown
    assert f"ssh -o StrictHostKeyChecking=accept-new pi@{board.address}" in shown
    assert time.monotonic() - began < 10


def test_missing_key_is_refused_with_the_line_that_copies_it(newcomer, board):
    began = time.monotonic()
    code, shown = newcomer("site.yml", prepare=f"ssh-keyscan {board.address} >{SSH}/known_hosts 2>/dev/null")
    assert code == 1
    assert "Permission denied" in shown, shown
    assert f'"ssh-copy-id pi@{board.address}"' in shown
    assert time.monotonic() - began < 15


def test_changed_host_key_is_refused(newcomer, board):
    other = (
        f"ssh-keygen -q -t ed25519 -N '' -f {SSH}/id_ed25519;"
        f'{{ printf "{board.address} "; cat {SSH}/id_ed25519.pub; }} >{SSH}/known_hosts'
    )
    code, shown = newcomer("site.yml", prepare=other)
    assert code == 1
    assert "another host key" in shown, shown
    assert f"-R {board.address}" in shown


@pytest.mark.parametrize("content", ["", "wrong\n"])
def test_password_of_sudo_where_nobody_can_be_asked(newcomer, board, tmp_path, monkeypatch, content):
    if content:
        file = tmp_path / "password"
        file.write_text(content, encoding="utf-8")
        monkeypatch.setenv("ANSIBLE_BECOME_PASSWORD_FILE", str(file))
    state = board_state(board)
    code, shown = newcomer("site.yml", prepare=f"cp {state}/id_ed25519* {SSH}; cp {state}/known_hosts {SSH}")
    assert code == 1
    assert ("does not take" if content else "set ANSIBLE_BECOME_PASSWORD_FILE=") in shown, shown
    assert "PLAY" not in shown
