"""The settings of a board for backups, and a backup of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from music_streaming.backup import taking
from music_streaming.settings import BackupSettings, Settings
from music_streaming.testing.postgres import Database

PASSPHRASE = "correct horse"  # noqa: S105


def take(settings, where=None, **more):
    configuration = settings.postgres.secrets_dir.parent
    more = {"passphrase": None, "configuration": configuration} | more
    return taking.take(settings, str(where or settings.backup.place), **more)


def board_of(
    database: Database,
    metadata: Database,
    secrets: Callable[[Database], Settings],
    folder: Path,
    *,
    files: bool,
) -> Settings:
    """Settings whose data, secrets and backups are folders below `folder`."""
    settings = secrets(database)
    for name in ("data/producer", "data/superset", "etc/secrets", "backups"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    if files:
        (folder / "data/producer/history.json").write_text('{"seed": 42}')
        (folder / "data/superset/dashboards.json").write_text("{}")
        (folder / "etc/music.toml").write_text('display_time_zone = "UTC"\n')
        for name, text in (
            ("superset_secret_key", "key of the first board"),
            ("postgres_music_owner", "pass"),
            ("postgres_superset_reader", "superset_reader"),
        ):
            (folder / "etc/secrets" / name).write_text(text)
            (folder / "etc/secrets" / name).chmod(0o600)
    changed = settings.with_changes(
        postgres={
            "superset_database": metadata.name,
            "admin_host": "127.0.0.1",
            "secrets_dir": folder / "etc/secrets",
        },
        paths={"data": folder / "data"},
    )
    return changed.model_copy(update={"backup": BackupSettings(place=str(folder / "backups"))})
