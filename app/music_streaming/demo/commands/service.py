"""`musicctl demo start`, `stop` and `rate`: the service that plays."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import click

from music_streaming.error import MusicError

PRODUCER = "music-producer.service"
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


@click.command()
@click.argument("per_second", type=click.FloatRange(0, 5000, min_open=True), required=False)
@click.option("--reset", is_flag=True, help="Back to the rate of the settings.")
def rate(per_second: float | None, reset: bool) -> None:
    """Play PER_SECOND plays a second, from now on and after every boot."""
    if (per_second is None) == (not reset):
        raise click.UsageError("wanted a number of plays per second, or --reset")
    try:
        if reset:
            RATE_FILE.unlink(missing_ok=True)
        else:
            RATE_FILE.parent.mkdir(parents=True, exist_ok=True)
            RATE_FILE.write_text(
                "# Made by musicctl demo rate; musicctl demo rate --reset removes it.\n"
                f"[Service]\nEnvironment=MUSIC_PRODUCER__RATE={per_second:g}\n",
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
