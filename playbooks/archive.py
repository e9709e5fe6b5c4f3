"""Write the archive of images for the next board: `make images` calls it with what it has gathered.

usage: archive.py TARGET <DESCRIPTION, where DESCRIPTION is a JSON object:
version, platform (amd64, arm64), epoch (of the images' packages), packages (names), lock (SHA-256 of
app/requirements.lock), images (name -> tag), members (name in the archive -> file here)
"""

from __future__ import annotations

import hashlib
import io
import json
import sys
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FORMAT, MANIFEST = 1, "manifest.json"


def sha256(path: Path) -> str:
    """Of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write(target: Path, description: Mapping[str, Any]) -> int:
    """Write the archive with its manifest in front, under its name only when it is whole; its size in bytes.

    Not compressed: its members are.
    """
    members = {name: Path(path) for name, path in description["members"].items()}
    sums = {name: {"size": path.stat().st_size, "sha256": sha256(path)} for name, path in members.items()}
    manifest = json.dumps({"format": FORMAT, **description, "members": sums}, indent=2).encode()
    partial = target.with_name(f"{target.name}.partial")
    try:
        with tarfile.open(partial, "w", format=tarfile.GNU_FORMAT) as tar:
            info = tarfile.TarInfo(MANIFEST)
            info.size, info.mode = len(manifest), 0o644
            tar.addfile(info, io.BytesIO(manifest))
            for name, path in members.items():
                tar.add(path, name, recursive=False)
        partial.rename(target)
    finally:
        partial.unlink(missing_ok=True)
    return target.stat().st_size


def main() -> None:
    target = Path(sys.argv[1])
    size = write(target, json.load(sys.stdin))
    print(f"{target}: {size / 1e6:,.0f} MB")


if __name__ == "__main__":
    main()
