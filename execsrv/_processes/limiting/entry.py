"""The way of a command into its limits: between fork and exec, so that no line of its program runs without them."""

from __future__ import annotations

import mmap
import os
import resource
import struct
from pathlib import Path
from typing import NamedTuple

from execsrv._processes.pidfd import SHORT
from execsrv.errors import LimitUnavailableError
from execsrv.protocol.process_limits import ProcessLimits

_STEP = struct.Struct("<II")


class Rlimit(NamedTuple):
    """A limit of each process: which, and its soft and hard value. See getrlimit(2)."""

    slot: int
    soft: int
    hard: int


def rlimits(limits: ProcessLimits) -> list[Rlimit]:
    """Return the limits of each process, none of them higher than our own. Those come last that the others may need."""
    found = []
    for slot, value, more in (
        (resource.RLIMIT_CPU, limits.cpu_seconds, 1),
        (resource.RLIMIT_FSIZE, limits.file_bytes, 0),
        (resource.RLIMIT_CORE, limits.core_bytes, 0),
        (resource.RLIMIT_NOFILE, limits.open_files, 0),
        (resource.RLIMIT_AS, limits.address_space_bytes, 0),
    ):
        if value is not None:
            most = resource.getrlimit(slot)[1]
            soft, hard = value, value + more
            if most != resource.RLIM_INFINITY:
                soft, hard = min(soft, most), min(hard, most)
            found.append(Rlimit(slot, soft, hard))
    return found


class Entry:
    """The way in for one child, which inherits it. A step that fails is told through memory that both have.

    Its doors are opened by us: the child may be another user's by then. Whoever makes it calls `close` in the end.
    """

    def __init__(self, doors: list[Path], rlimits: list[Rlimit]) -> None:
        """Raises `LimitUnavailableError` for a door that cannot be opened, and `OSError` for want of descriptors."""
        self._doors = doors
        self._rlimits = rlimits
        self._failed = mmap.mmap(-1, _STEP.size)
        self._open: list[int] = []
        for door in doors:
            try:
                self._open.append(os.open(door, os.O_WRONLY | os.O_CLOEXEC))
            except OSError as error:
                self.close()
                if error.errno in SHORT:
                    raise
                raise not_entered(door, error.errno or 0) from None

    def step_in(self) -> None:
        """Have the limits from here on. Called by the child. Raises `OSError`, after which `check` says more."""
        for place, door in enumerate(self._open):
            try:
                os.write(door, b"0")
            except OSError as error:
                self._failed[:] = _STEP.pack(place, error.errno or 0)
                raise
        for limit in self._rlimits:
            resource.setrlimit(limit.slot, (limit.soft, limit.hard))

    def check(self) -> None:
        """Raise `LimitUnavailableError` where the child was not let in."""
        place, number = _STEP.unpack(self._failed[:])
        if number:
            raise not_entered(self._doors[place], number)

    def close(self) -> None:
        """Close the way in."""
        self._failed.close()
        for door in self._open:
            os.close(door)
        self._open = []


def not_entered(door: Path, number: int) -> LimitUnavailableError:
    """Return the error of a command that was not let into a group."""
    return unavailable("limits", f"write 0 to {door}", number, "the right to move a process there")


def unavailable(field: str, step: str, number: int, need: str) -> LimitUnavailableError:
    """Return the error of a limit that cannot be kept."""
    message = f"cannot keep {field}: {step}: {os.strerror(number)} (os error {number}); it needs {need}"
    return LimitUnavailableError(message, field=field, step=step, errno=number, need=need)
