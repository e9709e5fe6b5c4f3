#!/usr/bin/env python3
"""usage: look.py SETTINGS.

What the Docker of this board has that is not of the appliance, whose settings of it are the object SETTINGS.
Prints one JSON object:
own      whether the daemon has the appliance's settings already
others   sentences such as "the container web", "the setting data-root in /etc/docker/daemon.json"
settings the names of all settings in that file
error    why that could not be told
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

FILE = Path("/etc/docker/daemon.json")
KINDS = {
    "container": ["ps", "--all", "--format", '{{.Names}}\t{{.Label "music.revision"}}{{.Image}}'],
    "image": ["image", "ls", "--format", "{{.Repository}}:{{.Tag}}\t{{.Repository}}/"],
    "volume": ["volume", "ls", "--format", "{{.Name}}\t"],
    "network": ["network", "ls", "--filter", "type=custom", "--format", "{{.Name}}\t"],
}


def docker(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=60, check=False)


def asleep(settings: dict[str, Any]) -> list[str]:
    """Containers of a daemon that does not answer, by its files."""
    found = []
    for folder in sorted(Path(settings.get("data-root", "/var/lib/docker")).glob("containers/*")):
        try:
            known = json.loads((folder / "config.v2.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            known = {}
        if "music.revision" not in (known.get("Config", {}).get("Labels") or {}):
            found.append(f"the container {known.get('Name', folder.name[:12]).strip('/')}")
    return found


def awake() -> list[str]:
    found = []
    for kind, question in KINDS.items():
        for line in docker(*question).stdout.splitlines():
            name, _, mark = line.partition("\t")
            own = mark.startswith("music/") or (kind == "container" and is_label(mark))
            if not own and "<none>" not in name:
                found.append(f"the {kind} {name}")
    return found


def is_label(mark: str) -> bool:
    """Whether a container's mark begins with the appliance's label, a SHA-1 in hexadecimal."""
    return len(mark) > 40 and all(digit in "0123456789abcdef" for digit in mark[:40])


def main() -> None:
    wanted = json.loads(sys.argv[1])
    said: dict[str, Any] = {"own": False, "others": [], "settings": [], "error": ""}
    try:
        settings = json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {}
    except (OSError, ValueError) as error:
        said["error"] = f"{FILE}: {error}"
        settings = {}
    if isinstance(settings, dict):
        said["settings"] = sorted(settings)
        said["own"] = settings == wanted
        different = [name for name in settings if name not in wanted or settings[name] != wanted[name]]
        said["others"] += [f"the setting {name} in {FILE}" for name in sorted(different)]
        if not said["own"] and shutil.which("docker"):
            said["others"] += awake() if docker("version").returncode == 0 else asleep(settings)
    print(json.dumps(said))


if __name__ == "__main__":
    main()
