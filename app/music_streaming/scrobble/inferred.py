"""Plays of players that say what they play and never report it: with the setting `infer_plays` they count.

What played for half its length or more, and was followed by no listen within the grace, was a play. It is
flagged (reason_end "inferred"), so that the listen of a player that only sends it late is known as the same
play (same_play.py). Held in memory: what plays while the server is started anew is not inferred.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from music_streaming.event import SAME_PLAY_MS, song_id
from music_streaming.scrobble.directory import Player
from music_streaming.scrobble.plays import Heard

SPAN = timedelta(milliseconds=SAME_PLAY_MS)
LOOK_SECONDS = 5.0


@dataclass
class _Playing:
    player: Player
    heard: Heard
    started: datetime
    length: timedelta
    ended: datetime | None = None

    @property
    def song(self) -> str:
        return song_id(self.heard.artist, self.heard.title)

    @property
    def end(self) -> datetime:
        """When it was over: at its length at the latest."""
        natural = self.started + self.length
        return natural if self.ended is None else min(self.ended, natural)


@dataclass
class Playing:
    """What plays, of each player, until it is reported or inferred."""

    grace: timedelta
    _open: list[_Playing] = field(default_factory=list)

    def begins(self, player: Player, heard: Heard, now: datetime) -> None:
        """The player says that it plays this now; without a length nothing can be inferred."""
        if any(self._continues(one, player, heard, now) for one in self._open):
            return
        self.stops(player, now)
        if heard.milliseconds is not None:
            length = timedelta(milliseconds=heard.milliseconds)
            self._open.append(_Playing(player, heard, now, length))

    @staticmethod
    def _continues(one: _Playing, player: Player, heard: Heard, now: datetime) -> bool:
        """Players say it again after a pause or a seek."""
        same = one.player.md5 == player.md5 and one.song == song_id(heard.artist, heard.title)
        return same and one.ended is None and now < one.end

    def stops(self, player: Player, now: datetime) -> None:
        """The player plays something else, or nothing."""
        for one in self._open:
            if one.player.md5 == player.md5 and one.ended is None:
                one.ended = now

    def reported(self, player: Player, plays: Iterable[Heard]) -> None:
        """Listens that came: what they tell of needs no inference."""
        for heard in plays:
            song, at = song_id(heard.artist, heard.title), heard.started
            self._open = [
                one
                for one in self._open
                if at is None
                or one.player.listener.name != player.listener.name
                or one.song != song
                or not one.started - SPAN <= at <= one.started + one.length + SPAN
            ]

    def due(self, now: datetime) -> list[tuple[Player, Heard]]:
        """The plays to be inferred by now; they stay until they are `reported`."""
        self._open = [
            one
            for one in self._open
            if one.end + self.grace > now or 2 * (one.end - one.started) >= one.length
        ]
        return [
            (one.player, replace(one.heard, started=one.started, inferred=True))
            for one in self._open
            if one.end + self.grace <= now
        ]
