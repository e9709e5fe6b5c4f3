"""The validation queries of the data model: is every number that the dashboards show the right one?

All of them see one snapshot, so that they hold in the middle of the stream. The read-only role suffices.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from music_streaming.event import AGE_GROUPS, DEVICE_TYPES, SUBSCRIPTION_TYPES, UNKNOWN
from music_streaming.settings import Settings
from music_streaming.snapshot import Row, Snapshot, snapshot

REGIONS = ("Africa", "Americas", "Asia", "Europe", "Oceania")
COUNTS = ("streams", "completions", "skips", "likes", "listened_ms", "duration_ms")
# Table -> (minutes of its windows, columns of its key besides window_start and source).
METRICS: dict[str, tuple[int, tuple[str, ...]]] = {
    "user_engagement_metrics": (5, ("subscription_type", "age_group")),
    "geographic_metrics": (5, ("country", "region")),
    "device_usage_metrics": (5, ("device_type", "os")),
    "content_performance_metrics": (60, ("song_id", "title", "artist", "genre")),
}
VOCABULARIES: dict[str, dict[str, tuple[str, ...]]] = {
    "user_engagement_metrics": {"subscription_type": SUBSCRIPTION_TYPES, "age_group": AGE_GROUPS},
    "geographic_metrics": {"region": REGIONS},
    "device_usage_metrics": {"device_type": DEVICE_TYPES},
}
# Only the newest plays are counted again one by one: their cost must not grow with the years.
RECOUNTED_MINUTES = 10
# An hll of 2^11 registers is exact while small and within this of the truth, for one window, ever after.
LISTENERS_TOLERANCE = 0.15
# The six counts, from raw plays.
_SUMS = (
    "count(*) AS streams, count(*) FILTER (WHERE completed) AS completions,"
    " count(*) FILTER (WHERE skipped) AS skips, count(*) FILTER (WHERE liked) AS likes,"
    " coalesce(sum(listened_ms), 0)::bigint AS listened_ms,"
    " coalesce(sum(duration_ms), 0)::bigint AS duration_ms"
)


@dataclass(frozen=True)
class Check:
    """One question and its answer. A note is worth knowing and makes nothing wrong."""

    name: str
    ok: bool
    found: str
    wanted: str
    note: bool = False


@dataclass(frozen=True)
class Sample:
    """All checks of one snapshot, taken at `at`."""

    at: datetime
    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """Every check holds."""
        return all(check.ok for check in self.checks)

    def to_dict(self) -> dict[str, Any]:
        """For --json."""
        return {"at": self.at, "ok": self.ok, "checks": [asdict(check) for check in self.checks]}


def validate(settings: Settings) -> Sample:
    """Ask every check once; psycopg2.Error when the database does not answer."""
    with snapshot(settings, "musicctl-validate") as seen:
        at = seen.row("SELECT now()")["now"].astimezone(UTC)
        return Sample(at, tuple(checks(seen, settings)))


def checks(seen: Snapshot, settings: Settings) -> Iterator[Check]:
    """Every check, the equality that the appliance promises first."""
    totals = seen.rows("SELECT * FROM ingest_totals ORDER BY source")
    present = {
        row["source"]: row["count"]
        for row in seen.rows("SELECT source, count(*) FROM stream_events GROUP BY source")
    }
    # One pass over each table serves every question about it.
    summed = {table: seen.rows(_sums(table)) for table in METRICS}
    yield from _exactness(totals, present, summed)
    yield from _agreement(summed)
    yield from _totals(seen, totals)
    yield from _offsets(seen)
    yield from _recount(seen)
    for table, rows in summed.items():
        yield from _sanity(table, rows)
    yield from _vocabularies(seen)
    yield from _times(seen, settings)


def _sums(table: str) -> str:
    minutes, _ = METRICS[table]
    width = f"interval '{minutes} minutes'"
    sums = ", ".join(f"sum({name})::bigint AS {name}" for name in COUNTS)
    negative = " OR ".join(f"{name} < 0" for name in COUNTS)
    low, high = 1 - LISTENERS_TOLERANCE, 1 + LISTENERS_TOLERANCE
    return f"""
    SELECT source, count(*) AS rows, {sums},
           count(*) FILTER (WHERE {negative} OR streams = 0) AS negative,
           count(*) FILTER (WHERE greatest(completions, skips, likes) > streams) AS too_many,
           count(*) FILTER (WHERE window_start <> date_bin({width}, window_start, 'epoch')) AS misaligned,
           count(*) FILTER (WHERE cardinality < {low} OR cardinality > streams * {high} + 1) AS absurd
    FROM (SELECT *, hll_cardinality(listeners) AS cardinality FROM {table}) AS metrics
    GROUP BY source ORDER BY source"""


def _exactness(totals: list[Row], present: dict[str, int], summed: dict[str, list[Row]]) -> Iterator[Check]:
    for total in totals:
        source = total["source"]
        sides = {"rows": present.get(source, 0) + total["expired"]}
        for table, rows in summed.items():
            sides[table] = next((row["streams"] for row in rows if row["source"] == source), 0)
        yield Check(
            f"{source}: accepted = rows ever written = streams of each metric table",
            set(sides.values()) == {total["accepted"]},
            ", ".join(f"{name} {number:,}" for name, number in sides.items())
            if len(set(sides.values())) > 1
            else f"{sides['rows']:,} in each",
            f"{total['accepted']:,} accepted",
        )


def _agreement(summed: dict[str, list[Row]]) -> Iterator[Check]:
    for name in COUNTS[1:]:
        sums = {table: tuple((row["source"], row[name]) for row in rows) for table, rows in summed.items()}
        different = {table: found for table, found in sums.items() if found != sums["geographic_metrics"]}
        yield Check(
            f"{name}: the same sum in the four metric tables",
            not different,
            _sources(sums["geographic_metrics"])
            + "".join(f"; {table} {_sources(found)}" for table, found in different.items()),
            "equal",
        )


def _sources(sums: Iterable[tuple[str, int]]) -> str:
    return ", ".join(f"{source} {number:,}" for source, number in sums) or "none"


def _totals(seen: Snapshot, totals: list[Row]) -> Iterator[Check]:
    state = seen.row(
        "SELECT coalesce(sum(records), 0)::bigint AS records, coalesce(sum(accepted), 0)::bigint AS accepted,"
        " coalesce(sum(duplicates), 0)::bigint AS duplicates, coalesce(sum(rejected), 0)::bigint AS rejected,"
        " coalesce(sum(tombstones), 0)::bigint AS tombstones FROM ingest_state"
    )
    parts = {name: state[name] for name in ("accepted", "duplicates", "rejected", "tombstones")}
    yield Check(
        "every record is accepted, a duplicate, a reject or a tombstone",
        sum(parts.values()) == state["records"],
        " + ".join(f"{number:,} {name}" for name, number in parts.items()),
        f"{state['records']:,} records",
    )
    # What was taken away again had been accepted; the topic's totals are for ever.
    by_source_of = {
        "accepted": sum(total["accepted"] + total["removed"] for total in totals),
        "duplicates": sum(total["duplicates"] for total in totals),
    }
    for name, by_source in by_source_of.items():
        yield Check(
            f"{name}: by source = by topic", by_source == state[name], f"{by_source:,}", f"{state[name]:,}"
        )
    rejects = seen.row(
        "SELECT (SELECT coalesce(sum(rejected), 0) FROM ingest_reject_totals)::bigint AS counted,"
        " (SELECT count(*) FROM rejected_events) AS kept"
    )
    yield Check(
        "rejects: by reason = by topic, no more kept than counted",
        rejects["counted"] == state["rejected"] and rejects["kept"] <= rejects["counted"],
        f"{rejects['counted']:,} counted, {rejects['kept']:,} kept",
        f"{state['rejected']:,} counted",
    )


def _offsets(seen: Snapshot) -> Iterator[Check]:
    # What a topic that was deleted held up to its last read offset was read too.
    row = seen.row(
        "SELECT (SELECT coalesce(sum(next_offset), 0) FROM ingest_offsets)::bigint AS reached,"
        " (SELECT coalesce(sum(from_offset), 0) FROM ingest_gaps WHERE to_offset IS NULL)::bigint AS earlier,"
        " (SELECT coalesce(sum(to_offset - from_offset), 0) FROM ingest_gaps)::bigint AS lost,"
        " (SELECT coalesce(sum(records), 0) FROM ingest_state)::bigint AS records"
    )
    covered = row["reached"] + row["earlier"] - row["lost"]
    yield Check(
        "offsets are continuous: no record was passed over in silence",
        # More records than offsets: a broker that lost its newest records gave their offsets to others.
        row["records"] >= covered,
        f"{row['records']:,} records",
        f"{covered:,} offsets that hold one",
    )
    yield Check(
        "records that Kafka deleted before they were read",
        True,
        f"{row['lost']:,}",
        "0",
        note=row["lost"] > 0,
    )


def _recount(seen: Snapshot) -> Iterator[Check]:
    start = seen.row(
        "SELECT date_bin('5 minutes', now() - make_interval(mins => %(minutes)s), 'epoch') AS start",
        {"minutes": RECOUNTED_MINUTES},
    )
    for table, (minutes, keys) in METRICS.items():
        if minutes > RECOUNTED_MINUTES:
            continue
        key = ", ".join(("source", *keys))
        row = seen.row(
            f"""
            WITH plays AS (
                SELECT date_bin('{minutes} minutes', event_time, 'epoch') AS window_start, {key}, {_SUMS}
                FROM stream_events WHERE event_time >= %(start)s GROUP BY 1, {key}
            ), stored AS (
                SELECT window_start, {key}, {", ".join(COUNTS)} FROM {table} WHERE window_start >= %(start)s
            )
            SELECT (SELECT coalesce(sum(streams), 0) FROM plays)::bigint AS plays,
                   (SELECT count(*) FROM (TABLE plays EXCEPT TABLE stored) AS x)
                   + (SELECT count(*) FROM (TABLE stored EXCEPT TABLE plays) AS y) AS different""",
            start,
        )
        yield Check(
            f"{table}: the newest plays, counted again, give the same rows",
            row["different"] == 0,
            f"{row['different']:,} rows differ ({row['plays']:,} plays)",
            "0 rows differ",
        )


def _sanity(table: str, rows: list[Row]) -> Iterator[Check]:
    bad = {
        "negative or empty": sum(row["negative"] for row in rows),
        "more completions, skips or likes than streams": sum(row["too_many"] for row in rows),
        "window misaligned": sum(row["misaligned"] for row in rows),
        "listeners absurd": sum(row["absurd"] for row in rows),
    }
    found = ", ".join(f"{number:,} {name}" for name, number in bad.items() if number)
    count = sum(row["rows"] for row in rows)
    minutes, _ = METRICS[table]
    yield Check(
        f"{table}: counts, listeners and {minutes}-minute windows make sense",
        not found,
        found or f"{count:,} rows good",
        "all rows good",
    )


def _vocabularies(seen: Snapshot) -> Iterator[Check]:
    for table, columns in VOCABULARIES.items():
        for column, words in columns.items():
            strange = seen.rows(
                f"SELECT DISTINCT {column} AS word FROM {table} WHERE {column} <> ALL (%(words)s) LIMIT 5",
                {"words": [*words, UNKNOWN]},
            )
            yield Check(
                f"{table}: {column} is of the vocabulary",
                not strange,
                ", ".join(repr(row["word"]) for row in strange) or "no other word",
                f"{', '.join(words)} or {UNKNOWN}",
            )


def _times(seen: Snapshot, settings: Settings) -> Iterator[Check]:
    row = seen.row(
        "SELECT (SELECT max(newest_event_time) FROM ingest_totals) AS newest,"
        " (SELECT max(watermark) FROM ingest_state) AS watermark,"
        " now() + make_interval(secs => %(tolerance)s) AS horizon",
        {"tolerance": settings.stream.future_tolerance_seconds},
    )
    newest, watermark = row["newest"], row["watermark"]
    yield Check(
        "no play is dated further ahead than the tolerance",
        newest is None or newest <= row["horizon"],
        f"newest {newest:%F %T}" if newest else "no play",
        f"at most {row['horizon']:%F %T} (UTC)",
    )
    yield Check(
        "the watermark is behind the newest play",
        watermark is None or (newest is not None and watermark <= newest),
        f"{watermark:%F %T}" if watermark else "none",
        f"at most {newest:%F %T} (UTC)" if newest else "none",
    )
