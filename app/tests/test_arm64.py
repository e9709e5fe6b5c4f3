"""What a Pi gets: each pinned artifact is there for arm64, and its native code loads on a kernel with pages of 16 KiB (Pi 5).

Packages of Debian are not looked at: its linker aligns to 64 KiB on arm64.
"""

import io
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pyspark
import pytest
from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile

from music_streaming.testing.broker import IMAGE, jars

PROJECT = Path(__file__).parents[2]
PAGE = 16 * 1024
# What the appliance loads from jars, by the beginning of the jar's name.
NEEDED = {"zstd-jni", "snappy-java", "lz4-java"}
LOCKS = [
    ("app/requirements.lock", "3.13"),
    ("files/images/spark/requirements.lock", "3.13"),
    ("files/images/superset/requirements.lock", "3.11"),
]


def misaligned(code: bytes) -> bool | None:
    """Whether a kernel with such pages cannot load this file; None where it is no native code for arm64."""
    try:
        elf = ELFFile(io.BytesIO(code))
    except ELFError:
        return None
    if elf["e_machine"] != "EM_AARCH64":
        return None
    return any(part["p_align"] % PAGE for part in elf.iter_segments() if part["p_type"] == "PT_LOAD")


def test_natives_in_jars_load_with_large_pages():
    folders = [Path(pyspark.__file__).parent / "jars", jars(), jars(IMAGE.with_name("spark"))]
    found: dict[str, bool] = {}
    for path in (path for folder in folders for path in folder.glob("*.jar")):
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if ".so" in name]
            seen = {f"{path.name}: {name}": misaligned(archive.read(name)) for name in names}
        found |= {name: verdict for name, verdict in seen.items() if verdict is not None}
    assert {part for part in NEEDED if any(name.startswith(part) for name in found)} == NEEDED, found
    refused = [name for name, verdict in found.items() if verdict]
    # Android's, which no board loads, show that this test can tell.
    assert refused
    assert [name for name in refused if "android" not in name] == []


@pytest.mark.slow
@pytest.mark.parametrize(("lock", "python"), LOCKS, ids=[lock for lock, _ in LOCKS])
def test_every_locked_package_installs_for_arm64_and_loads_with_large_pages(tmp_path, lock, python):
    # Its natives are those of its jars, of which the other test has made sure.
    wanted = re.sub(
        r"^pyspark==.*\\\n(?:    --hash=.*\n)+", "", (PROJECT / lock).read_text(), flags=re.MULTILINE
    )
    (tmp_path / "lock").write_text(wanted)
    command = [
        Path(sys.executable).with_name("uv"), "pip", "install", "--quiet", "--target", tmp_path / "arm64",
        "--python-platform", "aarch64-manylinux_2_36", "--python-version", python, "--no-deps", "--require-hashes",
        "-r", tmp_path / "lock",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = {
        path: verdict
        for path in tmp_path.glob("arm64/**/*.so*")
        if (verdict := misaligned(path.read_bytes())) is not None
    }
    assert found
    assert [path for path, verdict in found.items() if verdict] == []
