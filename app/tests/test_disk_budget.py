"""What the disk has to hold follows from the settings."""

from __future__ import annotations

import pytest
import yaml

from docs import PROJECT, ROLES, disk_parts, options
from filter_plugins.disk_budget import disk_wanted, plays_a_day
from music_streaming.settings import StreamSettings

TOPICS = yaml.safe_load((PROJECT / "files/topics.yml").read_text(encoding="utf-8"))
SPECS = {role: options(role) for role in ROLES}
BOTH = ["system", "data"]


def size(what: str, **settings: object) -> int:
    (part,) = (part for part in disk_parts(**settings) if part.what == what)
    return part.mb


def test_defaults_fit_a_small_card():
    wanted = disk_wanted(SPECS, {}, TOPICS, BOTH)
    assert 8_000 < wanted["mb"] < 12_500
    assert wanted["parts"].startswith(
        "images of the four services, and their bases 2800, Kafka's records of plays 2416"
    )


def test_each_named_setting_moves_its_part():
    moved = {
        "backup_enabled": False,
        "backup_keep_daily": 14,
        "backup_keep_weekly": 8,
        "backup_place": "label:BACKUP",
        "board_journal_max_mb": 400,
        "pipeline_demo_retention_days": 30,
        "pipeline_producer_listeners": 9_000,
        "pipeline_producer_rate": "20",
        "pipeline_topic_partitions": 8,
        "pipeline_topic_retention_bytes": 900_000_000,
        "pipeline_trigger_seconds": 5.0,
    }
    before = {part.what: part for part in disk_parts()}
    for name, value in moved.items():
        after = {part.what: part for part in disk_parts(**{name: value})}
        changed = {what for what, part in after.items() if part.mb != before[what].mb}
        assert changed == {what for what, part in before.items() if name in part.settings}, name


def test_demo_plays_are_pace_times_retention():
    assert size("demo plays", pipeline_producer_rate="20") == pytest.approx(
        15 * 20 * 86_400 * 400 / 1e6, rel=0.01
    )
    assert size("demo plays", pipeline_producer_enabled=False) == 0
    assert size("metrics of demo plays", pipeline_producer_enabled=False) == 0
    settings = {"pipeline_producer_enabled": True, "pipeline_producer_rate": "model"}
    assert plays_a_day(settings | {"pipeline_producer_listeners": 2_000}) == pytest.approx(
        0.41 * 86_400, rel=0.02
    )


def test_what_python_keeps_is_what_is_reckoned_with():
    kept = StreamSettings()
    parts = {part.what: part.how for part in disk_parts()}
    assert f"{kept.rejects_kept:,}" in parts["rejects"]
    assert parts["accounts of batches"].startswith(f"{kept.batches_kept_days} days")


def test_two_disks_share_what_one_holds():
    whole, system, data = (
        disk_wanted(SPECS, {}, TOPICS, disks)["mb"] for disks in (BOTH, ["system"], ["data"])
    )
    assert system + data == whole
    assert min(system, data) > 3_000
