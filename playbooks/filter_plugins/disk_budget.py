"""What the appliance may take of a board's disk: each part, how far it grows, and which settings decide.

For the preflight, which refuses a smaller disk, and for docs/disk.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

DAY_SECONDS = 86_400
# Measured on a board: bytes of a stored play with its indexes; bytes that a day of demo plays adds to the
# metrics, and each play on top; plays that a modelled listener makes a day.
PLAY_BYTES = 400
METRICS_DAY_BYTES, METRICS_PLAY_BYTES = 12e6, 92
PLAYS_A_LISTENER = 17.9
# Of what plays and metrics take in the tables, compressed.
BACKUP_SHARE = 0.2
# A row of ingest_batches; what is kept of a reject (files/schema/003_ingest.sql); how many rejects and
# days of batches are kept (settings.py).
BATCH_BYTES, REJECT_BYTES, REJECTS, BATCH_DAYS = 250, 8_192, 100_000, 7
# Four people who hear fifty songs a day each, before old windows are folded.
OWN_PLAYS_DAY, OWN_PLAY_BYTES = 200, 1_400


class Part(NamedTuple):
    """What grows; on the disk of the "system" or of music_data_root ("data"); how far; by which settings."""

    what: str
    disk: str
    mb: int
    how: str
    settings: tuple[str, ...]


def plays_a_day(settings: Mapping[str, Any]) -> float:
    """Demo plays a day that these settings give."""
    if not settings["pipeline_producer_enabled"]:
        return 0
    rate = settings["pipeline_producer_rate"]
    if rate == "model":
        return int(settings["pipeline_producer_listeners"]) * PLAYS_A_LISTENER
    return float(rate) * DAY_SECONDS


def backups_bytes(settings: Mapping[str, Any]) -> float:
    """Of all backups that stay on the board, with a year of own plays."""
    if not settings["backup_enabled"] or str(settings["backup_place"]).startswith("label:"):
        return 0
    days, plays = int(settings["pipeline_demo_retention_days"]) + 1, plays_a_day(settings)
    demo = days * (METRICS_DAY_BYTES + plays * (METRICS_PLAY_BYTES + PLAY_BYTES)) if plays else 0
    kept = int(settings["backup_keep_daily"]) + int(settings["backup_keep_weekly"])
    return kept * BACKUP_SHARE * (demo + 365 * OWN_PLAYS_DAY * OWN_PLAY_BYTES)


def disk_budget(settings: Mapping[str, Any], topics: Mapping[str, Any]) -> list[Part]:
    """The parts, in the order of their disks; topics: content of files/topics.yml."""
    return [*_system(settings), *_data(settings, topics)]


def _system(settings: Mapping[str, Any]) -> list[Part]:
    journal = int(settings["board_journal_max_mb"])
    return [
        Part(
            "images of the four services, and their bases",
            "system",
            2_800,
            "one version of each; an update asks for the room of a second one, and keeps it",
            ("image_epoch",),
        ),
        Part(
            "while images are built or loaded",
            "system",
            1_200,
            "gone when each is done: build stages, pip's and apt's downloads",
            (),
        ),
        Part(
            "Debian packages", "system", 300, "their files are not kept once installed", ("docker_packages",)
        ),
        Part("the app", "system", 340, "the two last versions", ()),
        Part(
            "journal",
            "system",
            journal,
            "journald drops the oldest; containers log nowhere else",
            ("board_journal_max_mb",),
        ),
        Part(
            "backups",
            "system",
            _mb(backups_bytes(settings)),
            "the newest of so many days and weeks; none here where a disk is named by its label",
            (
                "backup_enabled",
                "backup_place",
                "backup_keep_daily",
                "backup_keep_weekly",
                "pipeline_producer_rate",
                "pipeline_producer_listeners",
                "pipeline_demo_retention_days",
            ),
        ),
    ]


def _data(settings: Mapping[str, Any], topics: Mapping[str, Any]) -> list[Part]:
    events = topics["stream_events"]
    kept = int(settings["pipeline_topic_retention_bytes"]) or int(events["config"]["retention.bytes"])
    partitions = int(settings["pipeline_topic_partitions"]) or int(events["partitions"])
    kafka = partitions * (kept + int(events["config"]["segment.bytes"]))
    # The running day comes on top.
    days = int(settings["pipeline_demo_retention_days"]) + 1
    plays = plays_a_day(settings)
    metrics = days * (METRICS_DAY_BYTES + plays * METRICS_PLAY_BYTES) if plays else 0
    seconds = max(float(settings["pipeline_trigger_seconds"]), 0.1)
    demo = ("pipeline_producer_rate", "pipeline_producer_listeners", "pipeline_demo_retention_days")
    return [
        Part(
            "Kafka's records of plays",
            "data",
            _mb(kafka),
            "partitions x (bytes kept of each + one segment); 7 days at most",
            ("pipeline_topic_partitions", "pipeline_topic_retention_bytes"),
        ),
        Part(
            "Kafka's own topics and the quorum's log",
            "data",
            100,
            "compacted, 32 MiB of the quorum's log",
            (),
        ),
        Part(
            "demo plays",
            "data",
            _mb(days * plays * PLAY_BYTES),
            f"{PLAY_BYTES} bytes a play, dropped by the day",
            demo,
        ),
        Part("metrics of demo plays", "data", _mb(metrics), "about 12 MB a day and 92 bytes a play", demo),
        Part(
            "your own plays and their metrics, a year",
            "data",
            _mb(365 * OWN_PLAYS_DAY * OWN_PLAY_BYTES),
            f"for ever: a household of four, {OWN_PLAYS_DAY} plays a day",
            (),
        ),
        Part(
            "rejects",
            "data",
            _mb(REJECTS * REJECT_BYTES),
            f"the newest {REJECTS:,}, {REJECT_BYTES // 1024} KiB each at worst, 60 MB as a rule",
            (),
        ),
        Part(
            "accounts of batches",
            "data",
            _mb(BATCH_DAYS * DAY_SECONDS / seconds * BATCH_BYTES),
            f"{BATCH_DAYS} days, one a batch",
            ("pipeline_trigger_seconds",),
        ),
        Part("PostgreSQL's write-ahead log", "data", 1_100, "max_wal_size, 1 GB", ("postgres_settings",)),
        Part(
            "Superset's own tables",
            "data",
            100,
            "dashboards and users; no log of views, the last 1,000 queries of SQL Lab; caches are in memory",
            (),
        ),
        Part(
            "left free",
            "data",
            1_024,
            "what musicctl status wants, and large sorts of a chart pass through",
            (),
        ),
    ]


def _mb(amount: float) -> int:
    return round(amount / 1e6)


def defaults(specs: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Setting -> default; specs: role -> options of its argument_specs.yml."""
    return {name: option.get("default") for options in specs.values() for name, option in options.items()}


def disk_sentence(parts: Sequence[Part], disks: Sequence[str]) -> str:
    """The parts on these disks, largest first, in a sentence."""
    chosen = sorted((part for part in parts if part.disk in disks), key=lambda part: -part.mb)
    return ", ".join(f"{part.what} {part.mb}" for part in chosen if part.mb)


def disk_wanted(
    specs: Mapping[str, Mapping[str, Any]],
    told: Mapping[str, Any],
    topics: Mapping[str, Any],
    disks: Sequence[str],
) -> dict[str, Any]:
    """How many MB these disks have to have free before the first run, and for what.

    told: what the inventory says of the settings.
    """
    parts = disk_budget(defaults(specs) | told, topics)
    return {
        "mb": sum(part.mb for part in parts if part.disk in disks),
        "parts": disk_sentence(parts, disks),
    }


class FilterModule:
    """What Ansible asks for."""

    def filters(self) -> dict[str, object]:
        """Filters of this file by name."""
        return {"disk_wanted": disk_wanted}
