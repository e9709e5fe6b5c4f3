"""What every command of `musicctl` shares: groups that import late, options, and how things are printed."""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import click

if TYPE_CHECKING:
    from rich.console import Console

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
dry_run = click.option("--check", "dry_run", is_flag=True, help="Say what would change, and change nothing.")


class Lazy(NamedTuple):
    """A command that is not imported yet: ``module:attribute``, and the first line of its help."""

    target: str
    help: str


class LazyGroup(click.Group):
    """Imports a command when it is called: help and completion need none, and no command pays for others."""

    def __init__(self, *arguments: Any, lazy: Mapping[str, Lazy], **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.lazy = lazy

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, sorted."""
        return sorted({*super().list_commands(ctx), *self.lazy})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, imported if need be; None where there is none of that name."""
        if cmd_name not in self.lazy:
            return super().get_command(ctx, cmd_name)
        module, _, attribute = self.lazy[cmd_name].target.partition(":")
        command = getattr(importlib.import_module(module), attribute)
        if not isinstance(command, click.Command):
            raise TypeError(f"{self.lazy[cmd_name].target} is no command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands in the help."""
        own = {name: command.get_short_help_str() for name, command in self.commands.items()}
        with formatter.section("Commands"):
            formatter.write_dl(sorted((own | {name: lazy.help for name, lazy in self.lazy.items()}).items()))


def console() -> Console:
    """Where tables go: as wide as the terminal; into a pipe or a file, wide enough to cut no line."""
    from rich.console import Console  # noqa: PLC0415  not for those that print no table

    return Console(width=None if os.isatty(1) else 200)


def print_json(content: Any) -> None:
    """Print `content` with times as RFC 3339 text, and any other object as its text."""

    def plain(value: Any) -> str:
        return value.isoformat() if isinstance(value, datetime) else str(value)

    click.echo(json.dumps(content, default=plain, ensure_ascii=False, indent=2))


def print_changes(changes: list[str], *, as_json: bool) -> None:
    """Print what was changed, a line each, or ``unchanged``; Ansible reads the JSON."""
    if as_json:
        print_json({"changed": bool(changes), "changes": changes})
    else:
        click.echo("\n".join(f"changed: {change}" for change in changes) or "unchanged")
