"""The memory of a daemon, closed to other processes of its user: its commands are such processes.

Only a daemon does this: it changes the process for good.
"""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress

from execsrv._processes import portable_spawn
from execsrv._processes.environment import inherited_environment
from execsrv._processes.withheld import OWN_TOKEN, Withheld

_PR_SET_DUMPABLE = 4  # <linux/prctl.h>
_ENVIRONMENT_BEGINS, _ENVIRONMENT_ENDS = 49, 50
"""Fields of /proc/PID/stat, counted from 0: `env_start` and `env_end` of proc(5)."""

_SCORE = "/proc/self/oom_score_adj"

_libc = ctypes.CDLL(None)


def close_memory(withheld: Withheld, *, allow_debugging: bool) -> None:
    """Wipe withheld variables out of /proc/PID/environ and, unless debugging is allowed, let only root read our memory.

    Python's `os.environ` has them still: for HTTP requests, and for the policy itself.
    """
    inherited_environment()  # it looks into /proc/self/environ, which is closed to ourselves too afterwards
    secret = {os.fsencode(name) for name, value in os.environ.items() if withheld.covers(name, value)}
    secret |= {OWN_TOKEN.encode()} & {os.fsencode(name) for name in os.environ}
    if secret:
        for name in secret:
            os.unsetenv(name)
        _wipe(secret)
    if not allow_debugging:
        with suppress(OSError):  # without /proc nobody has a score
            portable_spawn.own_score = os.open(_SCORE, os.O_RDWR | os.O_CLOEXEC)
        _libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
        if portable_spawn.own_score is not None and os.access(_SCORE, os.W_OK):  # we are root, and so are children
            os.close(portable_spawn.own_score)
            portable_spawn.own_score = None


def _wipe(names: set[bytes]) -> None:
    """Overwrite variables in the block that the kernel gave this process at its start."""
    try:
        with open("/proc/self/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        begin, end = (int(fields[place - 2]) for place in (_ENVIRONMENT_BEGINS, _ENVIRONMENT_ENDS))
    except (OSError, ValueError, IndexError):
        return  # without /proc nobody reads it there
    if not 0 < begin < end:
        return
    address = begin
    for entry in ctypes.string_at(begin, end - begin).split(b"\0"):
        if entry.partition(b"=")[0] in names:
            ctypes.memset(address, 0, len(entry))
        address += len(entry) + 1
