"""What an update says before it changes anything."""

from __future__ import annotations

import pytest

from filter_plugins.update_plan import update_plan

BEFORE = {
    "version": "0.1.0",
    "app": "app-old",
    "images": {
        "music-kafka": "music/kafka:1",
        "music-postgres": "music/postgres:1",
        "music-spark-master": "music/spark:1",
        "music-spark-worker": "music/spark:1",
        "music-metrics": "music/spark:1",
        "music-superset": "music/superset:1",
    },
    "migrations": {"001_events.sql": "a", "002_metrics.sql": "b"},
    "free_mb": 20_000,
    "data": "/var/lib/music",
    "data_free_mb": 20_000,
    "one_disk": True,
    "databases_mb": 2_000,
}
SAME = {
    "version": "0.1.0",
    "app": "app-old",
    "images": {name: f"music/{name}:1" for name in ("kafka", "postgres", "spark", "superset")},
    "present": [f"music/{name}:1" for name in ("kafka", "postgres", "spark", "superset")],
    "kept": [],
    "migrations": {"001_events.sql": "a", "002_metrics.sql": "b"},
}


def test_the_same_version_changes_nothing():
    plan = update_plan(BEFORE, SAME)
    assert (plan.changes, plan.refused) == (0, "")
    assert plan.lines == ["it takes about 4 minutes on two x86 cores, a Pi twice as long"]


def test_data_of_an_older_postgresql_are_taken_along():
    plan = update_plan(BEFORE | {"postgres": "15"}, SAME | {"postgres": "17"})
    assert plan.changes == 1
    assert plan.lines[0] == (
        "data of PostgreSQL 15 -> 17, through the backup; those of before stay in "
        "/var/lib/music/postgres/data-15 until you remove them"
    )
    assert update_plan(BEFORE | {"postgres": "17"}, SAME | {"postgres": "17"}).changes == 0


def test_versions_images_migrations_restarts_and_minutes_are_told():
    images = SAME["images"] | {
        "spark": "music/spark:2",
        "kafka": "music/kafka:2",
        "superset": "music/superset:2",
    }
    wanted = SAME | {
        "version": "0.2.0",
        "app": "app-new",
        "images": images,
        "present": [*SAME["present"], "music/superset:2"],
        "kept": ["music/kafka:2"],
        "migrations": SAME["migrations"] | {"003_new.sql": "c"},
    }
    plan = update_plan(BEFORE, wanted)
    assert plan.lines == [
        "program: 0.1.0 (app-old) -> 0.2.0 (app-new)",
        "image of kafka: music/kafka:1 -> music/kafka:2, loaded",
        "image of spark: music/spark:1 -> music/spark:2, built",
        "image of superset: music/superset:1 -> music/superset:2, on the board",
        "migration: 003_new.sql",
        "restarts: kafka, metrics, producer, scrobble, spark-master, spark-worker, superset, and whatever has other settings",
        "it takes about 10 minutes on two x86 cores, a Pi twice as long",
    ]
    assert plan.changes == 5
    # Both versions of an image are on the disk meanwhile.
    assert plan.wanted_mb > update_plan(BEFORE, SAME).wanted_mb + 1_500


@pytest.mark.parametrize(
    ("applied", "words"),
    [
        (
            {"003_of_next_year.sql": "c"},
            "003_of_next_year.sql in its tables, wanted none newer than 002_metrics.sql",
        ),
        ({"002_metrics.sql": "x"}, "another 002_metrics.sql in its tables"),
    ],
)
def test_tables_of_another_line_are_refused(applied, words):
    plan = update_plan(BEFORE | {"migrations": BEFORE["migrations"] | applied}, SAME)
    assert words in plan.refused


def test_a_board_without_tables_of_its_own():
    plan = update_plan(BEFORE | {"migrations": None, "images": {"music-kafka": "music/kafka:1"}}, SAME)
    assert not [line for line in plan.lines if line.startswith("migration")]
    assert plan.refused == ""


def test_a_disk_without_room_for_the_way_back_is_refused():
    assert update_plan(BEFORE, SAME).short == ""
    full = update_plan(BEFORE | {"free_mb": 3_500}, SAME)
    assert full.short.startswith("3500 MB free, wanted 3900 MB, as the old version's images")
    two = BEFORE | {"one_disk": False, "free_mb": 3_500, "data_free_mb": 3_000}
    assert update_plan(two, SAME).short.startswith("3000 MB free in /var/lib/music, wanted 3100 MB")
    assert update_plan(two | {"data_free_mb": 3_200}, SAME).short == ""
