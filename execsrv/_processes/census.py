"""Walking the process table so that nothing can hide in it by forking and exiting while it is read.

A listing of `/proc` is not one instant: a process may fork behind the reader's back and end before the reader comes to
it. But the kernel gives out pids in a row and tells the last one, so those that came up meanwhile can be looked at as
well, until a look finds that none came.

Standard library only: the guardian runs this too.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator

from execsrv._processes import lineage

_FEW = 512
"""More new pids than this are better listed than asked for one by one. It also catches the row starting anew."""


def walk(session_of: Callable[[int], int | None], since: int | None = None) -> Iterator[tuple[int, int]]:
    """Every living process that belongs to a session, with that session's number.

    With `since`, only those with a later pid: for who descends from a process that was started a moment ago. What is
    yielded may be killed at once. When the walk is over, nothing belonged to a session at its last step but what was
    yielded and has forked since.
    """
    last = last_pid() if since is None else since
    pids: Iterable[int] = listed() if since is None else ()
    while True:
        for pid in pids:
            number = session_of(pid)
            if number is not None and lineage.living(pid):
                yield pid, number
        before, last = last, last_pid()
        if before == last:
            return
        pids = range(before + 1, last + 1) if before < last < before + _FEW else listed()


def listed() -> list[int]:
    """The ids of all processes, zombies too."""
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]


def last_pid() -> int:
    """The id that the kernel gave out last in our pid namespace, to a process or a thread. See proc(5), loadavg."""
    with open("/proc/loadavg", "rb") as file:
        return int(file.read().rsplit(None, 1)[1])
