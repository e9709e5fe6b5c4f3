"""The history of the demo audience: generated once, sent through the same topic and job as every play.

`backfill` may be killed at any moment and run again. The plan, written first, keeps span and population, so
that the next run sends the same plays with the same event_ids, of which the job takes each once; the file of
expected metrics, written last, says that all of it is in the tables.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from music_streaming import broker
from music_streaming.error import MusicError
from music_streaming.lag import Lag, Progress
from music_streaming.settings import ProducerSettings, Settings
from music_streaming.topic import Topic, wanted_topics

if TYPE_CHECKING:
    from music_streaming.demo.records import Block

DAY_MS = 86_400_000
# Records on their way to Kafka: few enough for any memory, and for the client, which gets slow with more.
CHUNK = 2_000
# The job is never left further behind than this share of its largest batch: enough for it to write one and
# read the next. Of more than a batch Spark would take a part of each partition, and the parts end at times of
# the history hours apart: late for that alone.
BATCH_WAITING = 0.9


class HistoryError(MusicError):
    """A history that cannot be sent, or that the tables do not hold."""


@dataclass(frozen=True)
class Plan:
    """What a history is made of; the same plan gives the same plays. Times are Unix ms, whole hours."""

    version: int
    start_ms: int
    end_ms: int
    seed: int
    listeners: int
    artists: int
    locales: tuple[str, ...]
    bad_data: tuple[float, ...]

    @classmethod
    def of(cls, settings: Settings, now: datetime) -> Plan:
        """The history that ends with the last whole hour."""
        from music_streaming.demo.producer import bad_data_of  # noqa: PLC0415
        from music_streaming.demo.world import VERSION, World, floor_hour  # noqa: PLC0415  loads numpy

        wanted = settings.producer
        end_ms = floor_hour(int(now.timestamp() * 1000))
        # Older raw plays would expire as soon as they are stored.
        days = min(wanted.history_days, settings.stream.demo_retention_days)
        # A clock that was ahead in the past cannot be told any more: the play would only be a wrong one, and
        # those behind it in the topic would count as late.
        bad_data = bad_data_of(wanted)._replace(ahead=0)
        return cls(
            VERSION,
            end_ms - days * DAY_MS,
            end_ms,
            wanted.seed,
            wanted.listeners or World.listeners_for(wanted.rate),
            wanted.artists,
            wanted.locales,
            tuple(bad_data),
        )

    @classmethod
    def read(cls, path: Path) -> Plan | None:
        """The plan of an earlier run; None if there is none, or one that this version cannot repeat."""
        from music_streaming.demo.world import VERSION  # noqa: PLC0415

        with contextlib.suppress(FileNotFoundError, KeyError, TypeError, ValueError):
            content = json.loads(path.read_text(encoding="utf-8"))
            plan = cls(**content | {name: tuple(content[name]) for name in ("locales", "bad_data")})
            return plan if plan.version == VERSION else None
        return None

    def write(self, path: Path) -> None:
        """Write it atomically."""
        part = path.with_suffix(".part")
        part.write_text(json.dumps(self.__dict__), encoding="utf-8")
        _settle(part, path)

    def __str__(self) -> str:
        start, end = (datetime.fromtimestamp(ms / 1000, UTC) for ms in (self.start_ms, self.end_ms))
        return f"{self.listeners:,} listeners from {start:%F %H:%M} to {end:%F %H:%M} UTC"


def plan_file(settings: Settings) -> Path:
    """Where the plan is kept."""
    return settings.paths.data / "producer" / "history.json"


def expected_file(settings: Settings) -> Path:
    """The board's own expected metrics: the file is there when the history is in the tables, whole."""
    return settings.paths.data / "producer" / "expected.jsonl.gz"


def backfill(
    settings: Settings, report: Callable[[Progress], None] = lambda _: None, *, dry_run: bool = False
) -> list[str]:
    """Send the history of the settings, wait until it is in the tables, and write the expected metrics.

    Returns what was changed, one sentence; [] where it is there already, or none is wanted.
    HistoryError where Kafka, LagError where the job stands still; to run again is safe. psycopg2.Error as
    it comes.
    """
    target = expected_file(settings)
    if not settings.producer.history_days or target.exists():
        return []
    if dry_run:
        return [f"history of {_plan(settings)[0]}"]
    _make_folder(target.parent)
    with _alone(target.parent):
        return _backfill(settings, report)


def _plan(settings: Settings) -> tuple[Plan, int]:
    """The plan of an earlier run while any of its plays is new enough, else a new one; the horizon in ms."""
    now = datetime.now(UTC)
    since_ms = _horizon_ms(settings, now)
    plan = Plan.read(plan_file(settings))
    return (Plan.of(settings, now) if plan is None or plan.end_ms <= since_ms else plan), since_ms


