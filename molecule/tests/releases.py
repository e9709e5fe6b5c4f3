"""Releases of the project in folders of their own, as an owner gets them by git pull: older, newer, broken on purpose."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from conftest import PROJECT

# Both sort behind every file that is there, and change what is counted or how it is stored.
GOOD = "CREATE TABLE of_next_year AS SELECT 1 AS n;\n"
LOSES_ROWS = "DELETE FROM user_engagement_metrics;\n"
FIRST = re.compile(r"^## 0\.1\.0\b.*?\b(?P<commit>[0-9a-f]{7,40})\b", re.MULTILINE)


def copied(folder: Path, commit: str | None = None) -> Path:
    """The project's files in `folder`: those of a commit, or as they are now."""
    folder.mkdir()
    listed = f"git archive {commit}" if commit else "git ls-files -z | tar -c --null --files-from=-"
    subprocess.run(f"{listed} | tar -x -C {folder}", cwd=PROJECT, shell=True, check=True)  # noqa: S602
    return folder


def renamed(folder: Path, version: str) -> Path:
    """Give a release another number."""
    file = folder / "pyproject.toml"
    text = re.sub(r'(?m)^version = ".*"', f'version = "{version}"', file.read_text(encoding="utf-8"))
    file.write_text(text, encoding="utf-8")
    return folder


def with_migration(folder: Path, statements: str) -> str:
    """Add a migration to a release; its name."""
    numbers = [int(path.name[:3]) for path in (folder / "files/schema").glob("*.sql")]
    path = folder / f"files/schema/{max(numbers) + 1:03d}_planted.sql"
    path.write_text(statements, encoding="utf-8")
    return path.name


def older(folder: Path) -> Path:
    """0.1.0 with the metadata of an older Kafka."""
    found = FIRST.search((PROJECT / "CHANGELOG.md").read_text(encoding="utf-8"))
    assert found, "no commit of 0.1.0 in the changelog"
    return edited(
        copied(folder, found["commit"]),
        (
            "roles/kafka/tasks/format.yml",
            "      - format\n",
            "      - format\n      - --release-version=4.3\n",
        ),
    )


def edited(folder: Path, *edits: tuple[str, str, str]) -> Path:
    """Replace text in files of a release: file, old, new."""
    for name, old, new in edits:
        file = folder / name
        text = file.read_text(encoding="utf-8")
        assert old in text, f"no {old} in {name}"
        file.write_text(text.replace(old, new), encoding="utf-8")
    return folder


def with_postgres_15(folder: Path) -> Path:
    """A release whose PostgreSQL is that of Debian 12."""
    return edited(
        folder,
        ("files/images/postgres/Dockerfile", "postgresql-17", "postgresql-15"),
        ("files/images/postgres/Dockerfile", "postgresql/17", "postgresql/15"),
        ("roles/postgres/vars/main.yml", "base: trixie", "base: bookworm"),
        ("roles/postgres/vars/main.yml", '__postgres_version: "17"', '__postgres_version: "15"'),
        # What 15 does not know.
        ("roles/postgres/tasks/initdb.yml", "- --locale-provider=builtin", "- --locale-provider=libc"),
        ("roles/postgres/tasks/initdb.yml", "      - --builtin-locale=C.UTF-8\n", ""),
    )


def newer(folder: Path, *, image: bool = True) -> tuple[Path, str]:
    """A release with a migration and, with `image`, one of another content; the name of the migration."""
    renamed(copied(folder), "0.9.0")
    if image:
        with (folder / "files/images/postgres/Dockerfile").open("a", encoding="utf-8") as file:
            file.write("# Of another release.\n")
    return folder, with_migration(folder, GOOD)


def broken(folder: Path, *, image: bool = True) -> Path:
    """The same, but for its migration, which loses rows, and its job, which ends at its start."""
    newer(folder, image=image)
    next(folder.glob("files/schema/*_planted.sql")).write_text(LOSES_ROWS, encoding="utf-8")
    renamed(folder, "0.9.1")
    start = 'if __name__ == "__main__":\n'
    return edited(
        folder, ("app/music_streaming/stream.py", start, f'{start}    sys.exit("broken on purpose")\n')
    )
