"""Brings a backup back: secrets, what is remembered, both databases, through this version's migrations."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from psycopg2 import sql

from music_streaming import schema
from music_streaming.backup import contents, databases, place, taking
from music_streaming.backup.archive import BackupError, Manifest, Reader
from music_streaming.settings import Role, Settings

# Superset encrypts these with its secret key; without that they are nothing. (table, column)
ENCRYPTED = (
    ("dbs", "password"),
    ("dbs", "encrypted_extra"),
    ("dbs", "server_cert"),
    ("ssh_tunnels", "password"),
    ("ssh_tunnels", "private_key"),
    ("ssh_tunnels", "private_key_password"),
)
REPLACE = (
    "To replace what is there: sudo musicctl backup, then "
    "ansible-playbook playbooks/restore.yml -e backup=FILE -e restore_over=true"
)


def restore(
    settings: Settings,
    path: Path,
    *,
    passphrase: str | None,
    over: bool = False,
    without_secrets: bool = False,
    secrets_only: bool = False,
    dry_run: bool = False,
    progress: taking.Progress = lambda *_: None,
) -> list[str]:
    """Restore; returns what was changed, a sentence each, [] where all of it had been restored before.

    over: replace databases that hold something. without_secrets: those of the board stay; what Superset had
    encrypted is forgotten. secrets_only: the databases come later. dry_run: only look whether it can be.
    Whatever is cut off is done by running it again: a database is the old one or the whole new one.
    """
    reader = Reader(path)
    refuse_newer(settings, reader)
    reader.check(taking.Step(progress, "reading the file", path.stat().st_size))
    secrets = _secrets(reader, passphrase, without_secrets=without_secrets)
    if not over:
        _refuse_other_secrets(settings, secrets)
    if dry_run:
        # A board that is bare, or whose server is stopped, has no database to ask.
        if (
            Path(settings.postgres.admin_host, f".s.PGSQL.{settings.postgres.port}").exists()
            and not _restored(settings, reader.manifest)
            and not over
        ):
            _refuse_data(settings)
        return [f"the backup of {reader.manifest.board} from {reader.manifest.at:%F %H:%M} UTC"]
    changed = []
    if secrets is not None:
        changed += [f"secret {name}" for name in contents.put_back_secrets(settings, secrets)]
    if secrets_only:
        return changed
    taking.refuse_elsewhere(settings)
    with place.alone(settings.paths.data):
        changed += _restore_databases(
            settings, reader, over=over, keys=secrets is not None, progress=progress
        )
        changed += contents.put_back_files(settings, reader.read(contents.FILES))
    return changed


def refuse_newer(settings: Settings, reader: Reader) -> None:
    """BackupError where a newer version made the backup: by its own number, or by its schema files."""
    manifest, mine = reader.manifest, taking.app_version()
    theirs = manifest.versions.get("music-streaming", "")
    files = {one.name: one.sha256 for one in schema.migrations(settings.paths.files / "schema")}
    unknown = [name for name in manifest.migrations if name not in files]
    if unknown or (mine and theirs and _numbers(theirs) > _numbers(mine)):
        raise BackupError.of(
            f"Backup {reader.path}",
            found=f"one that music-streaming {theirs or 'of another version'} made"
            + (f", with {', '.join(unknown)}" if unknown else ""),
            wanted=f"one of {mine or 'this version'} or older, with no more than {max(files)}",
            remedy="install that version (git switch, then run again) and restore there.",
        )
    edited = [name for name, sha256 in manifest.migrations.items() if files[name] != sha256]
    if edited:
        raise BackupError.of(
            f"Backup {reader.path}",
            found=f"another {edited[0]} (sha256 {manifest.migrations[edited[0]][:12]})",
            wanted=f"the one of this version ({files[edited[0]][:12]}), as released files are not edited",
            remedy="restore it with the version that made it.",
        )


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".") if part.isdigit()]


def _secrets(reader: Reader, passphrase: str | None, *, without_secrets: bool) -> bytes | None:
    if not reader.manifest.secrets or without_secrets:
        return None
    if not passphrase:
        raise BackupError.of(
            f"Backup {reader.path}",
            found="encrypted secrets and no passphrase",
            wanted="the passphrase",
            remedy="set backup_passphrase (or --passphrase), or leave them out: "
            "musicctl restore --without-secrets FILE",
        )
    return contents.opened_secrets(reader.read(contents.SECRETS), passphrase)


def _restore_databases(
    settings: Settings, reader: Reader, *, over: bool, keys: bool, progress: taking.Progress
) -> list[str]:
    manifest, postgres = reader.manifest, settings.postgres
    # The names of this board, whatever they were on the other.
    names = dict(zip(manifest.databases, (postgres.database, postgres.superset_database), strict=True))
    if not over:
        if _restored(settings, manifest):
            return []
        _refuse_data(settings)
    taking.refuse_too_large(settings, manifest)
    for source, name in names.items():
        step = taking.Step(progress, f"restoring {name}", manifest.members[f"{source}.dump"].size)
        databases.restore_beside(
            postgres,
            name + databases.RESTORING,
            manifest.databases[source],
            partial(taking.counted, reader, source, step),
        )
    progress("migrating", 0, 0)
    beside = [name + databases.RESTORING for name in names.values()]
    migrated = _as_owner(settings, beside[0], lambda c: schema.migrate(c, settings.paths.files / "schema"))
    if not keys and not _has_key(settings, beside[1]):
        _forget_encrypted(settings, beside[1])
    databases.put_in_place(postgres, names.values(), mark(manifest))
    return [*(f"database {name}" for name in names.values()), *(f"migration {name}" for name in migrated)]


def _restored(settings: Settings, manifest: Manifest) -> bool:
    postgres = settings.postgres
    names = (postgres.database, postgres.superset_database)
    return all(databases.mark_of(postgres, name) == mark(manifest) for name in names)


def mark(manifest: Manifest) -> str:
    """What is noted at a database that came from a backup."""
    return f"restored from backup {manifest.id} of {manifest.board}, {manifest.at:%F %T} UTC"


def _as_owner(settings: Settings, name: str, work: Callable[[Any], list[str]]) -> list[str]:
    with settings.postgres.admin_connection(name) as connection:
        with connection, connection.cursor() as cursor:
            cursor.execute(sql.SQL("SET SESSION AUTHORIZATION {}").format(sql.Identifier(Role.OWNER)))
        return work(connection)


def _has_key(settings: Settings, name: str) -> bool:
    """Whether the secret key of this board is the one that encrypted what is in Superset's database `name`.

    The mark is that of the image's prepare.py (files/images/superset).
    """
    try:
        key = (settings.postgres.secrets_dir / "superset_secret_key").read_text(encoding="utf-8").rstrip("\n")
    except FileNotFoundError:
        return False
    mine = hmac.new(key.encode(), b"music_prepared", hashlib.sha256).hexdigest()
    with settings.postgres.admin_connection(name) as connection, connection, connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass('public.music_prepared') IS NOT NULL")
        if cursor.fetchone() != (True,):
            return False
        cursor.execute("SELECT value FROM music_prepared WHERE name = 'secret key'")
        return any(hmac.compare_digest(mark, mine) for (mark,) in cursor.fetchall())


def _forget_encrypted(settings: Settings, name: str) -> None:
    with settings.postgres.admin_connection(name) as connection, connection, connection.cursor() as cursor:
        for table, column in ENCRYPTED:
            cursor.execute(
                "SELECT 1 FROM information_schema.columns "
                "WHERE table_schema = 'public' AND table_name = %s AND column_name = %s",
                (table, column),
            )
            if cursor.fetchone():
                cursor.execute(
                    sql.SQL("UPDATE {0} SET {1} = NULL WHERE {1} IS NOT NULL").format(
                        sql.Identifier(table), sql.Identifier(column)
                    )
                )
        cursor.execute("SELECT to_regclass('public.music_prepared') IS NOT NULL")
        if cursor.fetchone() == (True,):
            # The image's prepare.py takes the new key then (files/images/superset).
            cursor.execute("DELETE FROM music_prepared WHERE name = 'secret key'")


def _refuse_other_secrets(settings: Settings, packed: bytes | None) -> None:
    """A board has passwords of its own as soon as it has data."""
    other = contents.differing_secrets(settings, packed) if packed is not None else []
    if other:
        raise BackupError.of(
            "Restore",
            found=f"other secrets on this board: {', '.join(other)}",
            wanted="none, or those of the backup",
            remedy=f"nothing was changed. {REPLACE}",
        )


def _refuse_data(settings: Settings) -> None:
    postgres = settings.postgres
    counts = {
        name: databases.table_count(postgres, name)
        for name in (postgres.database, postgres.superset_database)
    }
    if any(counts.values()):
        raise BackupError.of(
            "Restore",
            found=", ".join(f"{count} tables in {name}" for name, count in counts.items() if count),
            wanted="a fresh board, with nothing in its databases",
            remedy=f"nothing was changed. {REPLACE}",
        )
