"""How far the job is behind what a load of plays has sent: so that none is sent faster than it is read."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from music_streaming.error import MusicError
from music_streaming.settings import Role, Settings

POLL_SECONDS = 0.2


class LagError(MusicError):
    """A job that stands still."""


@dataclass(frozen=True)
class Progress:
    """How far a load of plays is: records in Kafka, in the tables, and about how many there will be."""

    sent: int
    stored: int
    expected: int


@dataclass
class Lag:
    """How far the job is behind what was sent.

    ends: partition -> offset behind the newest record. role: who asks the tables.
    """

    settings: Settings
    report: Callable[[Progress], None] = lambda _: None
    ends: dict[int, int] = field(default_factory=dict)
    sent: int = 0
    expected: int = 0
    subject: str = "Plays"
    role: Role = Role.READER
    _looked: float = 0
    _moved: float = field(default_factory=time.monotonic)
    _behind: int | None = None

    def delivered(self, sent: list[Any]) -> None:
        """Wait until the records are in Kafka, and count them."""
        for future in sent:
            placed = future.get(timeout=self.settings.spark.stall_seconds)
            self.ends[placed.partition] = max(placed.offset + 1, self.ends.get(placed.partition, 0))
        self.sent += len(sent)

    def behind(self) -> int:
        """Records that the job has not yet stored; LagError where it stands still."""
        reached = next_offsets(self.settings, self.role)
        behind = sum(max(0, end - reached.get(partition, 0)) for partition, end in self.ends.items())
        now = time.monotonic()
        if behind != self._behind:
            self._behind, self._moved = behind, now
        stalled = self.settings.spark.stall_seconds
        if behind and now - self._moved > stalled:
            raise LagError.of(
                self.subject,
                found=f"{behind:,} records that the job has not stored, and no change for {stalled:g} s",
                wanted="a job that stores them",
                remedy="sudo systemctl status music-metrics; then run it again: nothing is counted twice",
            )
        self.report(Progress(self.sent, self.sent - behind, self.expected))
        self._looked = now
        return behind

    def wait_for_room(self, most: int) -> None:
        """Wait while the job is more than `most` records behind."""
        if time.monotonic() - self._looked < POLL_SECONDS:
            return
        while self.behind() > most:
            time.sleep(POLL_SECONDS)

    def wait_until_stored(self) -> None:
        """Wait until all of it is in the tables."""
        self.expected = self.sent
        while self.behind():
            time.sleep(POLL_SECONDS)


def next_offsets(settings: Settings, role: Role = Role.READER) -> dict[int, int]:
    """Partition -> offset that the job goes on from."""
    with (
        settings.postgres.connection(role, application="musicctl-lag") as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute(
            "SELECT partition, next_offset FROM ingest_offsets WHERE topic = %s", (settings.kafka.topic,)
        )
        return dict(cursor.fetchall())
