"""Whether the board's clock is right.

A Pi has no battery for its clock: after a power cut it is behind until a time server has answered. What a
wrong clock decided is decided anew once it is right, and nothing is deleted for its age before
(housekeeping.py).
"""

from __future__ import annotations

import ctypes
import platform
import struct

# adjtimex(2) by its number: the C library asks by another call, which a container may not make.
_CALLS = {"x86_64": 159, "aarch64": 171}
# struct timex begins so: modes, offset, freq, maxerror. The kernel raises maxerror to 16 s while nobody
# disciplines the clock, which is how systemd tells, too.
_TIMEX, _TIMEX_BYTES = struct.Struct("@Iqqq"), 208
_MAX_ERROR_US = 16_000_000


def synchronised(*, trusted: bool = False) -> bool:
    """Whether the clock is right: the kernel knows of a time server, or the owner says so (`trusted`)."""
    return trusted or kernel_synchronised()


def kernel_synchronised() -> bool:
    """Whether the kernel's clock is being kept right; True where it does not tell."""
    number = _CALLS.get(platform.machine())
    timex = ctypes.create_string_buffer(_TIMEX_BYTES)
    if number is None or ctypes.CDLL(None).syscall(number, timex) < 0:
        return True
    *_, max_error = _TIMEX.unpack_from(timex.raw)
    return bool(max_error < _MAX_ERROR_US)
