"""Creation times of files, by statx(2), which the standard library does not offer. Constants: <linux/stat.h>.

musl has the call since 1.2.5; with an older C library no time is known.
"""

from __future__ import annotations

import ctypes
import os
import struct

_libc = ctypes.CDLL(None)
_AT_SYMLINK_NOFOLLOW = 0x100
_STATX_BTIME = 0x800
_BTIME_OFFSET = 80


def birth_time(directory: int, name: str) -> int:
    """Return the creation time of a file, a link itself, in nanoseconds since the epoch; 0 where it is not known."""
    if not hasattr(_libc, "statx"):
        return 0
    buffer = ctypes.create_string_buffer(256)
    if _libc.statx(directory, os.fsencode(name), _AT_SYMLINK_NOFOLLOW, _STATX_BTIME, buffer):
        return 0
    (known,) = struct.unpack_from("I", buffer, 0)
    if not known & _STATX_BTIME:
        return 0
    seconds, nanoseconds = struct.unpack_from("qI", buffer, _BTIME_OFFSET)
    return int(seconds * 1_000_000_000 + nanoseconds)
