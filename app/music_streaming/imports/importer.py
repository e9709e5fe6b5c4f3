"""An import, from files to rows of the tables.

1. Open the files and recognise them. Nothing has been sent where that fails.
2. Read them into the spool, best export first; each play once.
3. Wait until the job has stored what is in Kafka: the tables know every play that was accepted before.
4. By time, a few thousand plays at once: ask the tables which are known (matching.py), send the others, no
   faster than the job reads.
5. Wait until they are stored, and ask the tables how many are new.

It may be killed at any moment and run again: what is there by then is known.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO
from uuid import UUID
from zoneinfo import ZoneInfo

from music_streaming import broker, event
from music_streaming.country import UNKNOWN_CODE
from music_streaming.error import MusicError
from music_streaming.imports.files import READ_ERRORS, Source, SourceError, sources
from music_streaming.imports.formats import FORMATS, Format
from music_streaming.imports.matching import Times, known, span_ms
from music_streaming.imports.plays import Left, Play, Reading, example, printable
from music_streaming.imports.report import Report
from music_streaming.imports.spool import GAP_MS, Spool, Spooled
from music_streaming.lag import Lag, Progress
from music_streaming.listener import Listener, one
from music_streaming.settings import Role, Settings
from music_streaming.topic import wanted_topics

if TYPE_CHECKING:
    from psycopg2.extensions import connection

CHUNK = 2_000
# Of one moment: an export without gaps is broken, and decided on in parts.
MOST = 20_000
BATCH_WAITING = 0.2
"""Share of the job's largest batch that an import may be ahead of it: live plays wait behind no more."""
STEP = 1_000


class ImportFailedError(MusicError):
    """An import that cannot begin or go on; to run it again is safe."""


@dataclass(frozen=True)
class Reports:
    """Whom to tell how far it is. read: bytes so far, of all. sent: plays."""

    read: Callable[[int, int], None] = lambda _done, _all: None
    sent: Callable[[Progress], None] = lambda _: None


def run(
    settings: Settings,
    path: str,
    *,
    stdin: BinaryIO,
    called: str = "standard input",
    name: str | None = None,
    zone: ZoneInfo | None = None,
    dry_run: bool = False,
    reports: Reports | None = None,
    role: Role = Role.READER,
) -> Report:
    """Import what is at `path` ("-": standard input) as plays of the listener `name`, or of the only one.

    called: of standard input, in the report. role: who asks the tables. SourceError, ClockError,
    ListenerError or ImportFailedError before anything is sent; LagError or ImportFailedError later on.
    psycopg2.Error as it comes.
    """
    reports = reports or Reports()
    with settings.postgres.connection(role, application="musicctl-import") as database:
        database.autocommit = True
        listener = one(database, name)
        _be_alone(database, listener)
        with _folder(settings) as folder, sources(path, stdin, folder, called) as found:
            report = Report(listener.name, others=[source.name for source in found if not source.format])
            exports = _exports(found, called if path == "-" else path)
            spool = Spool(folder / "plays")
            with contextlib.closing(spool):
                reading = Reading.at(datetime.now(UTC), zone, settings.stream.future_tolerance_seconds)
                _read(exports, spool, reading, listener, report=report, told=reports.read)
                sending = _Sending(settings, database, spool, report, reports, role=role)
                sending.all(range(len({source.format for source in exports})), dry_run=dry_run)
    return report


@contextlib.contextmanager
def _folder(settings: Settings) -> Iterator[Path]:
    """Room for the spool: on the disk, as /tmp may be memory."""
    data = settings.paths.data
    with tempfile.TemporaryDirectory(
        prefix="import-", dir=data if os.access(data, os.W_OK) else None
    ) as name:
        yield Path(name)


def _be_alone(database: connection, listener: Listener) -> None:
    """Only one import of a listener at a time, while the connection lasts: two would not see each other."""
    with database.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_lock(hashtext('import'), hashtext(%s))", (listener.name,))
        (alone,) = cursor.fetchone() or (False,)
    if not alone:
        raise ImportFailedError.of(
            "Import",
            found=f"another import of {listener.name} at work",
            wanted="one at a time",
            remedy="wait until it has ended, then run this one again",
        )


