"""The contenders: how each is started, what it needs, and how its result is checked by SQL."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from compare.plays import FIELDS, PARTITIONS
from compare.services import Services
from compare.setup import CACHE, PROGRAMS, fetch_jars, make_venv
from music_streaming.testing import FILES
from music_streaming.testing.broker import jars
from music_streaming.testing.postgres import ROLES, Database

JDBC = "org.postgresql:postgresql:42.7.14"
APP = FILES.parent / "app"
# Heap of the product's driver and of its executor, as roles/pipeline and roles/spark have them.
HEAP = "224m"
TOPIC = "plays"
BATCH = 50_000


@dataclass(frozen=True)
class Place:
    """What one run has for itself: a folder, a database, and the services that all share."""

    services: Services
    database: Database
    folder: Path
    topic: str
    plays: int


@dataclass(frozen=True)
class Contender:
    """name: of the option. what: in words. stores: plays and metrics that are to be checked.

    command, environment: of the program, for a place. prepare: makes what it needs; SetUpError where that
    fails.
    """

    name: str
    what: str
    command: Callable[[], list[str]]
    environment: Callable[[Place], dict[str, str]]
    product: bool = False
    stores: tuple[str, ...] = ()
    prepare: Callable[[], object] = lambda: None


def _spark_arguments(*more: str) -> dict[str, str]:
    connector = ",".join(map(str, sorted(jars(FILES / "images" / "spark").glob("*.jar"))))
    arguments = " ".join(("--jars", connector, *more, "pyspark-shell"))
    return {"PYSPARK_SUBMIT_ARGS": arguments, "SPARK_LOCAL_IP": "127.0.0.1", "PYTHONPATH": str(APP)}


def _ours(place: Place) -> dict[str, str]:
    for role in ROLES:
        (place.folder / f"postgres_{role}").write_text(role)
    (place.folder / "music.toml").touch()
    settings = {
        "KAFKA__BOOTSTRAP": place.services.broker.bootstrap,
        "KAFKA__TOPIC": place.topic,
        "POSTGRES__PORT": str(place.services.postgres.port),
        "POSTGRES__DATABASE": place.database.name,
        "POSTGRES__SECRETS_DIR": str(place.folder),
        "SPARK__DRIVER_MEMORY": HEAP,
        "SPARK__EXECUTOR_MEMORY": HEAP,
        "SPARK__MAX_OFFSETS_PER_TRIGGER": str(BATCH),
        "SPARK__SCRATCH_DIR": str(place.folder / "scratch"),
        "STREAM__CLOCK_TRUSTED": "true",
        "PATHS__FILES": str(FILES),
        "PATHS__DATA": str(place.folder),
    }
    named = {f"MUSIC_{name}": value for name, value in settings.items()}
    return named | _spark_arguments() | {"MUSIC_CONFIG": str(place.folder / "music.toml")}


def _peer(place: Place) -> dict[str, str]:
    database, port = place.database, place.services.postgres.port
    return {
        "BENCH_BOOTSTRAP": place.services.broker.bootstrap,
        "BENCH_TOPIC": place.topic,
        "BENCH_PARTITIONS": str(PARTITIONS),
        "BENCH_FIELDS": ",".join(FIELDS),
        "BENCH_BATCH": str(BATCH),
        "BENCH_PLAYS": str(place.plays),
        "BENCH_FOLDER": str(place.folder),
        "BENCH_DSN": database.dsn("postgres"),
        "BENCH_JDBC": f"jdbc:postgresql://127.0.0.1:{port}/{database.name}",
    }


def _python(program: str) -> Callable[[], list[str]]:
    return lambda: [sys.executable, str(PROGRAMS / program)]


def _consumer(program: str) -> Callable[[], list[str]]:
    return lambda: [str(CACHE / "venv" / "bin" / "python"), str(PROGRAMS / program)]


def _java(program: str, source: str, *arguments: str) -> Callable[[], list[str]]:
    """A program from its source; the same heap as the Spark peers."""
    opened = (f"--add-opens=java.base/java.{name}=ALL-UNNAMED" for name in _OPENED)
    command = ["java", "-Xmx1g", "-XX:+UseSerialGC", "-Duser.timezone=UTC", *opened, "-cp"]
    return lambda: [*command, f"{CACHE / program}/*", str(PROGRAMS / program / source), *arguments]


# What Flink looks into.
_OPENED = (
    *("lang", "util", "nio", "net", "io", "time", "text"),
    *("util.concurrent", "util.concurrent.atomic", "lang.reflect"),
)
ONE = ("SELECT kind::text, sum(plays) FROM metrics GROUP BY 1",)
EACH = tuple(
    f"SELECT '{name}', sum(plays) FROM {name} WHERE window_start < '2026-11-02'"  # noqa: S608
    for name in ("m_engagement", "m_content", "m_geography", "m_device")
)
PRODUCT = tuple(
    f"SELECT '{name}', sum(streams) FROM {name}"  # noqa: S608
    for name in (
        "user_engagement_metrics",
        "content_performance_metrics",
        "geographic_metrics",
        "device_usage_metrics",
    )
)
CONTENDERS = (
    Contender(
        "ours",
        "the product's job, Spark's master, worker, driver and executor",
        _python("ours.py"),
        _ours,
        product=True,
        stores=PRODUCT,
    ),
    Contender(
        "tutorial",
        "Spark, a query for each table, 10 minutes of watermark, append by JDBC; tuned",
        _python("tutorial.py"),
        lambda place: _peer(place) | _spark_arguments("--packages", JDBC),
        stores=EACH,
    ),
    Contender(
        "dicts",
        "a hand-written Python consumer: dictionaries, one thread",
        _consumer("dicts.py"),
        _peer,
        stores=ONE,
        prepare=make_venv,
    ),
    Contender(
        "arrow",
        "a hand-written Python consumer: columns of Arrow, writing in a thread",
        _consumer("arrow.py"),
        _peer,
        stores=ONE,
        prepare=make_venv,
    ),
    Contender(
        "spark-parse",
        "limit: Spark reads and parses, nothing is judged or written",
        _python("spark_parse.py"),
        lambda place: _peer(place) | _spark_arguments(),
    ),
    Contender(
        "postgres-write",
        "limit: the product's transaction alone, from plays that are ready in memory",
        _python("postgres_write.py"),
        lambda place: _peer(place) | {"PYTHONPATH": f"{APP}:{PROGRAMS.parents[1]}"},
        product=True,
        stores=PRODUCT,
    ),
    Contender(
        "flink-windows",
        "Flink SQL in one JVM of two slots; a window is written once it is over",
        _java("flink", "Flink.java", "windows"),
        _peer,
        stores=EACH,
        prepare=lambda: fetch_jars("flink"),
    ),
    Contender(
        "flink-continuous",
        "the same, each change written; mini-batches of 2 s",
        _java("flink", "Flink.java", "continuous"),
        _peer,
        stores=EACH,
        prepare=lambda: fetch_jars("flink"),
    ),
    Contender(
        "kafka-streams",
        "Kafka Streams' DSL, two threads; listeners are not counted",
        _java("kafka_streams", "Streams.java"),
        _peer,
        stores=EACH,
        prepare=lambda: fetch_jars("kafka_streams"),
    ),
)
BY_NAME = {contender.name: contender for contender in CONTENDERS}


def check(contender: Contender, database: Database) -> dict[str, int]:
    """Plays that the result holds: the raw table's, and what each table of metrics adds up to."""
    if not contender.stores:
        return {}
    raw = (
        "SELECT count(DISTINCT event_id) FROM stream_events"
        if contender.product
        else "SELECT count(DISTINCT event_id) FROM raw WHERE event_id <> 'closing'"
    )
    rows = [row for statement in contender.stores for row in database.rows(statement, role="postgres")]
    metrics = {str(name): int(plays or 0) for name, plays in rows}
    return {"raw": int(database.value(raw, role="postgres"))} | metrics
