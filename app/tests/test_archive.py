"""The archive of images for the next board: written, read, and refused by name where it does not fit."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import yaml

import archive
from docs import PROJECT

LOOK = PROJECT / "roles/_archive/files/look.py"
HERE = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
OTHER = {"amd64": "arm64", "arm64": "amd64"}[HERE]
LOCK = archive.sha256(PROJECT / "app/requirements.lock")
TAG = "music/kafka:0123456789ab"


def written(folder: Path, **more: object) -> Path:
    """An archive with one image, as this computer's board would take it."""
    for name in ("image", "packages", "wheels"):
        (folder / name).write_text(f"{name} of a board")
    description = {
        "version": "0.1.0",
        "platform": HERE,
        "epoch": "",
        "packages": ["docker.io", "zstd"],
        "lock": LOCK,
        "images": {"kafka": TAG},
        "members": {
            "images/kafka-0123456789ab.tar.zst": folder / "image",
            "packages.tar": folder / "packages",
            "wheels.tar": folder / "wheels",
        },
    } | more
    target = folder / f"music-images-{description['version']}-{description['platform']}.tar"
    archive.write(target, description)
    return target


def look(place: str) -> dict[str, object]:
    done = subprocess.run([sys.executable, LOOK, place], capture_output=True, text=True, check=True)
    found: dict[str, object] = json.loads(done.stdout)
    return found


def test_what_is_written_can_be_read(tmp_path):
    target = written(tmp_path)
    (found,) = look(str(target))["found"]
    assert found["path"] == str(target)
    manifest = found["manifest"]
    assert (manifest["version"], manifest["platform"], manifest["images"]) == ("0.1.0", HERE, {"kafka": TAG})
    with tarfile.open(target) as tar:
        names = tar.getnames()
        assert names == ["manifest.json", *manifest["members"]]
        for name, member in manifest["members"].items():
            content = tar.extractfile(name).read()
            assert member == {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def test_a_file_that_cannot_be_read_leaves_no_archive(tmp_path):
    with pytest.raises(FileNotFoundError):
        written(tmp_path, members={"packages.tar": tmp_path / "none"})
    assert list(tmp_path.glob("music-images-*")) == []


@pytest.mark.parametrize("content", [b"", b"no archive", b"\0" * 10240])
def test_other_files_are_no_archives(tmp_path, content):
    file = tmp_path / "music-images-0.1.0-arm64.tar"
    file.write_bytes(content)
    answer = look(str(file))
    assert answer["found"] == []
    assert "which is cut short or no archive of images" in answer["error"]
    assert look(str(tmp_path / "none.tar"))["error"] == f"no file {tmp_path / 'none.tar'}"


def test_a_disk_that_is_not_there():
    answer = look("label:NOTHERE")
    assert answer["found"] == []
    assert answer["error"] == "no disk with the label NOTHERE"


def play(folder: Path, place: Path, *tasks: dict[str, object]) -> subprocess.CompletedProcess[str]:
    """Choose an archive on this computer for itself, as site.yml does for a board, then do these tasks."""
    find = {"name": "_archive", "tasks_from": "find"}
    given = {"archive_parts": [], "archive_packages": ["zstd"]}
    book = folder / "play.yml"
    book.write_text(
        yaml.safe_dump(
            [
                {
                    "hosts": "localhost",
                    "connection": "local",
                    "gather_facts": True,
                    "gather_subset": ["!all", "platform"],
                    "vars": {
                        "ansible_python_interpreter": sys.executable,
                        "music_images_archive": str(place),
                        "image_tags": {"kafka": TAG},
                    },
                    "tasks": [{"ansible.builtin.include_role": find, "vars": given}, *tasks],
                }
            ]
        )
    )
    argv = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", "localhost,", str(book)]
    environment = os.environ | {
        "ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg"),
        "ANSIBLE_ROLES_PATH": str(PROJECT / "roles"),
        "ANSIBLE_NOCOLOR": "1",
        "LC_ALL": "C.UTF-8",
    }
    return subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=120, check=False)


def take(target: Path) -> dict[str, object]:
    return {
        "ansible.builtin.include_role": {"name": "_archive", "tasks_from": "member"},
        "vars": {"archive_member": "packages.tar", "archive_target": str(target)},
    }


def test_a_member_comes_whole(tmp_path):
    done = play(tmp_path, written(tmp_path), take(tmp_path / "taken"))
    assert done.returncode == 0, done.stdout
    assert (tmp_path / "taken").read_text() == "packages of a board"


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (
            {"platform": OTHER},
            rf"Found music-images-0\.1\.0-{OTHER}\.tar for {OTHER}, wanted music-images-.*-{HERE}\.tar",
        ),
        (
            {"version": "0.0.9", "images": {"kafka": "music/kafka:ba9876543210"}, "lock": "0" * 64},
            rf"tar of version 0\.0\.9 with music/kafka:ba9876543210, 000000000000; wanted {TAG}, {LOCK[:12]}, of version",
        ),
        ({"packages": ["docker.io"]}, "without the packages zstd, wanted them in it"),
    ],
    ids=["platform", "version", "packages"],
)
def test_what_does_not_fit_is_refused_by_name(tmp_path, more, words):
    done = play(tmp_path, written(tmp_path, **more))
    assert done.returncode != 0
    said = " ".join(done.stdout.split())
    assert re.search(words, said), done.stdout
    assert "Nothing was changed: write it with make images" in said
    assert "changed=0" in said


def test_a_part_that_was_changed_is_refused(tmp_path):
    target = written(tmp_path)
    content = target.read_bytes()
    target.write_bytes(content.replace(b"packages of a board", b"packages of another"[:19]))
    done = play(tmp_path, target, take(tmp_path / "taken"))
    assert done.returncode != 0
    assert re.search(r"Found packages\.tar of \S+ with SHA-256", " ".join(done.stdout.split())), done.stdout
