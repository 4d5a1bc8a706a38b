"""When a file was made, by statx(2): Linux knows, and the standard library does not pass it on.

Where the C library lacks the call, it is not known. Constants and layout: <linux/stat.h>.
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
    """When the file of that name was made, in nanoseconds since the epoch; 0 where the file system does not say."""
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
