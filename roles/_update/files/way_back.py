#!/usr/bin/env python3
"""usage: way_back.py look | keep | backup F | aside V | done | files | databases | start | numbers | return.

The way back of an update, on one board as root, with nothing but the system's Python: neither version's
program is trusted. What it takes lies in /opt/music/update: before.tar (units, settings, secrets, helpers)
and before.json.

look       print what runs, and an update that is unfinished, as JSON
keep       note what runs now; nothing where an update is unfinished, whose note stays
backup F   note the backup that was taken; from now on the update is unfinished
aside V    stop what writes, and put the data of PostgreSQL V aside: another version reads none of them
done       note that the update has succeeded
files      stop the services, put units, settings and helpers back, and the program
databases  bring the data that were put aside back, or the backup where the update has changed tables
start      start the services again
numbers    wait until at least the plays of before are counted again, and compare the tables
return     files, databases, start and numbers, by hand: sudo /opt/music/update/way_back.py return
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

HOME, CONFIG, SOCKET = Path("/opt/music"), Path("/etc/music"), "/run/music-postgres"
FOLDER = HOME / "update"
NOTE, FILES = FOLDER / "before.json", FOLDER / "before.tar"
UNFINISHED = "unfinished"
# What services run with, as globs; what the appliance knows of the board as it was before is none of it.
KEPT = (
    "etc/music/*",
    "etc/systemd/system/music*",
    "etc/systemd/system/*.wants/music*",
    "etc/tmpfiles.d/music*",
    "usr/local/libexec/music",
)
NOT_KEPT = {"etc/music/before"}
NUMBERS_SECONDS = 600
WRITERS = [f"music-{name}" for name in ("producer", "scrobble", "forward", "metrics", "superset", "postgres")]
# Where a backup mounts a disk that is named by its label.
MOUNTS = Path("/run/music-backup")


class WayBackError(Exception):
    """Found, wanted, remedy."""

    def __init__(self, found: str, wanted: str, remedy: str) -> None:
        super().__init__(f"Found {found}, wanted {wanted}: {remedy}")


def run(*argv: str, check: bool = True) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if check and done.returncode:
        said = " ".join((done.stderr or done.stdout).split())[-600:]
        raise WayBackError(
            f"{said or done.returncode} from {' '.join(argv[:4])}", "its success", "see to it and run again."
        )
    return done.stdout.strip()


def sql(query: str, database: str) -> list[list[str]] | None:
    """Rows as text; None where the database does not answer, or has no such table."""
    settings = tomllib.loads((CONFIG / "music.toml").read_text(encoding="utf-8"))
    port = str(settings.get("postgres", {}).get("port", 5432))
    argv = [
        "psql",
        "-h",
        SOCKET,
        "-p",
        port,
        "-U",
        "postgres",
        "--no-psqlrc",
        "-AtF",
        "\t",
        "-c",
        query,
        database,
    ]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return None if done.returncode else [line.split("\t") for line in done.stdout.splitlines()]


def data_root() -> Path:
    settings = tomllib.loads((CONFIG / "music.toml").read_text(encoding="utf-8"))
    return Path(settings.get("paths", {}).get("data", "/"))


def data_version(folder: Path) -> str:
    """Major version of a cluster of PostgreSQL; empty where there is none."""
    file = folder / "PG_VERSION"
    return file.read_text(encoding="utf-8").strip() if file.is_file() else ""


def room() -> dict[str, Any]:
    """What is free, and what the databases take: the way back restores them beside those that are there."""
    data = data_root()
    sizes = sql("SELECT sum(pg_database_size(oid)) FROM pg_database WHERE datallowconn", "postgres")
    return {
        "data": str(data),
        "data_free_mb": shutil.disk_usage(data).free // 10**6,
        "one_disk": data.stat().st_dev == Path("/").stat().st_dev,
        "databases_mb": 0 if sizes is None else int(sizes[0][0]) // 10**6,
    }


def tables() -> dict[str, Any]:
    """What an update may change of the databases, and how many plays of each source are counted."""
    migrations = sql("SELECT name, sha256 FROM schema_migrations", "music_streaming")
    superset = sql("SELECT version_num FROM alembic_version", "superset")
    plays = sql("SELECT source, accepted FROM ingest_totals", "music_streaming")
    return {
        "migrations": None if migrations is None else dict(migrations),
        "superset": None if superset is None else sorted(row[0] for row in superset),
        "plays": None if plays is None else {source: int(count) for source, count in plays},
    }


def note() -> dict[str, Any]:
    """What `keep` noted; WayBackError where there is nothing."""
    try:
        found: dict[str, Any] = json.loads(NOTE.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise WayBackError(
            f"no note of an update in {FOLDER}", "one", "there is nothing to return to."
        ) from None
    return found


def write(content: dict[str, Any]) -> None:
    new = NOTE.with_suffix(".new")
    new.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    subprocess.run(["sync", str(new)], check=True)
    new.rename(NOTE)


def look() -> dict[str, Any]:
    app = HOME / "app"
    found: dict[str, Any] = {
        "installed": app.exists(),
        "version": "",
        "postgres": "",
        "app": "",
        "images": {},
        "unfinished": None,
    }
    if app.exists():
        found["app"] = app.resolve().name
        ask = "from importlib.metadata import version; print(version('music-streaming'))"
        found["version"] = run(str(app / "bin/python"), "-c", ask, check=False)
        found |= tables() | room()
        found["postgres"] = data_version(data_root() / "postgres/data")
    names = run(
        "docker", "ps", "--filter", "label=music.revision", "--format", "{{.Names}} {{.Image}}", check=False
    )
    found["images"] = dict(line.split() for line in names.splitlines() if len(line.split()) == 2)
    found["free_mb"] = shutil.disk_usage("/").free // 10**6
    if NOTE.exists() and note()["state"] == UNFINISHED:
        found["unfinished"] = note()
    return found


def kept_files() -> list[str]:
    root = Path("/")
    return sorted({str(path.relative_to(root)) for glob in KEPT for path in root.glob(glob)} - NOT_KEPT)


def keep() -> None:
    if NOTE.exists() and note()["state"] == UNFINISHED:
        return
    FOLDER.mkdir(mode=0o700, exist_ok=True)
    NOTE.unlink(missing_ok=True)
    names = kept_files()
    subprocess.run(
        ["tar", "-cpf", str(FILES), "--numeric-owner", "-C", "/", "--no-recursion", "--files-from=-"],
        input="\n".join(names + [str(path.relative_to("/")) for name in names for path in below(name)]),
        text=True,
        check=True,
    )
    noted = ("version", "app", "images", "migrations", "superset", "plays")
    content = {name: value for name, value in look().items() if name in noted}
    write(
        {
            "state": "kept",
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "files": names,
            "backup": "",
            **content,
        }
    )


def below(name: str) -> list[Path]:
    path = Path("/") / name
    return sorted(path.rglob("*")) if path.is_dir() and not path.is_symlink() else []


def set_state(state: str, **more: object) -> None:
    write(note() | {"state": state} | more)


def aside(version: str) -> None:
    """Again after a run that was cut off: data of another version are not touched."""
    folder = data_root() / "postgres"
    data, old = folder / "data", folder / f"data-{version}"
    set_state(note()["state"], aside=version)
    run("systemctl", "stop", *WRITERS)
    mount_of(Path(note()["backup"]))
    if data_version(data) != version:
        return
    if old.exists():
        raise WayBackError(
            f"{old} beside {data}", "one of them", f"see which is old, sudo rm -r {old}, run again."
        )
    data.rename(old)


def data_back(version: str) -> None:
    """The data that `aside` put there; what the newer version made goes."""
    folder = data_root() / "postgres"
    data, old, failed = folder / "data", folder / f"data-{version}", folder / "data-failed"
    if old.exists():
        shutil.rmtree(failed, ignore_errors=True)
        if data.exists():
            data.rename(failed)
        old.rename(data)
    shutil.rmtree(failed, ignore_errors=True)


def refuse_impossible(before: dict[str, Any]) -> None:
    """WayBackError, before anything is changed, where something of the old version is gone."""
    if not (HOME / before["app"]).is_dir():
        raise WayBackError(
            f"no {HOME / before['app']}", "the program of before", "set up that version with site.yml."
        )
    folder, version = data_root() / "postgres", before.get("aside")
    if version and version not in (data_version(folder / "data"), data_version(folder / f"data-{version}")):
        raise WayBackError(
            f"no data of PostgreSQL {version} in {folder}",
            "those of before",
            f"set up that version with restore.yml and {before['backup']}.",
        )
    for image in sorted(set(before["images"].values())):
        if subprocess.run(["docker", "image", "inspect", image], capture_output=True, check=False).returncode:
            raise WayBackError(f"no image {image}", "those of before", "set up that version with site.yml.")


def files() -> None:
    before = note()
    refuse_impossible(before)
    run("systemctl", "stop", "music.target", "music*")
    for name in set(kept_files()) - set(before["files"]):
        path = Path("/") / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    run("tar", "-xpf", str(FILES), "--numeric-owner", "-C", "/")
    new = HOME / "app.new"
    new.unlink(missing_ok=True)
    new.symlink_to(before["app"])
    new.rename(HOME / "app")
    run("systemctl", "daemon-reload")


def databases() -> None:
    before = note()
    if before["migrations"] is None:
        return  # another board's
    if version := before.get("aside"):
        data_back(version)
        print(f"changed: the data of PostgreSQL {version} are back")
    run("systemctl", "start", "music-postgres.service")
    now = tables()
    if all(now[name] == before[name] for name in ("migrations", "superset")):
        print("the tables are those of before")
        return
    backup = Path(before["backup"])
    mounted = mount_of(backup)
    try:
        if not backup.is_file():
            raise WayBackError(
                f"no {backup}, and tables that the update changed",
                "the backup that it took",
                "bring it there, and run again.",
            )
        run(str(HOME / "app/bin/musicctl"), "restore", "--over", str(backup))
    finally:
        if mounted:
            run("umount", str(mounted))
    print(f"changed: both databases, back from {backup}")


def mount_of(backup: Path) -> Path | None:
    """Mount the disk of a backup that is named by its label; None where there is none to mount."""
    if backup.is_file() or not backup.is_relative_to(MOUNTS):
        return None
    at = MOUNTS / backup.relative_to(MOUNTS).parts[0]
    at.mkdir(parents=True, exist_ok=True)
    run("mount", "-o", "ro,nosuid,nodev,noexec", f"LABEL={at.name}", str(at))
    return at


def start() -> None:
    units = [name.rpartition("/")[2] for name in note()["files"] if ".wants/" in name]
    run("systemctl", "start", "music.target", *units)


def numbers() -> None:
    before = note()["plays"]
    if before is None:
        return
    deadline = time.monotonic() + NUMBERS_SECONDS
    while True:
        now = tables()["plays"] or {}
        if all(now.get(source, 0) >= count for source, count in before.items()):
            break
        if time.monotonic() > deadline:
            raise WayBackError(
                f"plays {now} after {NUMBERS_SECONDS} s", f"no less than {before}", "sudo musicctl doctor"
            )
        time.sleep(1)
    run(str(HOME / "app/bin/musicctl"), "validate")
    print(f"plays before {before}, now {now}; the tables agree")


def put_back() -> None:
    for step in (files, databases, start, numbers):
        step()
    set_state("returned")


def unmount(backup: Path) -> None:
    """The disk that `aside` mounted."""
    if backup.is_relative_to(MOUNTS):
        run("umount", str(MOUNTS / backup.relative_to(MOUNTS).parts[0]), check=False)


def main() -> None:
    verb, *rest = sys.argv[1:] or ["help"]
    steps = {
        "keep": keep,
        "files": files,
        "databases": databases,
        "start": start,
        "numbers": numbers,
        "return": put_back,
    }
    try:
        if verb == "look":
            print(json.dumps(look()))
        elif verb == "backup":
            set_state(UNFINISHED, backup=rest[0], plays=tables()["plays"])
        elif verb == "aside":
            aside(rest[0])
        elif verb in ("done", "returned"):
            set_state(verb)
            unmount(Path(note()["backup"]))
        elif verb in steps:
            steps[verb]()
        else:
            sys.exit(__doc__)
    except WayBackError as error:
        sys.exit(f"Update: {error}")


if __name__ == "__main__":
    main()