def _exports(found: list[Source], path: str) -> list[Source]:
    """The files that are exports, those that know most of a play first."""
    exports = [source for source in found if source.format]
    if not exports:
        raise SourceError.of(
            f"Import of {path}",
            found="no file that is a known export" + (f" among {len(found):,}" if len(found) > 1 else ""),
            wanted=f"one of {', '.join(dict.fromkeys(known.name.partition(' (')[0] for known in FORMATS))}",
            remedy="look into the file: some services send HTML, or a zip that holds another one",
        )
    return sorted(exports, key=lambda source: FORMATS.index(_format(source)))


def _format(source: Source) -> Format:
    if source.format is None:
        raise TypeError(source.name)
    return source.format


def _read(
    exports: list[Source],
    spool: Spool,
    reading: Reading,
    listener: Listener,
    *,
    report: Report,
    told: Callable[[int, int], None],
) -> None:
    total, before = sum(source.size for source in exports), 0
    origins: dict[Format, int] = {}
    for source in exports:
        origin = origins.setdefault(_format(source), len(origins))
        rows = 0
        for row in _rows(source, reading):
            rows += 1
            if rows % STEP == 0:
                told(before + min(source.size, source.file.tell()), total)
            if isinstance(row, Left):
                report.leave(row)
                continue
            play = spooled(row, listener, minutes=_format(source).minutes)
            there = spool.add(origin, play)
            if there is not None:
                report.leave(Left("repeated" if there == origin else "same_play", play.shown))
        report.files.append((source.name, _format(source).name, rows))
        before += source.size
        told(before, total)
    spool.sort()


def _rows(source: Source, reading: Reading) -> Iterator[Play | Left]:
    """The rows; where the file itself cannot be read, a last one that says so."""
    try:
        yield from _format(source).parse(source.file, reading, source.place)
    except READ_ERRORS as error:
        yield Left("broken", printable(f"{source.name}: {type(error).__name__}: {error}"))


def spooled(play: Play, listener: Listener, *, minutes: bool = False) -> Spooled:
    """The play as it is sent: an event of source import."""
    started = datetime.fromtimestamp(play.started_ms / 1000, UTC)
    event_id = event.play_id(listener.name, started, play.artist, play.title)
    sent: dict[str, Any] = {
        "event_id": event_id,
        "event_time": event.format_time(started),
        "source": "import",
        "user_id": listener.name,
        "age_group": listener.age_group,
        "country": play.country or listener.country,
        "subscription_type": listener.subscription_type,
    }
    for name in Play.__slots__:
        value = getattr(play, name)
        if value is not None and name not in ("started_ms", "country"):
            sent[name] = value
    if sent["country"] == UNKNOWN_CODE:
        del sent["country"]
    value = json.dumps(sent, ensure_ascii=False, separators=(",", ":")).encode()
    return Spooled(
        UUID(event_id).bytes,
        play.started_ms,
        event.song_id(play.artist, play.title),
        span_ms(play.duration_ms, minutes=minutes),
        value,
        example(play.artist, play.title, play.started_ms),
    )


