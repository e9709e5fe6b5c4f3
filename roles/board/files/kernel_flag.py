#!/usr/bin/env python3
"""Turn the kernel's memory cgroup on or off in the line that the firmware hands to the kernel.

Looks at the first of the files that is there: a later one may be a placeholder that says where it is now.
Prints one JSON object:
file     the file that was looked at, or null
state    on, off, none (no file), or odd (a file that is no line of kernel options; never edited)
found    for odd: what was found instead
changed  whether the file was written
running  whether the kernel was started with the flag on
due      whether the flag was set since the last start
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
from pathlib import Path

FLAG = "cgroup_enable=memory"
# COMMAND_LINE_SIZE of the kernel on arm64, with the NUL at its end.
LONGEST = 2047


def options(line: str) -> list[str]:
    """The options of a kernel command line; blanks within double quotes belong to one."""
    return re.findall(r'(?:"[^"]*"|[^\s"])+', line)


def is_on(line: str) -> bool:
    """Whether the line leaves the memory cgroup on: the last option that names it decides."""
    on = False
    for option in options(line):
        name, _, controllers = option.partition("=")
        if name in ("cgroup_enable", "cgroup_disable") and "memory" in controllers.split(","):
            on = name == "cgroup_enable"
    return on


def oddity(text: str) -> str:
    """What speaks against the text being one line of kernel options; empty when nothing does."""
    lines = text.rstrip().splitlines()
    if not lines:
        return "an empty file"
    first = ascii(lines[0][:60])
    if len(lines) > 1:
        return f"{len(lines)} lines, the first of them {first}"
    if not lines[0].isprintable():
        return f"characters that cannot be printed in {first}"
    if not any(option.startswith("root=") for option in options(lines[0])):
        return f"no root= in {first}"
    if len(lines[0]) + len(FLAG) + 1 > LONGEST:
        return f"{len(lines[0])} characters, of which the kernel reads {LONGEST}"
    return ""


def write(path: Path, line: str) -> None:
    """Replace the file by one line and one newline, whole at any moment."""
    target = path.resolve()
    new = target.with_name(f"{target.name}.new")
    with new.open("w", encoding="utf-8", newline="") as file:
        file.write(f"{line}\n")
        file.flush()
        os.fsync(file.fileno())
    shutil.copymode(target, new)
    new.replace(target)
    os.sync()


def look(path: Path) -> dict[str, object]:
    """What is found in a file that is there."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        return {"state": "odd", "found": str(error)}
    odd = oddity(text)
    if odd:
        return {"state": "odd", "found": odd}
    return {"state": "on" if is_on(text) else "off", "line": text.strip()}


def main() -> None:
    parser = argparse.ArgumentParser(description="Memory cgroup in the kernel's command line.")
    parser.add_argument("do", choices=["show", "set", "unset"])
    parser.add_argument("--running", type=Path, default=Path("/proc/cmdline"))
    parser.add_argument(
        "--due", type=Path, default=Path("/run/music-kernel-flag"), help="gone with a restart"
    )
    parser.add_argument("--note", type=Path, help="where to keep the name of the file that was edited")
    parser.add_argument("files", nargs="+", type=Path)
    asked = parser.parse_args()
    path = next((file for file in asked.files if os.path.lexists(file)), None)
    seen = {"state": "none"} if path is None else look(path)
    line = str(seen.pop("line", ""))
    changed = False
    if path is not None and asked.do == "set" and seen["state"] == "off":
        # Before the edit: a run that is cut off then knows of it.
        asked.due.touch()
        if asked.note:
            asked.note.parent.mkdir(parents=True, exist_ok=True)
            asked.note.write_text(f"{path}\n", encoding="utf-8")
        write(path, f"{line} {FLAG}")
        seen["state"], changed = "on", True
    elif path is not None and asked.do == "unset" and line.endswith(f" {FLAG}"):
        line = line.removesuffix(FLAG).rstrip()
        write(path, line)
        seen["state"], changed = "on" if is_on(line) else "off", True
    running = is_on(asked.running.read_text(encoding="utf-8", errors="replace"))
    due = seen["state"] == "on" and asked.due.exists()
    said = {"file": path and str(path), "found": "", "changed": changed, "running": running, "due": due}
    print(json.dumps(said | seen))


if __name__ == "__main__":
    main()
