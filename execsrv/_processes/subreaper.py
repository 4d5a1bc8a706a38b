"""The strays of our sessions, where this process is a child subreaper or PID 1: they become our children.

A process whose parent has ended is given to the nearest living ancestor that is a subreaper (prctl(2)). So once the
leader of a session has ended, whoever is left of the session has us, or one of our children, as ancestor, whatever it
did: one look at our own children proves that a session is empty. And our list of children can only shrink by our own
reaping, so the look misses nobody.

Never reaps a child that other code of this program has started: such a child carries no mark of ours.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from execsrv._processes import proc

_SET_CHILD_SUBREAPER, _GET_CHILD_SUBREAPER = 36, 37  # <linux/prctl.h>


def available() -> bool:
    """Whether this kernel has subreapers and lists children."""
    return proc.knows_children() and _subreaper() is not None


@contextmanager
def subreaping() -> Iterator[None]:
    """Be a subreaper as long as the block lasts."""
    before = _subreaper() or 0
    _prctl(_SET_CHILD_SUBREAPER, 1)
    try:
        yield
    finally:
        _prctl(_SET_CHILD_SUBREAPER, before)


def _subreaper() -> int | None:
    value = ctypes.c_int()
    return value.value if _prctl(_GET_CHILD_SUBREAPER, ctypes.addressof(value)) == 0 else None


def _prctl(option: int, value: int) -> int:
    libc = ctypes.CDLL(None)
    return int(libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0)) if hasattr(libc, "prctl") else -1


class Strays:
    """Our children that we did not start. `known` are those that somebody owns: leaders, the guardian."""

    def __init__(self, known: Mapping[int, object], session_of: Callable[[int], int | None], *, sole: bool) -> None:
        """`sole`: no other code of this process has children, so all of them are ours to reap."""
        self._known = known
        self._session_of = session_of
        self._sole = sole
        self._owner: dict[int, int | None] = {}  # a child's pid is its own until we reap it
        self._children = os.open(f"/proc/self/task/{os.getpid()}/children", os.O_RDONLY | os.O_CLOEXEC)

    def close(self) -> None:
        os.close(self._children)

    def of(self, number: int | None) -> list[int]:
        """The living strays that belong to a session, or to none that we know. Reaps the dead ones that it meets.

        What has ended may have left a child that became ours after the look: so it looks again.
        """
        while True:
            found = [pid for pid, owner in self._look().items() if owner == number]
            if not sum(self._reap(pid) for pid in found):
                return found

    def __contains__(self, pid: int) -> bool:
        """Whether this is a stray that was seen and not reaped, so that its pid cannot be another's."""
        return pid in self._owner

    def unattributed(self) -> list[int]:
        """The living strays of nobody knows which session: they have changed the limit that held their mark.

        Only where no other code has children; and as PID 1 they may well be strangers.
        """
        if not self._sole or os.getpid() == 1:
            return []
        return self.of(None)

    def reap(self) -> None:
        """Reap all strays that have ended."""
        for pid, owner in list(self._look().items()):
            if owner is not None or self._sole:
                self._reap(pid)

    def _look(self) -> dict[int, int | None]:
        """All strays, dead or alive, each with the number of its session."""
        pids = [int(pid) for pid in self._read().split()]
        before, known = self._owner, self._known
        self._owner = {pid: before[pid] if pid in before else self._session_of(pid) for pid in pids if pid not in known}
        return self._owner

    def _read(self) -> bytes:
        text = b""
        while piece := os.pread(self._children, 65536, len(text)):
            text += piece
        return text

    def _reap(self, pid: int) -> bool:
        """Whether it had ended; it is gone then."""
        try:
            ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG) is not None
        except ChildProcessError:
            ended = True
        if ended:
            self._owner.pop(pid, None)
        return ended
