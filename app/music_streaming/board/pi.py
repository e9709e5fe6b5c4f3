"""How a Raspberry Pi is: warm, throttled, short of voltage; and what is written to its card.

Sources: the firmware's get_throttled (vcgencmd, and sysfs), thermal zones of the kernel, io.stat of control
groups v2, and /sys/block/DEVICE/stat. A machine that lacks one of them has no finding of it.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

SECONDS = 10
SECTOR = 512
FIRMWARE = "sys/devices/platform/soc/soc:firmware/get_throttled"
# Bits of get_throttled: now, and 16 higher since the start.
UNDER_VOLTAGE, CAPPED, THROTTLED, SOFT_LIMIT = 1, 2, 4, 8
SINCE_START = 16


@dataclass(frozen=True)
class Throttled:
    """What the firmware has done to spare the board: now, and at some time since its start."""

    bits: int

    def now(self, bit: int) -> bool:
        """Whether it is so at this moment."""
        return bool(self.bits & bit)

    def ever(self, bit: int) -> bool:
        """Whether it was so at some time since the start."""
        return bool(self.bits & (bit << SINCE_START))


def throttled(root: Path = Path("/")) -> Throttled | None:
    """From sysfs, else from vcgencmd; None on what is no Pi."""
    try:
        return Throttled(int((root / FIRMWARE).read_text(encoding="ascii").strip(), 16))
    except (OSError, ValueError):
        pass
    try:
        done = subprocess.run(
            ["vcgencmd", "get_throttled"], capture_output=True, text=True, check=False, timeout=SECONDS
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return read_throttled(done.stdout) if done.returncode == 0 else None


def read_throttled(said: str) -> Throttled | None:
    """From what vcgencmd says: ``throttled=0x50005``."""
    name, _, value = said.strip().partition("=")
    try:
        return Throttled(int(value, 16)) if name == "throttled" else None
    except ValueError:
        return None


def temperature(root: Path = Path("/")) -> float | None:
    """Degrees Celsius of the warmest thermal zone; None where there is none."""
    found = []
    for path in (root / "sys/class/thermal").glob("thermal_zone*/temp"):
        try:
            found.append(int(path.read_text(encoding="ascii")) / 1000)
        except (OSError, ValueError):
            continue
    return max(found, default=None)


def written_by_groups(groups: Mapping[str, str], root: Path = Path("/")) -> dict[str, int]:
    """Name -> bytes that its control group has written; groups: name -> path below /sys/fs/cgroup.

    Where the kernel keeps no account of a group, that of its processes which run now is taken.
    """
    found = {}
    for name, group in groups.items():
        folder = root / "sys/fs/cgroup" / group.lstrip("/")
        try:
            text = (folder / "io.stat").read_text(encoding="ascii")
            found[name] = read_io_stat(text)
        except OSError:
            pids = _lines(folder / "cgroup.procs")
            found[name] = sum(_written_by(root / "proc" / pid / "io") for pid in pids)
    return found


def read_io_stat(text: str) -> int:
    """Bytes written, over all devices: lines of ``MAJOR:MINOR rbytes=1 wbytes=2 ...``."""
    pairs = [pair.partition("=") for line in text.splitlines() for pair in line.split()[1:]]
    return sum(int(value) for name, _, value in pairs if name == "wbytes")


def _written_by(path: Path) -> int:
    pairs = [line.partition(": ") for line in _lines(path)]
    return sum(int(value) for name, _, value in pairs if name == "write_bytes")


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii").splitlines()
    except OSError:
        return []


def written_to_disk(folder: Path, root: Path = Path("/")) -> int | None:
    """Bytes written since its start to the device of `folder`; None where the kernel does not tell."""
    try:
        device = os.stat(folder).st_dev
        stat = root / f"sys/dev/block/{os.major(device)}:{os.minor(device)}/stat"
        text = stat.read_text(encoding="ascii")
        return int(text.split()[6]) * SECTOR
    except (OSError, ValueError, IndexError):
        return None
