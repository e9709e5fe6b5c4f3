#!/usr/bin/env python3
"""usage: packages.py TARGET PACKAGE...

Fetch Debian packages with all that they depend on from this board's own sources, and pack them as a small
archive of apt into TARGET (a tar of packages/). Nothing is taken for installed: what one card has, the next
one may lack.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path


def apt(folder: Path, *arguments: str) -> None:
    options = {
        "Dir::State": folder / "state",
        "Dir::State::status": folder / "status",
        "Dir::Cache": folder / "cache",
        "APT::Install-Recommends": "false",
        "APT::Get::Assume-Yes": "true",
        "APT::Keep-Downloaded-Packages": "true",
        "APT::Sandbox::User": "root",
        "Debug::NoLocking": "true",
    }
    given = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
    subprocess.run(["apt-get", "-qq", *given, *arguments], check=True, stdout=subprocess.DEVNULL)


def paragraph(package: Path) -> str:
    """What an index of apt says of a package."""
    control = subprocess.run(
        ["dpkg-deb", "--field", str(package)], check=True, capture_output=True, text=True
    ).stdout.strip()
    digest = hashlib.sha256(package.read_bytes()).hexdigest()
    return f"{control}\nFilename: ./{package.name}\nSize: {package.stat().st_size}\nSHA256: {digest}\n"


def main() -> None:
    target, *names = sys.argv[1:]
    os.environ["LC_ALL"] = "C.UTF-8"
    with tempfile.TemporaryDirectory(prefix="music-packages-", dir="/var/tmp") as made:
        folder = Path(made)
        for below in ("state/lists/partial", "cache/archives/partial"):
            (folder / below).mkdir(parents=True)
        (folder / "status").touch()
        apt(folder, "update")
        apt(folder, "--download-only", "install", *names)
        # Its name in the index is a path; a colon of a version is no part of that.
        packages = sorted((folder / "cache/archives").glob("*.deb"))
        for package in packages:
            package.rename(package.with_name(package.name.replace("%3a", ".")))
        packages = sorted((folder / "cache/archives").glob("*.deb"))
        index = folder / "Packages"
        index.write_text("\n".join(map(paragraph, packages)), encoding="utf-8")
        with tarfile.open(target, "w") as tar:
            for path in [index, *packages]:
                tar.add(path, f"packages/{path.name}")
    print(len(packages))


if __name__ == "__main__":
    main()
