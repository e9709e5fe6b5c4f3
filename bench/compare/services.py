"""The broker and the database that all contenders share: the test kit's, with a board's durability."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from music_streaming.schema import migrate
from music_streaming.testing import FILES
from music_streaming.testing.broker import Broker
from music_streaming.testing.postgres import Database, Postgres, new_database, newest_postgres

# Those of roles/postgres/vars/main.yml that bear on speed and writes; fsync and synchronous_commit stay on.
SETTINGS = {
    "shared_buffers": "128MB",
    "work_mem": "16MB",
    "wal_compression": "lz4",
    "checkpoint_timeout": "15min",
    "max_wal_size": "1GB",
    "jit": "off",
    "timezone": "UTC",
}
# Those of roles/kafka/vars/main.yml: what a power cut of the only broker may take is a second.
PROPERTIES = {
    "log.flush.interval.ms": "1000",
    "log.flush.scheduler.interval.ms": "1000",
    "metadata.max.idle.interval.ms": "60000",
    "replica.high.watermark.checkpoint.interval.ms": "60000",
    "log.retention.check.interval.ms": "60000",
}
PEERS = Path(__file__).with_name("peers.sql")


class DurablePostgres(Postgres):
    """A cluster whose commits survive a power cut."""

    @property
    def pid(self) -> int:
        """The process number of the server's first process."""
        return int((self.folder / "data" / "postmaster.pid").read_text().split()[0])

    def start(self) -> None:
        """Start the server."""
        options = " ".join(f"-c {name}={value}" for name, value in SETTINGS.items())
        listen = f"-p {self.port} -c unix_socket_directories= -c listen_addresses=127.0.0.1"
        self.control("-l", self.folder / "log", "-o", f"{listen} {options}", "start")


@dataclass(frozen=True)
class Services:
    """Both at work, in one folder that goes with them."""

    folder: Path
    broker: Broker
    postgres: DurablePostgres

    @contextlib.contextmanager
    def database(self, *, product: bool) -> Iterator[Database]:
        """A new database: with the product's schema, or with the tables of peers.sql."""
        with new_database(self.postgres) as database:
            database.rows("CREATE EXTENSION hll", role="postgres")
            if product:
                with contextlib.closing(database.connect("music_owner")) as connection:
                    migrate(connection, FILES / "schema")
            else:
                database.rows(PEERS.read_text(), role="postgres")
            database.rows("CHECKPOINT", role="postgres")
            yield database


@contextlib.contextmanager
def services() -> Iterator[Services]:
    """Broker and database, in a new folder; both end with the block."""
    binaries = newest_postgres()
    if binaries is None:
        raise RuntimeError("Found no PostgreSQL with extension hll, wanted one. Remedy: make setup-test")
    with contextlib.ExitStack() as left:
        folder = Path(tempfile.mkdtemp(prefix="music-bench-"))
        left.callback(shutil.rmtree, folder, ignore_errors=True)
        # The server of PostgreSQL is another user's where root starts it.
        folder.chmod(0o755)
        (folder / "kafka").mkdir()
        (folder / "postgres").mkdir()
        if os.geteuid() == 0:
            shutil.chown(folder / "postgres", "postgres")
        postgres = DurablePostgres(folder / "postgres", binaries)
        postgres.create()
        left.callback(postgres.stop)
        broker = Broker(folder / "kafka", properties=PROPERTIES)
        broker.start()
        left.callback(broker.kill)
        yield Services(folder, broker, postgres)
