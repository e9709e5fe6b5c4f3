"""Follow one record through the whole flow and name the first link that is broken.

The record is a tombstone: it takes every step a play takes - broker, Spark, the transaction in PostgreSQL -
and the contract has the job count it without adding a play, so that asking does not change what is shown.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx
import psycopg2
import tenacity

from music_streaming import broker
from music_streaming.error import MusicError, database_error
from music_streaming.settings import Role

if TYPE_CHECKING:
    from music_streaming.settings import Settings

KEY = b"musicctl-trace"


@dataclass(frozen=True)
class Step:
    """One link of the flow that held: what was asked, what was seen, after how many seconds."""

    link: str
    seen: str
    seconds: float


class BrokenLinkError(MusicError):
    """The first link that does not hold; `unit` is the service to look at."""

    def __init__(self, link: str, *, found: str, wanted: str, unit: str, after: list[Step]) -> None:
        self.link, self.found, self.unit, self.after = link, found, unit, after
        super().__init__(
            f"{link}: found {found}, wanted {wanted}. Remedy: sudo systemctl status {unit}; "
            f"sudo journalctl -u {unit} -e"
        )

    def journal(self, lines: int = 50) -> str:
        """The last `lines` lines of the unit's journal, or why they cannot be had."""
        done = subprocess.run(
            ["journalctl", "--unit", self.unit, "--lines", str(lines), "--no-pager", "--output", "short-iso"],
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout or done.stderr


def trace(settings: Settings, *, seconds: float = 60) -> list[Step]:
    """Send one tombstone and wait until the read-only role sees its offset passed in PostgreSQL.

    Each link gets at most `seconds`. Raises BrokenLinkError at the first that does not hold.
    """
    steps: list[Step] = []

    def link(name: str, unit: str, wanted: str, ask: Callable[[], str]) -> None:
        started = time.monotonic()
        try:
            seen = ask()
        except BrokenLinkError:
            raise
        except (broker.KafkaError, MusicError, httpx.HTTPError, OSError) as error:
            found = f"{type(error).__name__} {str(error).strip() or '(no text)'}"
            raise BrokenLinkError(name, found=found, wanted=wanted, unit=unit, after=steps) from error
        except psycopg2.Error as error:
            fault = database_error(error)
            if fault is None:
                raise
            raise BrokenLinkError(name, found=f"({fault})", wanted=wanted, unit=unit, after=steps) from error
        steps.append(Step(name, seen, time.monotonic() - started))

    topic_id, partition, offset = "", -1, -1

    def send() -> str:
        nonlocal topic_id, partition, offset
        partition, offset = broker.send_one(
            settings.kafka.bootstrap, settings.kafka.topic, KEY, None, seconds
        )
        with broker.admin(settings.kafka.bootstrap) as client:
            topic_id = broker.topic_identity(client, settings.kafka.topic)
        return f"offset {offset} of partition {partition}"

    def covered() -> str:
        # When the time is over, the last answer is returned.
        waiting = tenacity.Retrying(
            retry=tenacity.retry_if_result(lambda reached: reached <= offset),
            stop=tenacity.stop_after_delay(seconds),
            wait=tenacity.wait_fixed(0.1),
            retry_error_callback=lambda state: state.outcome.result() if state.outcome else 0,
        )
        reached = waiting(_next_offset, settings, topic_id, partition)
        if reached <= offset:
            raise BrokenLinkError(
                "Spark job -> PostgreSQL",
                found=f"offset {reached} of partition {partition} after {seconds:.0f} s",
                wanted=f"an offset beyond {offset}",
                unit="music-metrics",
                after=steps,
            )
        return f"next offset {reached}"

    link("producer -> Kafka", "music-kafka", "an acknowledged record", send)
    link(
        "PostgreSQL, read-only role",
        "music-postgres",
        "an answer to a query",
        lambda: f"next offset {_next_offset(settings, topic_id, partition)}",
    )
    link("Spark cluster", "music-spark-master", "a master with a worker", lambda: spark_workers(settings))
    link("Spark job -> PostgreSQL", "music-metrics", "the record's offset passed", covered)
    return steps


def _next_offset(settings: Settings, topic_id: str, partition: int) -> int:
    # Offsets of a deleted topic of the same name mean nothing.
    with (
        settings.postgres.connection(Role.READER, application="musicctl-trace") as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute(
            "SELECT next_offset FROM ingest_offsets WHERE topic = %s AND topic_id = %s AND partition = %s",
            (settings.kafka.topic, topic_id, partition),
        )
        row = cursor.fetchone()
    return int(row[0]) if row else 0


def spark_workers(settings: Settings) -> str:
    """How many workers the Spark master has; httpx.HTTPError as it comes, MusicError without any."""
    if settings.spark.master.startswith("local"):
        return settings.spark.master
    host = settings.spark.master.removeprefix("spark://").partition(":")[0]
    answer = httpx.get(f"http://{host}:{settings.spark.master_web_port}/json/", timeout=10).raise_for_status()
    alive = [worker for worker in answer.json()["workers"] if worker["state"] == "ALIVE"]
    if not alive:
        raise MusicError("no worker alive")
    return f"{len(alive)} worker(s) alive"
