"""What a backup holds beside databases: files that are remembered, settings, secrets under a passphrase."""

from __future__ import annotations

import contextlib
import grp
import io
import os
import pwd
import shutil
import tarfile
from collections.abc import Iterable
from pathlib import Path

import pyrage

from music_streaming.backup.archive import BackupError
from music_streaming.settings import Settings

FILES, SECRETS = "files.tar", "secrets.tar.age"
PASSPHRASE = "backup_passphrase"  # noqa: S105  the name of its file
# Below the data: which history the demo sent and what it counts for, and which dashboards were imported.
REMEMBERED = ("producer", "superset/dashboards.json", "sbom.cdx.json")
# Secrets that make sense on this board alone, or that the owner has anyway.
NOT_KEPT = (PASSPHRASE, "backup_ssh", "backup_ssh.pub")


def files_tar(settings: Settings, configuration: Path) -> bytes:
    """A tar of what is remembered (data/) and of the settings as the roles wrote them (settings/).

    configuration: /etc/music; its secrets are not taken.
    """
    data = [(settings.paths.data / name, f"data/{name}") for name in REMEMBERED]
    secrets = settings.postgres.secrets_dir
    etc = [
        (path, f"settings/{path.relative_to(configuration)}")
        for path in sorted(configuration.glob("*"))
        if path != secrets and path.name in ("music.toml", "superset_config.py", "postgres", "kafka")
    ]
    return _packed([*data, *etc])


def secrets_tar(settings: Settings, passphrase: str) -> bytes:
    """A tar of the secrets, encrypted as `age --passphrase` does."""
    folder = settings.postgres.secrets_dir
    packed = _packed(
        (path, path.name) for path in sorted(folder.iterdir()) if path.is_file() and path.name not in NOT_KEPT
    )
    return bytes(pyrage.passphrase.encrypt(packed, passphrase))


def opened_secrets(encrypted: bytes, passphrase: str) -> bytes:
    """The tar of the secrets; BackupError where the passphrase is another."""
    try:
        return bytes(pyrage.passphrase.decrypt(encrypted, passphrase))
    except pyrage.DecryptError:
        raise BackupError.of(
            "Secrets of the backup",
            found="a passphrase that does not open them",
            wanted="the one that they were encrypted with",
            remedy="give the right one, or restore without them (musicctl restore --without-secrets FILE): "
            "new passwords are made, and those of Superset's users stay.",
        ) from None


def put_back_secrets(settings: Settings, packed: bytes) -> list[str]:
    """Write the secrets of a tar into the board's folder, each with its owner; the names that changed."""
    folder = settings.postgres.secrets_dir
    folder.mkdir(mode=0o711, parents=True, exist_ok=True)
    return _unpacked(packed, "", folder)


def differing_secrets(settings: Settings, packed: bytes) -> list[str]:
    """The names of secrets that are on this board with another content."""
    folder = settings.postgres.secrets_dir
    with tarfile.open(fileobj=io.BytesIO(packed), mode="r") as tar:
        return [
            info.name
            for info in tar
            if (folder / info.name).is_file()
            and (content := tar.extractfile(info))
            and (folder / info.name).read_bytes() != content.read()
        ]


def put_back_files(settings: Settings, packed: bytes) -> list[str]:
    """Write what is remembered below the board's data; the names that changed."""
    return _unpacked(packed, "data/", settings.paths.data)


def _packed(files: Iterable[tuple[Path, str]]) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path, name in files:
            # One that goes at this moment is not wanted either.
            with contextlib.suppress(FileNotFoundError):
                tar.add(path, name)
    return target.getvalue()


def _unpacked(packed: bytes, below: str, folder: Path) -> list[str]:
    changed = []
    with tarfile.open(fileobj=io.BytesIO(packed), mode="r") as tar:
        for info in tar:
            name = info.name.removeprefix(below)
            target = folder / name
            if not info.name.startswith(below) or not target.resolve().is_relative_to(folder.resolve()):
                continue
            if info.isdir():
                if not target.exists():
                    target.mkdir(mode=info.mode)
                    _give(target, info)
            elif content := tar.extractfile(info):
                text = content.read()
                if not target.exists() or target.read_bytes() != text:
                    _write(target, text, info)
                    changed.append(name)
    return changed


def _write(target: Path, content: bytes, info: tarfile.TarInfo) -> None:
    """Beside, forced to the disk, and renamed: a secret is never half there."""
    part = target.with_name(f"{target.name}.part")
    target.parent.mkdir(parents=True, exist_ok=True)
    part.unlink(missing_ok=True)
    with part.open("xb") as file:
        os.fchmod(file.fileno(), info.mode & 0o777)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    _give(part, info)
    part.rename(target)


def _give(path: Path, info: tarfile.TarInfo) -> None:
    """To the user of that name where there is one, who may have another number here."""
    if os.geteuid() != 0:
        return
    uid, gid = info.uid, info.gid
    with contextlib.suppress(KeyError):
        uid = pwd.getpwnam(info.uname).pw_uid
    with contextlib.suppress(KeyError):
        gid = grp.getgrnam(info.gname).gr_gid
    shutil.chown(path, uid, gid)
