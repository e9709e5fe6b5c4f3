"""What the peers need besides the product's own environment, fetched once into .cache/bench."""

from __future__ import annotations

import functools
import shutil
import subprocess
import sys
from pathlib import Path

import pyspark

PROGRAMS = Path(__file__).with_name("programs")
CACHE = Path(__file__).parents[2] / ".cache" / "bench"


class SetUpError(Exception):
    """Why a contender takes no part."""


@functools.cache
def make_venv() -> None:
    """An environment for the hand-written consumers, whose libraries the product does not use."""
    uv = str(Path(sys.executable).with_name("uv"))
    install = [uv, "pip", "install", "--quiet", "--requirement", str(PROGRAMS / "requirements.txt")]
    commands = (
        [uv, "venv", "--quiet", "--allow-existing", "--python", sys.executable, str(CACHE / "venv")],
        [*install, "--python", str(CACHE / "venv" / "bin" / "python")],
    )
    for command in commands:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SetUpError((done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1])


def fetch_jars(program: str) -> None:
    """The jars of a Java program, from Maven Central, with the Ivy that Spark brings along."""
    folder = CACHE / program
    if (folder / "done").exists():
        return
    if not shutil.which("javac"):
        raise SetUpError("no compiler of Java. Remedy: apt install default-jdk-headless")
    ivy = Path(pyspark.__file__).parent / "jars" / "*"
    command = ["java", "-cp", str(ivy), "org.apache.ivy.Main", "-warn"]
    command += ["-ivy", str(PROGRAMS / program / "ivy.xml"), "-confs", "run", "-types", "jar", "bundle"]
    command += ["-retrieve", f"{folder}/[artifact]-[revision](-[classifier]).[ext]"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SetUpError((done.stdout + done.stderr).strip().splitlines()[-1])
    (folder / "done").touch()
