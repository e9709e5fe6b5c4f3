"""Real services for the tests: a PostgreSQL cluster, a Spark session, a Kafka broker. One of each per run."""

import contextlib
import os
import shutil
import tempfile
import uuid
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from music_streaming.query import SESSION
from music_streaming.settings import PathSettings, PostgresSettings, Settings
from music_streaming.testing import FILES
from music_streaming.testing.broker import Broker, jars
from music_streaming.testing.driver import Driver
from music_streaming.testing.postgres import (
    ROLES,
    Database,
    Postgres,
    migrated_database,
    new_database,
    throw_away_cluster,
)

# As on a board: Spark would ask for this machine's name, which not every network knows.
os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    with throw_away_cluster() as cluster:
        yield cluster


@pytest.fixture
def empty_database(postgres: Postgres) -> Iterator[Database]:
    """A database without any table."""
    with new_database(postgres) as database:
        with contextlib.closing(database.connect("postgres")) as connection, connection:
            connection.cursor().execute("CREATE EXTENSION hll")
        yield database


@pytest.fixture(scope="session")
def _template(postgres: Postgres) -> Iterator[Database]:
    with migrated_database(postgres) as database:
        yield database


@pytest.fixture
def database(postgres: Postgres, _template: Database) -> Iterator[Database]:
    """A database with the whole schema, music_owner's as on a board."""
    with new_database(postgres, _template.name) as database:
        with contextlib.closing(database.connect("music_owner")) as connection, connection:
            connection.cursor().execute(
                f"REVOKE ALL ON DATABASE {database.name} FROM PUBLIC;"
                f"GRANT CONNECT, TEMPORARY ON DATABASE {database.name} TO music_writer;"
                f"GRANT CONNECT ON DATABASE {database.name} TO superset_reader, music_scrobble"
            )
        yield database


@pytest.fixture(scope="session")
def spark() -> Iterator[SparkSession]:
    """One small local session, with the settings that the job has."""
    builder = SparkSession.builder.master("local[1]").appName("tests")
    for key, value in {**SESSION, "spark.driver.memory": "768m", "spark.sql.shuffle.partitions": "1"}.items():
        builder = builder.config(key, value)
    with warnings.catch_warnings():
        # Spark's own use of what Python deprecates is not ours to mend.
        warnings.simplefilter("ignore")
        session = builder.getOrCreate()
    session.sparkContext.setLogLevel("ERROR")
    yield session
    session.stop()


@pytest.fixture(scope="session")
def spark_kafka_jars() -> list[Path]:
    """Spark's connector to Kafka: the jars of the image."""
    return sorted(jars(FILES / "images" / "spark").glob("*.jar"))


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """One broker for the whole run: a test owns its topic, and leaves the broker running."""
    node = Broker(tmp_path_factory.mktemp("kafka"))
    try:
        node.start()
        yield node
    finally:
        node.kill()


@pytest.fixture
def own_broker(tmp_path: Path) -> Iterator[Broker]:
    """A broker of the test's own, not yet started: for those that pull its plug."""
    node = Broker(tmp_path)
    yield node
    node.kill()


@pytest.fixture
def topic() -> str:
    """The name of a topic that no other test uses; not yet made."""
    return f"test_{uuid.uuid4().hex[:12]}"


@pytest.fixture
def files() -> Path:
    """The repository's data contract: topics.yml, schema, dashboards."""
    return FILES


@pytest.fixture
def secrets(tmp_path: Path) -> Callable[[Database], Settings]:
    """Makes the settings of a board whose database is the given one; passwords are the roles' names."""

    def of(database: Database) -> Settings:
        for role in ROLES:
            (tmp_path / f"postgres_{role}").write_text(role)
        postgres = PostgresSettings(port=database.postgres.port, database=database.name, secrets_dir=tmp_path)
        return Settings(postgres=postgres, paths=PathSettings(files=FILES, data=tmp_path))

    return of


@pytest.fixture
def settings(database: Database, secrets: Callable[[Database], Settings]) -> Settings:
    """The settings of a board with an empty database."""
    return secrets(database)


@pytest.fixture
def driver(
    tmp_path: Path, broker: Broker, settings: Settings, topic: str, spark_kafka_jars: list[Path]
) -> Iterator[Driver]:
    """A driver, not yet started, of small batches and in local mode."""
    (tmp_path / "music.toml").write_text(
        f"""
        [kafka]
        bootstrap = "{broker.bootstrap}"
        topic = "{topic}"
        [postgres]
        port = {settings.postgres.port}
        database = "{settings.postgres.database}"
        secrets_dir = "{settings.postgres.secrets_dir}"
        [spark]
        master = "local[2]"
        max_offsets_per_trigger = 800
        trigger_seconds = 0.2
        scratch_dir = "{tmp_path}/scratch"
        """
    )
    made = Driver(
        tmp_path,
        {
            "MUSIC_CONFIG": str(tmp_path / "music.toml"),
            "PYTHONPATH": str(Path(__file__).parents[1]),
            "PYSPARK_SUBMIT_ARGS": f"--jars {','.join(map(str, spark_kafka_jars))} pyspark-shell",
        },
    )
    yield made
    made.close()


@pytest.fixture
def shift() -> Iterator[Path]:
    """A file that says by how much a clock is off, as libfaketime writes it; everybody can read it."""
    folder = Path(tempfile.mkdtemp(prefix="music-clock-"))
    folder.chmod(0o755)
    (folder / "shift").write_text("+0s")
    yield folder / "shift"
    shutil.rmtree(folder)


@pytest.fixture
def faked(shift: Path) -> dict[str, str]:
    """The environment of a process whose clock `shift` sets, also while it runs."""
    (library,) = Path("/usr/lib").glob("*/faketime/libfaketime.so.1")
    return {
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": str(shift),
        "FAKETIME_NO_CACHE": "1",
        # Time that has passed is not the clock.
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        # What mends old versions of the C library makes a JVM spin by this one.
        "FAKETIME_FORCE_MONOTONIC_FIX": "0",
    }
