"""PostgreSQL's part of a backup: both databases at one moment, and the way back through a database beside.

pg_dump reads the snapshot in which the rows are summed, and the moment of the second database follows that of
the first at once. A dump comes back under another name, is summed again, and takes the place of the old
database by a change of names: what is cut off leaves the old one.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import IO, Any

from psycopg2 import sql

from music_streaming.backup.archive import CHUNK, BackupError, Database, Sum
from music_streaming.settings import PostgresSettings

LOCK_SECONDS = 60
RESTORING, BEFORE, VERIFYING = "_restoring", "_before", "_verifying"

_TABLES = """
SELECT n.nspname, c.relname, pg_total_relation_size(c.oid)::bigint
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema'
ORDER BY 1, 2
"""
_GRANTS = """
SELECT r.rolname, lower(a.privilege_type)
FROM pg_database d, aclexplode(d.datacl) a JOIN pg_roles r ON r.oid = a.grantee
WHERE d.datname = current_database() AND a.grantee <> d.datdba ORDER BY 1, 2
"""
_PRIVILEGES = {"connect": "CONNECT", "temporary": "TEMPORARY", "create": "CREATE"}


@dataclass
class Snapshot:
    """A database at one moment, held open; sizes: table -> bytes on the disk, about."""

    name: str
    connection: Any
    exported: str
    sizes: dict[str, int]

    def rows(self, query: str, parameters: Any = None) -> list[tuple[Any, ...]]:
        """What a query gives of that moment."""
        with self.connection.cursor() as cursor:
            cursor.execute(query, parameters)
            found: list[tuple[Any, ...]] = cursor.fetchall()
            return found


@contextlib.contextmanager
def snapshot(postgres: PostgresSettings, name: str) -> Iterator[Snapshot]:
    """Hold a moment of a database. Its tables are locked against being dropped, before that moment."""
    with postgres.admin_connection(name) as connection:
        with connection, connection.cursor() as cursor:
            cursor.execute(_TABLES)
            tables = cursor.fetchall()
        connection.set_session(isolation_level="REPEATABLE READ", readonly=True)
        with connection.cursor() as cursor:
            locked = sql.SQL(", ").join(sql.Identifier(schema, table) for schema, table, _ in tables)
            if tables:
                # A setting and a lock take no snapshot yet.
                cursor.execute(f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'")
                cursor.execute(sql.SQL("LOCK TABLE {} IN ACCESS SHARE MODE").format(locked))
            cursor.execute("SET LOCAL idle_in_transaction_session_timeout = 0; SELECT pg_export_snapshot()")
            ((exported,),) = cursor.fetchall()
        yield Snapshot(name, connection, exported, {f"{s}.{t}": size for s, t, size in tables})
        connection.rollback()


def described(taken: Snapshot, progress: Callable[[int], Any] = lambda _: None) -> Database:
    """Its owner, size, grants, and the sum of each table; progress: bytes of the tables summed just now."""
    ((owner, size),) = taken.rows(
        "SELECT pg_get_userbyid(datdba), pg_database_size(oid) FROM pg_database "
        "WHERE datname = current_database()"
    )
    grants = [(str(role), str(privilege)) for role, privilege in taken.rows(_GRANTS)]
    return Database(owner, size, sums(taken.connection, progress), grants)


def sums(connection: Any, progress: Callable[[int], Any] = lambda _: None) -> dict[str, Sum]:
    """Table -> its sum, for every table that holds rows itself."""
    found = {}
    with connection.cursor() as cursor:
        cursor.execute(_TABLES)
        for schema, table, size in cursor.fetchall():
            cursor.execute(
                sql.SQL(
                    "SELECT count(*), coalesce(sum(hashtextextended(t::text, 0)::numeric), 0)::text "
                    "FROM {} AS t"
                ).format(sql.Identifier(schema, table))
            )
            rows, hashes = cursor.fetchone()
            found[f"{schema}.{table}"] = Sum(rows, hashes)
            progress(size)
    return found


def dump(
    postgres: PostgresSettings, taken: Snapshot, progress: Callable[[int], Any] = lambda _: None
) -> Iterator[bytes]:
    """pg_dump's custom format of that moment; progress: bytes of the tables dumped just now."""
    argv = ["pg_dump", "--format=custom", f"--snapshot={taken.exported}", "--no-password", "--verbose"]
    argv += [f"--lock-wait-timeout={LOCK_SECONDS}s", f"--compress={_compression()}"]
    begun: list[str] = []

    def heard(line: str) -> None:
        # pg_dump: dumping contents of table "public.songs"
        if "dumping contents of table" in line:
            table = line.rpartition("table ")[2].strip().replace('"', "")
            progress(taken.sizes.get(begun[-1], 0) if begun else 0)
            begun.append(table)

    with _program(argv, postgres.admin_environment(taken.name), heard, stdout=subprocess.PIPE) as process:
        output = _pipe(process.stdout)
        while chunk := output.read(CHUNK):
            yield chunk
    progress(taken.sizes.get(begun[-1], 0) if begun else 0)


def _compression() -> str:
    # Debian's pg_dump has zstd from 16 on: a third of gzip's time.
    said = subprocess.run(["pg_dump", "--version"], capture_output=True, text=True, check=True).stdout
    return "zstd:3" if int(said.split()[2].split(".")[0]) >= 16 else "4"


def server_version(postgres: PostgresSettings) -> str:
    """Such as 17.6."""
    with postgres.admin_connection() as connection, connection.cursor() as cursor:
        cursor.execute("SHOW server_version")
        ((version,),) = cursor.fetchall()
        return str(version).split()[0]


