"""Growth of the disk: samples of the job, the view over them, and what status says."""

from __future__ import annotations

import contextlib

import pytest

from music_streaming import disk
from music_streaming.board.growth import SELECT_GROWTH, UNKNOWN, Growth, read_growth
from music_streaming.settings import KafkaSettings, PathSettings, Settings
from music_streaming.topic import ensure_topics

GB, MB, KAFKA = 10**9, 10**6, "Kafka's plays"


@pytest.fixture
def growth(database):
    """Note samples as (days ago, part, bytes, bound), and read what the view makes of them."""

    def read(*samples: tuple[float, str, int, int | None]) -> Growth:
        for ago, part, size, most in samples:
            database.rows(
                "INSERT INTO disk_samples SELECT date_trunc('hour', now()) - make_interval(secs => %s * 86400), %s, %s, %s",
                (ago, part, size, most),
                role="music_owner",
            )
        return read_growth(database.rows(SELECT_GROWTH))

    return read


def test_a_day_is_that_of_the_last_seven_and_a_bound_is_kept_free(growth):
    seen = growth(
        (30, "metrics", 10 * MB, None),  # too long ago to say how it is now
        (5, "metrics", 20 * MB, None), (5, KAFKA, GB, 2 * GB), (5, "free", 6 * GB, None),
        (0, "metrics", 70 * MB, None), (0, KAFKA, GB + 100, 2 * GB), (0, "free", 5 * GB, None),
        (0, "own plays", 5 * MB, None),
    )  # fmt: skip
    a_day = {part.name: part.a_day for part in seen.parts}
    assert a_day == {"metrics": 10 * MB, KAFKA: 20, "own plays": MB, "free": -200 * MB}
    # 5 GB free, of which Kafka may take one; 11 MB a day.
    assert seen.full_in_days == (4 * GB + 100) // (11 * MB)
    assert str(seen) == f"full in {seen.full_in_days} days, if all goes on as now"
    assert seen.parts[-1].name == "free"


def test_one_sample_tells_no_growth_and_none_nothing(growth):
    assert str(growth()) == UNKNOWN
    seen = growth((0, "metrics", 1, None), (0, "free", 5 * GB, None))
    assert [part.a_day for part in seen.parts] == [None, None]
    assert str(seen) == UNKNOWN


def test_a_steady_disk_is_never_full_and_an_overbooked_one_today(growth):
    seen = growth(
        (1, "metrics", 9, None), (1, "free", GB, None), (0, "metrics", 9, None), (0, "free", GB, None)
    )
    assert seen.full_in_days is None
    assert str(seen) == "nothing that grows fills it"
    seen = growth(
        (-1, "metrics", MB, None), (-1, KAFKA, 5, 9 * GB), (-1, "free", GB, None)
    )  # fmt: skip
    assert seen.full_in_days == 0


def test_the_job_notes_broker_and_tables(database, broker, topic, files):
    kafka = KafkaSettings(bootstrap=broker.bootstrap, topic=topic)
    ensure_topics(Settings(kafka=kafka, paths=PathSettings(files=files)))
    with contextlib.closing(database.connect("music_writer")) as connection:
        disk.take_sample(connection, broker.bootstrap, topic)
    noted = {
        part: (size, most) for part, size, most in database.rows("SELECT part, bytes, most FROM disk_samples")
    }
    assert noted[KAFKA] == (0, 4 * (536_870_912 + 67_108_864))
    assert noted["free"][0] > MB
    tables = {"demo plays", "own plays", "metrics", "rejects", "accounts of batches", "other tables"}
    assert noted.keys() - tables == {KAFKA, "Kafka's own topics", "free"}
    whole = database.value(
        "SELECT sum(pg_total_relation_size(oid)) FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
    )
    assert sum(noted[part][0] for part in tables) == pytest.approx(float(whole), rel=0.2)
