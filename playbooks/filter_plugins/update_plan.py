"""What an update would change on a board, in sentences, before it changes anything."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

# Minutes with two x86 cores: building an image, and loading one that is kept. A Pi takes about twice as long.
BUILD = {"kafka": 3.0, "postgres": 2.0, "spark": 6.0, "superset": 3.0}
LOAD = 0.5
# Backup, starts, dashboards and checks.
REST = 4.0
# What an image takes on the disk, and what else an update needs meanwhile, in MB.
SIZES = {"kafka": 500, "postgres": 400, "spark": 1_200, "superset": 1_000}
MEANWHILE = 800
# A restore leaves so much of the data's disk free (backup/taking.py), in MB.
FLOOR = 1_100
# Which containers run an image under another name.
CONTAINERS = {"spark": ("spark-master", "spark-worker", "metrics")}


class Plan(NamedTuple):
    """Sentences, the first `changes` of which change something; room and minutes that it takes; why not.

    short: which disk has too little room, empty where none.
    """

    lines: list[str]
    changes: int
    wanted_mb: int
    minutes: int
    refused: str
    short: str


def update_plan(before: Mapping[str, Any], wanted: Mapping[str, Any]) -> Plan:
    """From what way_back.py look said of a board, to what this repository wants of it.

    wanted: version, app (folder), images (service -> tag), present (tags that the board has), kept (those
    that can be loaded as well), postgres (major version), migrations (name -> sha256).
    """
    lines, minutes, room, restarts = [], REST, MEANWHILE, set()
    old = {service: image for image, service in _images_of(before["images"]).items()}
    for service, tag in wanted["images"].items():
        if old.get(service) == tag:
            continue
        how = "on the board" if tag in wanted["present"] else "loaded" if tag in wanted["kept"] else "built"
        lines.append(f"image of {service}: {old.get(service, 'none')} -> {tag}, {how}")
        minutes += {"on the board": 0.0, "loaded": LOAD, "built": BUILD.get(service, 3.0)}[how]
        room += 0 if how == "on the board" else SIZES.get(service, 500)
        restarts |= set(CONTAINERS.get(service, (service,)))
    if before["app"] != wanted["app"]:
        lines.insert(
            0,
            f"program: {before['version'] or 'none'} ({before['app']}) -> "
            f"{wanted['version']} ({wanted['app']})",
        )
        restarts |= {"metrics", "producer", "scrobble"}
    if before.get("postgres") and before["postgres"] != wanted["postgres"]:
        lines.append(
            f"data of PostgreSQL {before['postgres']} -> {wanted['postgres']}, through the backup; those of "
            f"before stay in {before['data']}/postgres/data-{before['postgres']} until you remove them"
        )
    applied = before["migrations"] or {}
    pending = [name for name in sorted(wanted["migrations"]) if name not in applied]
    lines += [f"migration: {name}" for name in pending] if before["migrations"] is not None else []
    changes = len(lines)
    if restarts:
        lines.append(f"restarts: {', '.join(sorted(restarts))}, and whatever has other settings")
    lines.append(f"it takes about {round(minutes)} minutes on two x86 cores, a Pi twice as long")
    refused = _refusal(applied, wanted["migrations"])
    return Plan(lines, changes, room, round(minutes), refused, _short(before, room))


def _short(before: Mapping[str, Any], room: int) -> str:
    """Which disk has too little room for both versions and the way back; empty where none."""
    back = before["databases_mb"] + FLOOR if before.get("databases_mb") else 0
    why = "as the way back restores the databases beside those that are there"
    if before.get("one_disk", True):
        room += back
    elif before["data_free_mb"] < back:
        return f"{before['data_free_mb']} MB free in {before['data']}, wanted {back} MB, {why}"
    if before["free_mb"] < room:
        return f"{before['free_mb']} MB free, wanted {room} MB, as the old version's images stay, and {why}"
    return ""


def _images_of(containers: Mapping[str, str]) -> dict[str, str]:
    """Image -> service that it is of, of the containers that run."""
    return {image: image.rpartition("/")[2].partition(":")[0] for image in containers.values()}


def _refusal(applied: Mapping[str, str], ours: Mapping[str, str]) -> str:
    unknown = sorted(set(applied) - set(ours))
    if unknown:
        return (
            f"{', '.join(unknown)} in its tables, wanted none newer than {max(ours)}: a newer version "
            "set it up; take that"
        )
    edited = [name for name in sorted(applied) if applied[name] != ours[name]]
    if edited:
        return (
            f"another {edited[0]} in its tables, wanted the one of this version, as released files are not "
            "edited: take the version that set it up, or one after it"
        )
    return ""


class FilterModule:
    """What Ansible asks for."""

    def filters(self) -> dict[str, object]:
        """Filters of this file by name."""
        return {
            "update_plan": lambda before, wanted: update_plan(before, wanted)._asdict(),
            "update_sha256": lambda path: hashlib.sha256(Path(path).read_bytes()).hexdigest(),
        }
