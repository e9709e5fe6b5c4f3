"""Every `musicctl ...` that a message, a comment, a task or a page names exists, with its sub-commands and options."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator

import click
import pytest

from docs import PROJECT
from music_streaming.cli import main as musicctl

PLACES = ["app", "docs", "files", "inventory", "molecule", "playbooks", "roles", "*.md", "Makefile"]
# What follows the command's name where a sentence goes on.
PROSE = {"and", "can", "from", "imports", "is", "on", "or", "read", "show", "the", "without"}
END = re.compile(r", then |[`\"'();|&<>{}\\]|\.(?:\s|$)|\n\n|\n *[a-z_-]+: ")


def named(text: str) -> Iterator[list[str]]:
    """The words after each `musicctl`, in a sentence, a shell line or a list of YAML."""
    for found in re.finditer(r"musicctl(?=[ ,\n])", text):
        rest = re.sub(r"\n[ #]*", " \n ", END.split(text[found.end() : found.end() + 300])[0])
        words = [word.strip(",[]:") for word in re.findall(r"\n|\S+", rest)]
        yield [word for word in words if word]


def missing(words: list[str], root: click.Command = musicctl) -> str | None:
    """What of these words musicctl does not know; None where it knows all."""
    command, same_line = root, True
    for word in words:
        if word == "\n":
            same_line = False
        elif (
            word in {"...", "-"}
            or word.startswith("/")
            or not (same_line or isinstance(command, click.Group))
        ):
            break
        elif word.startswith("-"):
            known = {name for option in command.params for name in (*option.opts, *option.secondary_opts)}
            if same_line and word.partition("=")[0] not in known | {"-h", "--help"}:
                return f"{command.name} {word}"
        elif isinstance(command, click.Group):
            if command is root and word in PROSE:
                break
            found = command.get_command(click.Context(command), word)
            if found is None:
                return f"{command.name} {word}"
            command = found
    return None


def files() -> list[str]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *PLACES],
        cwd=PROJECT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return [name for name in listed.stdout.splitlines() if not name.endswith((".png", ".gz", ".lock"))]


def test_every_musicctl_that_is_named_exists():
    wrong, seen = [], 0
    for name in files():
        if name == "app/tests/test_named_commands.py" or not (PROJECT / name).exists():
            continue
        for words in named((PROJECT / name).read_text(encoding="utf-8")):
            seen += 1
            if unknown := missing(words):
                wrong.append(f"{name}: {unknown} ({' '.join(words[:6])})")
    assert seen > 80
    assert wrong == []


@pytest.mark.parametrize(
    ("text", "unknown"),
    [
        ("Take a dump (sudo musicctl dump), move", "main dump"),
        ("sudo musicctl demo stopp", "demo stopp"),
        ("argv: [/usr/local/bin/musicctl, dashboards, imprt, --json]", "dashboards imprt"),
        ("`musicctl validate --thruth`", "validate --thruth"),
        ("run sudo musicctl\n  dump now", "main dump"),
        ("musicctl topics --check", None),
        ("the path of musicctl is closed", None),
        ("sudo musicctl status\nls --all", None),
    ],
)
def test_what_does_not_exist_is_found(text, unknown):
    (words,) = named(text)
    assert missing(words) == unknown
