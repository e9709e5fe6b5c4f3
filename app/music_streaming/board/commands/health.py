"""`musicctl health`: how the board is, red first; hourly by music-health.timer."""

from __future__ import annotations

import logging
import platform
from datetime import UTC, datetime
from typing import Any

import click
import psycopg2
from rich.console import Console
from rich.table import Table
from rich.text import Text

from music_streaming import terminal
from music_streaming.board import health as state
from music_streaming.board import noted, notices
from music_streaming.board.breakages import FLOW
from music_streaming.board.commands.doctor import examine
from music_streaming.board.doctor import LINKS as ALL_LINKS
from music_streaming.board.health import RED, Health
from music_streaming.board.machine import Board
from music_streaming.board.status import collect, size
from music_streaming.error import MusicError
from music_streaming.setting_files import SettingsError
from music_streaming.settings import Settings

# A record an hour would be one more than people sent; status tells of a job that does not move.
LINKS = [link for link in ALL_LINKS if link != FLOW]


@click.command()
@terminal.as_json
@click.option(
    "--note", is_flag=True, help="Note it for the login banner, and tell the owner what has changed."
)
@click.option("--test-notice", is_flag=True, help="Only send a message to pipeline_notices_url.")
def health(as_json: bool, note: bool, test_notice: bool) -> None:
    """How the board is, red first, each with the command to type; exit code 1 when something is red.

    The first broken link, temperature and voltage, wear of the card, days until the disk is full, age of the
    newest backup, a surge of rejects. Hourly a timer notes it (--note).
    """
    settings = Settings.load()
    if test_notice:
        notices.send(_address(settings, needed=True), notices.Notice(f"{platform.node()}: test", "It works."))
        click.echo("sent")
        return
    board = Board(settings)
    before = state.read_state(state.state_file(board))
    found = state.examine(board, collect(settings), examine(LINKS), state.written_before(before))
    if note:
        _note(board, found, before, datetime.now(UTC))
    if as_json:
        terminal.print_json(found.to_dict())
    else:
        show(found, terminal.console())
    # The timer's unit has done its work, whatever it found.
    raise SystemExit(1 if found.red and not note else 0)


def _address(settings: Settings, *, needed: bool = False) -> str:
    try:
        return settings.secret(notices.SECRET).get_secret_value()
    except SettingsError:
        if needed:
            raise MusicError.of(
                "Notices",
                found="no address that this user may read",
                wanted="pipeline_notices_url in the inventory",
                remedy="set it and run site.yml; sudo musicctl health --test-notice",
            ) from None
        return ""


def _note(board: Board, found: Health, before: dict[str, Any], now: datetime) -> None:
    """Write state, banner and tables, and tell the owner; a message that fails is logged, and tried again."""
    told = notices.Told.read(before)
    address = _address(board.settings)
    message = notices.notice(platform.node(), told, found.red, now) if address else None
    if message:
        try:
            notices.send(address, message)
            told = notices.Told(tuple(finding.name for finding in found.red), now)
        except notices.NoticeError as error:
            logging.getLogger("musicctl").error("%s", error)
    content = found.to_dict() | {"told": {"red": told.red, "at": told.at}}
    state.write_state(state.state_file(board), content)
    state.write_banner(board.root, found)
    try:
        noted.write(board.settings.postgres, platform.node(), found)
    except (MusicError, psycopg2.Error) as error:
        # What is wrong with it is among the findings.
        logging.getLogger("musicctl").warning("Pipeline health keeps the look before: %s", str(error).strip())


def show(found: Health, console: Console) -> None:
    """Print it for people."""
    for finding in found.findings:
        style = "bold red" if finding.level == RED else "yellow"
        console.print(Text(f"{finding.level} {finding.name}: {finding.found}", style=style))
        console.print(Text(f"  {finding.command}"))
    if not found.findings:
        console.print(Text("all is well", style="bold green"))
    if found.a_day:
        table = Table("service", title="Written a day", title_justify="left")
        table.add_column("", justify="right")
        for name, count in found.a_day.items():
            table.add_row(name, size(count))
        console.print(table)
