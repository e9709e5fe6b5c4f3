"""Real services for the tests: a PostgreSQL cluster, a Spark session, a Kafka broker. One of each per run."""

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import uuid
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from pyspark.sql import SparkSession

from broker import Broker, jars
from driver import Driver
from music_streaming.query import SESSION
from music_streaming.schema import migrate
from music_streaming.settings import PathSettings, PostgresSettings, Settings

FILES = Path(__file__).parents[2] / "files"
ROLES = ("music_owner", "music_writer", "superset_reader")
# As on a board: Spark would ask for this machine's name, which not every network knows.
os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Postgres:
    """A throw-away cluster without fsync on a free port; role passwords are their names."""

    def __init__(self, folder: Path, binaries: Path) -> None:
        self.folder, self.binaries, self.port = folder, binaries, free_port()
        # PostgreSQL refuses to run as root.
        self.user = "postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name

    def run(self, *command: str | Path) -> None:
        prefix = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        done = subprocess.run(
            [*prefix, *map(str, command)], capture_output=True, text=True, check=False, cwd="/"
        )
        if done.returncode:
            log = self.folder / "log"
            written = log.read_text() if log.exists() else ""
            raise RuntimeError(f"{command[0]} failed: {done.stderr}\n{written}")

    def create(self) -> None:
        encoding = ("--encoding=UTF8", "--locale=C", "--auth=trust", "--no-sync")
        self.run(self.binaries / "initdb", "-D", self.folder / "data", "-U", "postgres", *encoding)
        self.start()
        with contextlib.closing(self.connect("postgres", "postgres")) as connection, connection:
            for role in ROLES:
                connection.cursor().execute(f"CREATE ROLE {role} LOGIN PASSWORD '{role}'")

    def start(self) -> None:
        options = (
            f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1 "
            "-c fsync=off -c synchronous_commit=off "
            "-c full_page_writes=off -c timezone=UTC -c shared_buffers=64MB -c max_wal_size=4GB"
        )
        self.control("-l", self.folder / "log", "-o", options, "start")

    def stop(self, mode: str = "immediate") -> None:
        self.control("-m", mode, "stop")

    def control(self, *arguments: str | Path) -> None:
        self.run(self.binaries / "pg_ctl", "-D", self.folder / "data", "-w", *arguments)

    def dsn(self, role: str, database: str) -> str:
        return (
            f"host=127.0.0.1 port={self.port} user={role} password={role} dbname={database} connect_timeout=5"
        )

    def connect(self, role: str, database: str) -> Any:
        return psycopg2.connect(self.dsn(role, database))


class Database:
    """One empty database in the cluster, owned by music_owner, with extension hll."""

    def __init__(self, postgres: Postgres, name: str) -> None:
        self.postgres, self.name = postgres, name

    def dsn(self, role: str = "music_writer") -> str:
        return self.postgres.dsn(role, self.name)

    def connect(self, role: str = "music_writer") -> Any:
        return self.postgres.connect(role, self.name)

    def rows(self, sql: str, parameters: Any = None, role: str = "superset_reader") -> list[tuple[Any, ...]]:
        with contextlib.closing(self.connect(role)) as connection, connection, connection.cursor() as cursor:
            cursor.execute(sql, parameters)
            return list(cursor.fetchall()) if cursor.description else []

    def value(self, sql: str, parameters: Any = None) -> Any:
        return self.rows(sql, parameters)[0][0]


def newest_postgres() -> Path | None:
    """The bin folder of the newest server that has extension hll."""
    controls = Path("/usr/share/postgresql").glob("*/extension/hll.control")
    versions = sorted((int(path.parts[-3]) for path in controls), reverse=True)
    servers = (Path(f"/usr/lib/postgresql/{version}/bin") for version in versions)
    return next((path for path in servers if (path / "initdb").exists()), None)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    binaries = newest_postgres()
    if binaries is None:
        pytest.fail("found no PostgreSQL server with extension hll; make test installs it")
    folder = Path(tempfile.mkdtemp(prefix="music-postgres-"))
    if os.geteuid() == 0:
        shutil.chown(folder, "postgres")
    cluster = Postgres(folder, binaries)
    try:
        cluster.create()
        yield cluster
    finally:
        if (folder / "data" / "postmaster.pid").exists():
            cluster.stop()
        shutil.rmtree(folder)


def _create_database(postgres: Postgres, template: str) -> Iterator[Database]:
    name = f"music_{uuid.uuid4().hex[:12]}"
    with contextlib.closing(postgres.connect("postgres", "postgres")) as admin:
        admin.autocommit = True
        cursor = admin.cursor()
        cursor.execute(f"CREATE DATABASE {name} OWNER music_owner TEMPLATE {template}")
        yield Database(postgres, name)
        cursor.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def empty_database(postgres: Postgres) -> Iterator[Database]:
    """A database without any table."""
    for database in _create_database(postgres, "template0"):
        with contextlib.closing(database.connect("postgres")) as connection, connection:
            connection.cursor().execute("CREATE EXTENSION hll")
        yield database


@pytest.fixture(scope="session")
def _template(postgres: Postgres) -> Iterator[Database]:
    for database in _create_database(postgres, "template0"):
        with contextlib.closing(database.connect("postgres")) as connection, connection:
            connection.cursor().execute("CREATE EXTENSION hll")
        with contextlib.closing(database.connect("music_owner")) as connection:
            migrate(connection, FILES / "schema")
        yield database


@pytest.fixture
def database(postgres: Postgres, _template: Database) -> Iterator[Database]:
    """A database with the whole schema, music_owner's as on a board."""
    for database in _create_database(postgres, _template.name):
        with contextlib.closing(database.connect("music_owner")) as connection, connection:
            connection.cursor().execute(
                f"REVOKE ALL ON DATABASE {database.name} FROM PUBLIC;"
                f"GRANT CONNECT, TEMPORARY ON DATABASE {database.name} TO music_writer;"
                f"GRANT CONNECT ON DATABASE {database.name} TO superset_reader"
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
