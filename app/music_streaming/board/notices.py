"""Tells the owner by Apprise what turns red, and what is green again: one message an hour at most.

The address (https://appriseit.com/services/) may hold a password: it is a secret, the file ``notices_url``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from music_streaming.board.health import Finding
from music_streaming.error import MusicError

SECRET = "notices_url"  # noqa: S105  the name of its file
BETWEEN = timedelta(hours=1)


class NoticeError(MusicError):
    """A notice that could not be sent."""


@dataclass(frozen=True)
class Told:
    """What the owner knows to be red, by name, and when that was told."""

    red: tuple[str, ...] = ()
    at: datetime | None = None

    @classmethod
    def read(cls, state: Mapping[str, Any]) -> Told:
        """From the state of the last hour; nothing is told where there is none."""
        found = state.get("told") or {}
        try:
            at = datetime.fromisoformat(found["at"]) if found.get("at") else None
            return cls(tuple(str(name) for name in found["red"]), at)
        except (KeyError, TypeError, ValueError):
            return cls()


@dataclass(frozen=True)
class Notice:
    """A message to the owner."""

    title: str
    text: str


def notice(board: str, told: Told, red: Sequence[Finding], now: datetime) -> Notice | None:
    """What is to be told; None where nothing has changed, or the last message is less than an hour old."""
    names = [finding.name for finding in red]
    if set(names) == set(told.red):
        return None
    if told.at and timedelta() <= now - told.at < BETWEEN:
        return None
    lines = [f"RED {finding.name}: {finding.found}\n{finding.command}" for finding in red]
    lines += [f"green again: {name}" for name in told.red if name not in names]
    title = f"{board}: {len(red)} red" if red else f"{board}: green again"
    return Notice(title, "\n".join(lines))


def send(address: str, message: Notice) -> None:
    """Send it; NoticeError where the address is none, or nobody takes it. The address is in no text."""
    from apprise import Apprise  # noqa: PLC0415  slow to import, and off by default

    service = Apprise()
    if not service.add(address):
        raise NoticeError.of(
            "Notices",
            found="an address that Apprise does not know",
            wanted="one such as ntfys://ntfy.sh/TOPIC, mailtos://... or json://HOST/PATH",
            remedy="correct pipeline_notices_url in the inventory and run site.yml",
        )
    if not service.notify(title=message.title, body=message.text):
        raise NoticeError.of(
            "Notices",
            found=f"the service of pipeline_notices_url ({address.partition(':')[0]}) not taking the message",
            wanted="one that takes it",
            remedy="none needed once it answers: the next hour tries again",
        )
