"""The second copy of the backups, elsewhere: rsync, over SSH with a key of the board's own."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Iterable
from pathlib import Path

from music_streaming.backup.archive import BackupError
from music_streaming.backup.place import kept
from music_streaming.settings import Settings

KEY = "backup_ssh"


def copy(settings: Settings, folder: Path, gone: Iterable[str]) -> str:
    """Bring the backups of `folder` to the setting's place. gone: names that a rotation took from it now.

    Nothing else goes there, as an empty disk here would empty the other. Returns the place. BackupError with
    rsync's own words where it fails; the backups on the board are whole then.
    """
    target = settings.backup.copy_to
    key = settings.postgres.secrets_dir / KEY
    known = settings.postgres.secrets_dir.with_name("backup_known_hosts")
    shell = "ssh -o BatchMode=yes -o StrictHostKeyChecking=accept-new -o ConnectTimeout=20"
    shell += f" -o UserKnownHostsFile={shlex.quote(str(known))}"
    if key.exists():
        shell += f" -i {shlex.quote(str(key))}"
    argv = ["rsync", "--times", "--partial-dir=.partial", "--delete-missing-args", "--rsh", shell]
    argv += ["--files-from=-", f"{folder}/", f"{target.rstrip('/')}/"]
    names = [item.path.name for item in kept(folder)] + list(gone)
    try:
        done = subprocess.run(argv, input="\n".join(names), capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise BackupError.of(
            "Second copy", found="no rsync", wanted="it installed", remedy="sudo apt install rsync"
        ) from None
    if done.returncode:
        raise BackupError.of(
            f"Second copy to {target}",
            found=" ".join(done.stderr.split()) or f"exit code {done.returncode}",
            wanted="the backups there; those on the board are whole",
            remedy=f"let that computer know the board's key (sudo cat {key}.pub), or correct backup_copy_to.",
        )
    return target
