"""What settings are read from: the TOML file, and a file for each secret."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from music_streaming.error import MusicError

DEFAULT_PATH = Path("/etc/music/music.toml")


class SettingsError(MusicError):
    """A setting or secret that cannot be used; the text says what was found, wanted, and the remedy."""


def read_secret(folder: Path, name: str) -> SecretStr:
    """The content of the file `folder`/`name` without its final newline."""
    path = folder / name
    try:
        text = path.read_text(encoding="utf-8").removesuffix("\n")
    except FileNotFoundError:
        raise SettingsError(
            f"Secret {name}: found no file {path}, wanted one line with the secret. "
            "Remedy: run the play (site.yml); it makes missing secrets on the board."
        ) from None
    except PermissionError:
        raise SettingsError(
            f"Secret {name}: {path} is closed to this user, wanted a user that may read it. "
            "Remedy: run the command as root: sudo musicctl ..."
        ) from None
    if not text:
        raise SettingsError(
            f"Secret {name}: found an empty file {path}, wanted one line with the secret. "
            "Remedy: delete the file and run the play (site.yml)."
        )
    return SecretStr(text)


def read_toml(file: Path, *, needed: bool) -> dict[str, Any]:
    """The content of a TOML file, {} where there is none and none is needed; raises SettingsError."""
    try:
        with file.open("rb") as stream:
            return tomllib.load(stream)
    except FileNotFoundError:
        if needed:
            raise SettingsError(
                f"Settings: found no file {file}, wanted the TOML file of the appliance. "
                f"Remedy: correct MUSIC_CONFIG, or unset it to use {DEFAULT_PATH}."
            ) from None
        return {}
    except OSError as error:
        raise SettingsError.of(
            "Settings",
            found=f"{file} unreadable ({error.strerror})",
            wanted="a file that this user may read",
            remedy=f"sudo chmod 0644 {file}",
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError.of(
            "Settings",
            found=f"mistakes in {file} ({error})",
            wanted="TOML",
            remedy="run the play (site.yml), which writes this file.",
        ) from None
