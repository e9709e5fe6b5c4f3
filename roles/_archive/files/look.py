#!/usr/bin/env python3
"""usage: look.py PLACE.

Which archives of images PLACE has: the path of one, or label:NAME (with /FOLDER), a disk by the label of its
file system. Such a disk is mounted to be read, where it is not mounted yet. Prints one JSON object:
found    list of {path, manifest}, newest first
labels   of all disks that have one, for label:NAME
error    why nothing could be looked at
"""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

LABEL, MOUNTS = "label:", Path("/run/music-archive")
MANIFEST = "manifest.json"


def said(*argv: str) -> str:
    return subprocess.run(argv, capture_output=True, text=True, check=False).stdout.strip()


def manifest(path: Path) -> dict[str, Any] | None:
    """What the first member of an archive says; None where it is none."""
    try:
        with tarfile.open(path, "r:") as tar:
            first = tar.next()
            content = tar.extractfile(first) if first and first.name == MANIFEST else None
            found: dict[str, Any] = json.loads(content.read()) if content else {}
    except (OSError, tarfile.TarError, ValueError):
        return None
    return found if found.get("format") == 1 else None


def disk(label: str) -> Path:
    """Where the disk is mounted; OSError where it is not there or cannot be read."""
    device = said("blkid", "--label", label)
    if not device:
        raise OSError(f"no disk with the label {label}")
    if at := said("findmnt", "--noheadings", "--first-only", "--output", "TARGET", "--source", device):
        return Path(at)
    folder = MOUNTS / label
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        ["mount", "-o", "ro,nosuid,nodev,noexec", device, str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise OSError(" ".join(done.stderr.split()))
    return folder


def main() -> None:
    place = sys.argv[1]
    answer: dict[str, Any] = {"found": [], "labels": [], "error": ""}
    paths = [Path(place)]
    if place.startswith(LABEL):
        label, _, below = place.removeprefix(LABEL).partition("/")
        names = said("blkid", "--match-tag", "LABEL", "--output", "value").splitlines()
        answer["labels"] = sorted(set(names))
        try:
            paths = list((disk(label) / below).glob("music-images-*.tar"))
        except OSError as error:
            answer["error"], paths = str(error), []
    elif not paths[0].is_file():
        answer["error"], paths = f"no file {place}", []
    for path in sorted(paths, key=lambda path: path.stat().st_mtime, reverse=True):
        if content := manifest(path):
            answer["found"].append({"path": str(path), "manifest": content})
        else:
            answer["error"] = f"{path}, which is cut short or no archive of images"
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
