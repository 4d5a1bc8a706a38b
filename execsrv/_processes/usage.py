"""Processor time and memory of processes, as proc(5) tells it."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterable
from typing import NamedTuple

from execsrv._processes import proc

_USER_TIME = 11
"""The first field with a time in /proc/PID/stat, behind the name. The other times are the three behind it."""

_RESIDENT = 1
"""The field of /proc/PID/statm, which Linux counts out. That of /proc/PID/stat is often 0 for a process that is new."""

_TICKS = os.sysconf("SC_CLK_TCK")


class Usage(NamedTuple):
    """Processor time in milliseconds, with that of children that were waited for, and bytes of memory in use."""

    cpu_ms: int = 0
    memory_bytes: int = 0


def usage_of(pids: Iterable[int]) -> Usage:
    """Return what some processes take together. Those that are gone count nothing."""
    ticks = pages = 0
    for pid in pids:
        fields = proc.table(pid, "stat").rpartition(b")")[2].split()
        ticks += sum(map(int, fields[_USER_TIME : _USER_TIME + 4]))
        memory = proc.table(pid, "statm").split()
        pages += int(memory[_RESIDENT]) if memory else 0
    return Usage(ticks * 1000 // _TICKS, pages * resource.getpagesize())


def used_by(past: resource.struct_rusage | None) -> Usage:
    """Return what a process has taken that is gone, and those whose end it has waited for."""
    return Usage() if past is None else Usage(int((past.ru_utime + past.ru_stime) * 1000))