def _backfill(settings: Settings, report: Callable[[Progress], None]) -> list[str]:
    target = expected_file(settings)
    if target.exists():  # another run was quicker
        return []

    from music_streaming.demo.arrivals import BadData  # noqa: PLC0415  loads numpy
    from music_streaming.demo.expected import ExpectedMetrics  # noqa: PLC0415
    from music_streaming.demo.producer import world_of  # noqa: PLC0415

    plan, since_ms = _plan(settings)
    plan.write(plan_file(settings))
    world = world_of(_producer(settings.producer, plan))
    expected = ExpectedMetrics(world, _hour_starts_ms(settings))
    lag = Lag(settings, report, subject="History")
    lag.expected = world.expected_plays(max(plan.start_ms, since_ms), plan.end_ms)
    _send(
        settings, world.history(plan.start_ms, plan.end_ms, BadData(*plan.bad_data), expected, since_ms), lag
    )
    part = target.with_suffix(".part")
    # While the job takes in the rest.
    expected.write(part)
    lag.wait_until_stored()
    _settle(part, target)
    return [f"history of {plan}: {expected.accepted:,} plays"]


def _hour_starts_ms(settings: Settings) -> int:
    offset = datetime.now(ZoneInfo(settings.display_time_zone)).utcoffset() or timedelta()
    return -offset // timedelta(milliseconds=1) % 3_600_000


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Wait for a run that is under way: one whose `site.yml` was cut off goes on."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _settle(part: Path, path: Path) -> None:
    """Rename a written file atomically: after a power cut it is complete or absent."""
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.replace(path)


def _producer(settings: ProducerSettings, plan: Plan) -> ProducerSettings:
    changed = {name: getattr(plan, name) for name in ("seed", "listeners", "artists", "locales")}
    return settings.model_copy(update=changed)


def _horizon_ms(settings: Settings, now: datetime) -> int:
    """Plays before this may have expired since an earlier run sent them: they would count twice.

    Computed an hour ahead, in case midnight passes meanwhile.
    """
    day = (now + timedelta(hours=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    return int((day - timedelta(days=settings.stream.demo_retention_days)).timestamp() * 1000)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError
    except PermissionError:
        raise HistoryError.of(
            "History",
            found=f"{folder} closed to this user",
            wanted="root",
            remedy="sudo musicctl demo backfill",
        ) from None


def _send(settings: Settings, blocks: Iterator[Block], lag: Lag) -> None:
    """Send as fast as Kafka and the job take it."""
    topic = wanted_topics(settings.kafka, settings.paths.files)[0]
    # Answers with a sentence where there is no broker or topic; the producing client would only wait.
    broker.ends_of_topic(settings.kafka)
    # Each record's future goes with its chunk; to look for cycles after every 700 takes a fifth of the time.
    collected = gc.get_threshold()
    gc.set_threshold(50 * CHUNK)
    try:
        client = broker.producer(settings.kafka, int(topic.config["max.message.bytes"]))
        try:
            partition_of = broker.partitioner(client, topic.name)
            for block in blocks:
                most = _most_behind(settings, topic, block)
                for first in range(0, len(block), CHUNK):
                    lag.wait_for_room(most)
                    chunk = slice(first, first + CHUNK)
                    records = zip(block.keys[chunk], block.values[chunk], strict=True)
                    sent = [
                        client.send(topic.name, key=key, value=value, partition=partition_of(key))
                        for key, value in records
                    ]
                    # Now, not after the client's linger: that, too, would take time away from it.
                    client.flush(timeout=settings.spark.stall_seconds)
                    lag.delivered(sent)
        finally:
            broker.close_producer(client)
    except broker.KafkaError as error:
        raise HistoryError.of(
            "Kafka",
            found=f"{type(error).__name__}: {error}",
            wanted=f"records delivered to {topic.name}",
            remedy="sudo systemctl status music-kafka; then run it again: nothing is counted twice",
        ) from None
    finally:
        gc.set_threshold(*collected)


def _most_behind(settings: Settings, topic: Topic, block: Block) -> int:
    """How many records the job may be behind: less than a batch, and by far less than Kafka would delete."""
    few = int(BATCH_WAITING * settings.spark.max_offsets_per_trigger)
    kept = int(topic.config["retention.bytes"])
    if kept < 0 or not len(block):
        return few
    size = sum(map(len, block.values)) / len(block)
    return min(few, int(topic.partitions * kept / 4 / size))
