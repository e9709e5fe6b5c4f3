"""`musicctl demo start`, `stop` and `rate`: the service that plays."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import click

from music_streaming.error import MusicError

PRODUCER = "music-producer.service"
MODEL = "model"
# Above the settings of Ansible's file, and kept over restarts; its next run leaves it alone.
RATE_FILE = Path("/etc/systemd/system/music-producer.service.d/rate.conf")


@click.command()
def start() -> None:
    """Start the service."""
    systemctl("start", PRODUCER)


@click.command()
def stop() -> None:
    """Stop it until `start` or the next boot."""
    systemctl("stop", PRODUCER)


class Pace(click.FloatRange):
    """MODEL, or plays a second."""

    name = "pace"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == MODEL:
            return value
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter as error:
            self.fail(f"{error.message} Wanted {MODEL}, or plays a second.", param, ctx)


@click.command()
@click.argument("pace", metavar="PER_SECOND|model", type=Pace(0, 5000, min_open=True), required=False)
@click.option("--reset", is_flag=True, help="Back to the rate of the settings.")
def rate(pace: float | str | None, reset: bool) -> None:
    """Play PER_SECOND plays a second, or by the model as people would, from now on.

    Until another rate or --reset: it outlives restarts and runs of site.yml.
    """
    if (pace is None) == (not reset):
        raise click.UsageError(f"wanted a number of plays per second, {MODEL}, or --reset")
    try:
        if reset or pace is None:
            RATE_FILE.unlink(missing_ok=True)
        else:
            RATE_FILE.parent.mkdir(parents=True, exist_ok=True)
            RATE_FILE.write_text(
                "# Made by musicctl demo rate; musicctl demo rate --reset removes it.\n"
                f"[Service]\nEnvironment={' '.join(environment(pace))}\n",
                encoding="utf-8",
            )
    except PermissionError:
        raise MusicError.of(
            "Rate of the demo",
            found=f"{RATE_FILE.parent} closed to this user",
            wanted="root",
            remedy="sudo musicctl demo rate ...",
        ) from None
    systemctl("daemon-reload")
    systemctl("try-restart", PRODUCER)


def environment(pace: float | str) -> list[str]:
    """What the producer is told of a pace, as NAME=VALUE."""
    if pace == MODEL:
        return ["MUSIC_PRODUCER__PACE=model"]
    return ["MUSIC_PRODUCER__PACE=rate", f"MUSIC_PRODUCER__RATE={float(pace):g}"]


def is_running() -> bool:
    """Whether the service runs, or is about to."""
    done = subprocess.run(["systemctl", "is-active", PRODUCER], capture_output=True, text=True, check=False)
    return done.stdout.strip() in ("active", "activating")


def systemctl(*arguments: str) -> None:
    """Run systemctl; MusicError where it fails. It asks for no password: who may not, is told to use sudo."""
    done = subprocess.run(
        ["systemctl", "--no-ask-password", *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode:
        sudo = "" if os.geteuid() == 0 else "sudo musicctl demo ...; "
        raise MusicError.of(
            f"systemctl {' '.join(arguments)}",
            found=done.stderr.strip() or f"exit code {done.returncode}",
            wanted="success",
            remedy=f"{sudo}systemctl status {PRODUCER}",
        )