class _Sending:
    """What is not known yet goes to Kafka."""

    def __init__(
        self,
        settings: Settings,
        database: connection,
        spool: Spool,
        report: Report,
        reports: Reports,
        *,
        role: Role,
    ) -> None:
        self._settings, self._database, self._spool = settings, database, spool
        self._report = report
        self._role = role
        self._lag = Lag(settings, reports.sent, subject="Import", role=role)
        self._lag.expected = spool.count()
        self._topic = wanted_topics(settings.kafka, settings.paths.files)[0]

    def all(self, origins: range, *, dry_run: bool) -> None:
        """Decide on the plays of each export, and send those that are new."""
        if dry_run:
            for chunk in self._decided(origins):
                self._report.taken += len(chunk)
            return
        # Also answers with a sentence where there is no broker or topic.
        ends = broker.ends_of_topic(self._settings.kafka)
        Lag(self._settings, ends=ends, subject="Import", role=self._role).wait_until_stored()
        begun = self._now()
        key = self._report.listener.encode()
        try:
            client = broker.producer(self._settings.kafka, int(self._topic.config["max.message.bytes"]))
            try:
                for chunk in self._decided(origins):
                    self._lag.wait_for_room(self._most(chunk))
                    sent = [client.send(self._topic.name, key=key, value=play.value) for play in chunk]
                    client.flush(timeout=self._settings.spark.stall_seconds)
                    self._lag.delivered(sent)
                    self._report.taken += len(chunk)
            finally:
                broker.close_producer(client)
        except broker.KafkaError as error:
            raise ImportFailedError.of(
                "Kafka",
                found=f"{type(error).__name__}: {error}",
                wanted=f"plays delivered to {self._topic.name}",
                remedy="sudo systemctl status music-kafka; then run it again: nothing is counted twice",
            ) from None
        self._lag.wait_until_stored()
        self._report.new = self._stored_since(begun)

    def _most(self, chunk: list[Spooled]) -> int:
        """How many plays the job may be behind: by far less than Kafka would delete, too."""
        few = int(BATCH_WAITING * self._settings.spark.max_offsets_per_trigger)
        kept = int(self._topic.config["retention.bytes"])
        if kept < 0:
            return few
        # All plays of one listener lie in one partition.
        size = sum(len(play.value) for play in chunk) / len(chunk)
        return min(few, int(kept / 4 / size))

    def _decided(self, origins: range) -> Iterator[list[Spooled]]:
        """The plays that are to be sent, a chunk at a time; all others are left, with the reason."""
        for origin in origins:
            for chunk in self._spool.chunks(origin, CHUNK, MOST):
                there = self._known(origin, chunk)
                new = []
                for play in chunk:
                    reason = there.get(play.event_id)
                    if reason is None:
                        new.append(play)
                    else:
                        self._report.leave(Left(reason, play.shown))
                if new:
                    yield new
                    self._spool.take(new)

    def _known(self, origin: int, chunk: list[Spooled]) -> dict[bytes, str]:
        """Event id -> reason, of those plays that need not be sent."""
        since, until = chunk[0].started_ms - GAP_MS, chunk[-1].started_ms + GAP_MS
        there = {found[0]: (found[1], found[2]) for found in self._spool.taken(origin, since, until)}
        there |= {found[0]: (found[1], found[2]) for found in self._stored(since, until)}
        left = {play.event_id: "known" for play in chunk if play.event_id in there}
        own = {play.event_id for play in chunk}
        elsewhere: dict[str, list[int]] = {}
        for event_id, (song, started_ms) in there.items():
            if event_id not in own:
                elsewhere.setdefault(song, []).append(started_ms)
        open_plays: dict[str, list[Spooled]] = {}
        for play in chunk:
            if play.event_id not in left and play.song_id in elsewhere:
                open_plays.setdefault(play.song_id, []).append(play)
        times = {song: [Times(p.started_ms, p.span_ms) for p in those] for song, those in open_plays.items()}
        for song, positions in known(times, elsewhere).items():
            left |= {open_plays[song][position].event_id: "same_play" for position in positions}
        return left

    def _stored(self, since_ms: int, until_ms: int) -> Iterator[tuple[bytes, str, int]]:
        with self._database.cursor() as cursor:
            cursor.execute(
                "SELECT event_id, song_id, (extract(epoch FROM event_time) * 1000)::bigint "
                "FROM stream_events WHERE source IN ('scrobble', 'import') AND user_id = %s "
                "AND event_time BETWEEN to_timestamp(%s) AND to_timestamp(%s)",
                (self._report.listener, since_ms / 1000, until_ms / 1000),
            )
            for event_id, song, started_ms in cursor:
                yield UUID(event_id).bytes, song, started_ms

    def _now(self) -> datetime:
        with self._database.cursor() as cursor:
            cursor.execute("SELECT clock_timestamp()")
            (now,) = cursor.fetchone() or (None,)
        if not isinstance(now, datetime):
            raise TypeError(now)
        return now

    def _stored_since(self, begun: datetime) -> int:
        with self._database.cursor() as cursor:
            cursor.execute(
                "SELECT count(*) FROM stream_events "
                "WHERE source = 'import' AND user_id = %s AND ingested_at >= %s",
                (self._report.listener, begun),
            )
            (count,) = cursor.fetchone() or (0,)
        return int(count)
