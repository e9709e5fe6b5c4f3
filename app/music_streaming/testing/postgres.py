"""A real PostgreSQL for tests: a throw-away cluster, and databases in it."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psycopg2

from music_streaming.error import MusicError
from music_streaming.schema import migrate
from music_streaming.settings import Role
from music_streaming.testing import FILES, free_port

ROLES = tuple(str(role) for role in Role)


class Postgres:
    """A throw-away cluster without fsync on a free port; role passwords are their names.

    environment: variables that its programs have besides this process's own.
    """

    def __init__(self, folder: Path, binaries: Path, environment: Mapping[str, str] | None = None) -> None:
        self._environment = os.environ | (environment or {})
        self.folder, self.binaries, self.port = folder, binaries, free_port()
        # PostgreSQL refuses to run as root.
        self.user = "postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name

    def run(self, *command: str | Path) -> None:
        """Run a program of PostgreSQL as its user; RuntimeError with what it said."""
        prefix = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        done = subprocess.run(
            [*prefix, *map(str, command)],
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
        )
        if done.returncode:
            log = self.folder / "log"
            written = log.read_text() if log.exists() else ""
            raise RuntimeError(f"{command[0]} failed: {done.stderr}\n{written}")

    def create(self) -> None:
        """Make the cluster and its roles, and start it."""
        encoding = ("--encoding=UTF8", "--locale=C", "--auth=trust", "--no-sync")
        self.run(self.binaries / "initdb", "-D", self.folder / "data", "-U", "postgres", *encoding)
        self.start()
        with contextlib.closing(self.connect("postgres", "postgres")) as connection, connection:
            for role in ROLES:
                connection.cursor().execute(f"CREATE ROLE {role} LOGIN PASSWORD '{role}'")

    def start(self) -> None:
        """Start the server."""
        options = (
            f"-p {self.port} -c unix_socket_directories= -c listen_addresses=127.0.0.1 "
            "-c fsync=off -c synchronous_commit=off "
            "-c full_page_writes=off -c jit=off -c timezone=UTC -c shared_buffers=64MB -c max_wal_size=4GB"
        )
        self.control("-l", self.folder / "log", "-o", options, "start")

    def stop(self, mode: str = "immediate") -> None:
        """Stop the server, by default as a power cut would."""
        self.control("-m", mode, "stop")

    def control(self, *arguments: str | Path) -> None:
        """Run pg_ctl and wait for it."""
        self.run(self.binaries / "pg_ctl", "-D", self.folder / "data", "-w", *arguments)

    def dsn(self, role: str, database: str) -> str:
        """Where `role` finds `database`."""
        return (
            f"host=127.0.0.1 port={self.port} user={role} password={role} dbname={database} connect_timeout=5"
        )

    def connect(self, role: str, database: str) -> Any:
        """A new connection of `role` to `database`."""
        return psycopg2.connect(self.dsn(role, database))


class Database:
    """One empty database in the cluster, owned by music_owner, with extension hll."""

    def __init__(self, postgres: Postgres, name: str) -> None:
        self.postgres, self.name = postgres, name

    def dsn(self, role: str = "music_writer") -> str:
        """Where `role` finds it."""
        return self.postgres.dsn(role, self.name)

    def connect(self, role: str = "music_writer") -> Any:
        """A new connection of `role`."""
        return self.postgres.connect(role, self.name)

    def rows(self, sql: str, parameters: Any = None, role: str = "superset_reader") -> list[tuple[Any, ...]]:
        """What a statement gives, in a transaction of its own."""
        with contextlib.closing(self.connect(role)) as connection, connection, connection.cursor() as cursor:
            cursor.execute(sql, parameters)
            return list(cursor.fetchall()) if cursor.description else []

    def value(self, sql: str, parameters: Any = None, role: str = "superset_reader") -> Any:
        """The first value of the first row."""
        return self.rows(sql, parameters, role)[0][0]


def newest_postgres() -> Path | None:
    """The bin folder of the newest server that has extension hll."""
    controls = Path("/usr/share/postgresql").glob("*/extension/hll.control")
    versions = sorted((int(path.parts[-3]) for path in controls), reverse=True)
    servers = (Path(f"/usr/lib/postgresql/{version}/bin") for version in versions)
    return next((path for path in servers if (path / "initdb").exists()), None)


@contextlib.contextmanager
def throw_away_cluster(
    parent: Path | None = None, environment: Mapping[str, str] | None = None
) -> Iterator[Postgres]:
    """A running cluster in a new folder in `parent` (the system's /tmp), both gone at the end.

    Root's cluster belongs to the account postgres, which cannot enter pytest's folders.
    """
    binaries = newest_postgres()
    if binaries is None:
        raise MusicError.of(
            "PostgreSQL",
            found="no server with the extension hll",
            wanted="one",
            remedy="make setup-test, which installs it",
        )
    folder = Path(tempfile.mkdtemp(prefix="music-postgres-", dir=parent))
    try:
        if os.geteuid() == 0:
            shutil.chown(folder, "postgres")
        cluster = Postgres(folder, binaries, environment)
        try:
            cluster.create()
            yield cluster
        finally:
            if (folder / "data" / "postmaster.pid").exists():
                cluster.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def new_database(postgres: Postgres, template: str = "template0") -> Iterator[Database]:
    """A database of its own, a copy of `template`; dropped at the end."""
    name = f"music_{uuid.uuid4().hex[:12]}"
    with contextlib.closing(postgres.connect("postgres", "postgres")) as admin:
        admin.autocommit = True
        cursor = admin.cursor()
        cursor.execute(f"CREATE DATABASE {name} OWNER music_owner TEMPLATE {template}")
        yield Database(postgres, name)
        cursor.execute(f"DROP DATABASE {name} WITH (FORCE)")


@contextlib.contextmanager
def migrated_database(postgres: Postgres) -> Iterator[Database]:
    """A database of its own with the whole schema, as on a new board; dropped at the end."""
    with new_database(postgres) as database:
        database.rows("CREATE EXTENSION hll", role="postgres")
        with contextlib.closing(database.connect("music_owner")) as connection:
            migrate(connection, FILES / "schema")
        yield database
