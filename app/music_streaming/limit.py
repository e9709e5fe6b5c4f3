"""How many records a micro-batch may have: fewer after one too large or too slow, then more again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

# A batch may take this part of the time after which the job counts as stalled.
SLOW = 1 / 3
# What a new limit aims at, as a part of that.
AIM = 1 / 2
FALL = 10
RISE = 2
# Full batches that have to go well before the limit rises; more after each fall.
PROOF = 3
PROOF_MOST = 96


@dataclass
class BatchLimit:
    """The limit of records of one batch.

    most: the setting, which it never passes. now: what holds. stall_seconds: after which the job would count
    as stalled. why: of the last fall, empty at `most`.
    """

    most: int
    now: int
    stall_seconds: float
    why: str = ""
    _well: int = 0
    _proof: int = PROOF

    def failed(self, why: str) -> bool:
        """A batch was too large or too slow. False where it cannot be smaller."""
        if self.now == 1:
            return False
        self._fall(max(self.now // FALL, 1), why)
        return True

    def finished(self, records: int, seconds: float) -> bool:
        """A batch of `records` took `seconds`; returns whether the limit is another one now."""
        slow = self.stall_seconds * SLOW
        if seconds > slow:
            # One batch during which the whole board was suspended must not lower it to almost nothing.
            fits = max(int(records * slow * AIM / seconds), self.now // FALL, 1)
            if fits >= self.now:
                return False
            self._fall(fits, f"a batch of {records} records took {seconds:.0f} s")
            return True
        # The source deals the limit out to partitions and rounds down.
        full = records >= self.now * 0.9
        if self.now == self.most or not full or seconds * RISE > slow * AIM:
            return False
        self._well += 1
        if self._well < self._proof:
            return False
        self.now = min(self.now * RISE, self.most)
        self._well = 0
        if self.now == self.most:
            self.why, self._proof = "", PROOF
        return True

    def _fall(self, to: int, why: str) -> None:
        self.now, self.why, self._well = to, why, 0
        self._proof = min(self._proof * 2, PROOF_MOST)


def stored_limit(connection: Any, topic: str, most: int, stall_seconds: float) -> BatchLimit:
    """The limit with which the life of the job before this one ended; `most` without any."""
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT records, why FROM ingest_limits WHERE topic = %s", (topic,))
        row = cursor.fetchone()
    if not row or row[0] >= most:
        return BatchLimit(most, most, stall_seconds)
    return BatchLimit(most, row[0], stall_seconds, row[1])


def store_limit(connection: Any, topic: str, limit: BatchLimit) -> None:
    """Have the next life begin with `limit`, and `musicctl status` show it."""
    with connection, connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO ingest_limits AS l (topic, records, most, why) VALUES (%s, %s, %s, %s) "
            "ON CONFLICT (topic) DO UPDATE SET records = excluded.records, most = excluded.most, "
            "why = excluded.why, changed_at = now() "
            "WHERE (l.records, l.most) IS DISTINCT FROM (excluded.records, excluded.most)",
            (topic, limit.now, limit.most, limit.why),
        )