def restore_beside(
    postgres: PostgresSettings, name: str, database: Database, chunks: Callable[[], Iterable[bytes]]
) -> None:
    """Make the database `name` from a dump, and its sums equal to what `database` says; BackupError if not.

    chunks: the dump; called twice. What an earlier run has left of `name` is removed first.
    """
    drop(postgres, name)
    with _administrator(postgres) as cursor:
        cursor.execute(
            sql.SQL("CREATE DATABASE {} OWNER {} ENCODING 'UTF8' TEMPLATE template0").format(
                sql.Identifier(name), sql.Identifier(database.owner)
            )
        )
        cursor.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(sql.Identifier(name)))
        for role, privilege in database.grants:
            cursor.execute(
                sql.SQL("GRANT {} ON DATABASE {} TO {}").format(
                    sql.SQL(_PRIVILEGES[privilege]), sql.Identifier(name), sql.Identifier(role)
                )
            )
    environment = postgres.admin_environment(name)
    # Nobody waits for a commit of it: the change of names, which does wait, comes after all of them.
    environment["PGOPTIONS"] += " -c synchronous_commit=off -c maintenance_work_mem=128MB"
    argv = ["pg_restore", "--exit-on-error", "--no-password", f"--dbname={name}"]
    with _program(argv, environment, stdin=subprocess.PIPE) as process:
        target = _pipe(process.stdin)
        # pg_restore says itself why it reads no further.
        with contextlib.suppress(BrokenPipeError):
            for chunk in chunks():
                target.write(chunk)
            target.close()
    with postgres.admin_connection(name) as connection:
        compare(name, database, sums(connection))
        connection.commit()
        connection.autocommit = True
        connection.cursor().execute("ANALYZE")


def compare(name: str, wanted: Database, found: dict[str, Sum]) -> None:
    """BackupError that names the first table that differs."""
    for table in sorted(set(wanted.tables) | set(found)):
        if wanted.tables.get(table) != found.get(table):
            raise BackupError.of(
                f"Database {name}, table {table}",
                found=f"{found.get(table, 'no such table')}",
                wanted=f"{wanted.tables.get(table, 'no such table')}, as when it was backed up",
                remedy="use another backup: sudo musicctl backup --list",
            )


def put_in_place(postgres: PostgresSettings, names: Iterable[str], mark: str) -> None:
    """Give the databases NAME_restoring their names, all or none; the old ones go. mark: noted as a comment.

    Sessions that are still there are ended.
    """
    names = list(names)
    for name in names:
        drop(postgres, name + BEFORE)
    with postgres.admin_connection() as connection, connection, connection.cursor() as cursor:
        for name in names:
            cursor.execute(
                "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity "
                "WHERE datname IN (%s, %s) AND pid <> pg_backend_pid()",
                (name, name + RESTORING),
            )
            cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,))
            if cursor.fetchone():
                cursor.execute(_rename(name, name + BEFORE))
            cursor.execute(_rename(name + RESTORING, name))
            cursor.execute(
                sql.SQL("COMMENT ON DATABASE {} IS {}").format(sql.Identifier(name), sql.Literal(mark))
            )
    for name in names:
        drop(postgres, name + BEFORE)


def _rename(old: str, new: str) -> sql.Composed:
    return sql.SQL("ALTER DATABASE {} RENAME TO {}").format(sql.Identifier(old), sql.Identifier(new))


def drop(postgres: PostgresSettings, name: str) -> None:
    """Remove a database, and whoever is connected to it."""
    with _administrator(postgres) as cursor:
        cursor.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


def mark_of(postgres: PostgresSettings, name: str) -> str | None:
    """What `put_in_place` noted; None where the database was never restored, or is not there."""
    with postgres.admin_connection() as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = %s", (name,)
        )
        row = cursor.fetchone()
        return row[0] if row else None


def table_count(postgres: PostgresSettings, name: str) -> int:
    """How many tables a database has; 0 where it is not there."""
    with postgres.admin_connection() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,))
        if cursor.fetchone() is None:
            return 0
    with postgres.admin_connection(name) as connection, connection.cursor() as cursor:
        cursor.execute(_TABLES)
        return len(cursor.fetchall())


@contextlib.contextmanager
def _administrator(postgres: PostgresSettings) -> Iterator[Any]:
    with postgres.admin_connection() as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("SET client_min_messages = warning")
            yield cursor


@contextlib.contextmanager
def _program(
    argv: list[str],
    environment: dict[str, str],
    heard: Callable[[str], Any] = lambda _: None,
    stdin: int = subprocess.DEVNULL,
    stdout: int = subprocess.DEVNULL,
) -> Iterator[subprocess.Popen[bytes]]:
    """A program of PostgreSQL's client; BackupError with its own words where it fails."""
    said: list[str] = []

    def listen(stream: IO[bytes]) -> None:
        for line in stream:
            text = line.decode(errors="replace").rstrip()
            heard(text)
            if "error" in text.lower() or "detail" in text.lower() or "hint" in text.lower():
                said.append(text)

    try:
        process = subprocess.Popen(
            argv, env=os.environ | environment, stdin=stdin, stdout=stdout, stderr=subprocess.PIPE
        )
    except FileNotFoundError:
        raise BackupError.of(
            argv[0],
            found="no such program",
            wanted="the client of PostgreSQL",
            remedy="sudo apt install postgresql-client",
        ) from None
    listener = threading.Thread(target=listen, args=(_pipe(process.stderr),), daemon=True)
    listener.start()
    try:
        yield process
        code = process.wait()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        listener.join()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
    if code:
        raise BackupError.of(
            argv[0],
            found=repr(" ".join(said[:3]) or f"exit code {code}"),
            wanted="exit code 0",
            remedy="journalctl -u music-postgres -n 50; nothing was changed.",
        )


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    if stream is None:
        raise TypeError("no pipe was asked for")
    return stream
