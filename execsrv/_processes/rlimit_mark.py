"""A mark that nothing sheds by accident: which server, and which of its sessions, a process descends from.

The mark is the soft value of a resource limit that has no effect: a huge number. Everything that a process forks
inherits it, through exec, setsid, a double fork and an emptied environment, and anybody may read it. Only a process
that sets that very limit for itself loses it.

A server marks `RLIMIT_RTTIME` (it concerns real-time scheduling alone, see getrlimit(2)). A server that carries such a
mark itself, because it runs inside another server's session, marks `RLIMIT_LOCKS` instead, which Linux has ignored
since 2.4.25: so its processes keep the mark of the outermost session beside its own.

Standard library only: the guardian runs this too.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass

from execsrv._processes import proc

RTTIME = resource.RLIMIT_RTTIME
LOCKS = 10  # RLIMIT_LOCKS, which the standard library does not name

_LINES = {RTTIME: b"Max realtime timeout", LOCKS: b"Max file locks"}
_SERVER_BITS, SESSION_BITS = 31, 21
_MAGIC = 0x6E5 << (_SERVER_BITS + SESSION_BITS)  # eleven bits, the highest of them set: above any real limit
_MAGIC_MASK = 0x7FF << (_SERVER_BITS + SESSION_BITS)


Limits = tuple[tuple[int, int], ...]
"""Resource limits, each with the soft value that a command is to have."""


@dataclass(frozen=True, slots=True)
class Mark:
    """The mark of one session: a limit, and the value in it."""

    slot: int
    value: int

    def carried(self) -> AbstractContextManager[None]:
        """Carry it ourselves, so that a child has it from its first instant. The block must not await."""
        return carried(((self.slot, self.value),))

    def put(self, pid: int) -> None:
        """Mark a child that runs already; what it has forked before stays unmarked.

        Nothing happens to a process that is gone, or not ours.
        """
        try:
            resource.prlimit(pid, self.slot, (self.value, resource.prlimit(pid, self.slot)[1]))
        except OSError:
            pass


@contextmanager
def carried(limits: Limits) -> Iterator[None]:
    """Have these limits ourselves, so that a child has them from its first instant. The block must not await."""
    with ExitStack() as stack:
        for slot, value in limits:
            soft, hard = resource.getrlimit(slot)
            resource.setrlimit(slot, (value, hard))
            stack.callback(resource.setrlimit, slot, (soft, hard))
        yield


@dataclass(frozen=True, slots=True)
class ServerMark:
    """The part that all marks of one server share: the limit that holds them, and the server's own number."""

    slot: int
    server: int

    def of(self, session: int) -> Mark:
        """Return the mark of a session, by its number from 0 to 2**21 - 1."""
        return Mark(self.slot, _MAGIC | self.server << SESSION_BITS | session)

    def session_of(self, pid: int) -> int | None:
        """Return the number of this server's session that a process descends from, None where it has no such mark.

        A zombie still carries it. A thread's id answers for its process.
        """
        value = read(pid, self.slot)
        ours = value >> SESSION_BITS == _MAGIC >> SESSION_BITS | self.server
        return value & (1 << SESSION_BITS) - 1 if ours else None


def new_server_mark() -> ServerMark | None:
    """Return a mark for a new server in this process, None where the limits have no room for it."""
    for slot in (RTTIME, LOCKS):
        soft, hard = resource.getrlimit(slot)
        roomy = hard == resource.RLIM_INFINITY or hard >= _MAGIC | _MAGIC - 1
        if roomy and (slot == LOCKS or not is_mark(soft)):
            return ServerMark(slot, int.from_bytes(os.urandom(4), "big") >> 1)
    return None


def is_mark(value: int) -> bool:
    """Tell whether a limit's value is a mark of some server."""
    return value & _MAGIC_MASK == _MAGIC and value >= _MAGIC


def read(pid: int, slot: int) -> int:
    """Return the value that a process has in a limit, 0 when it is gone."""
    try:
        soft: int = resource.prlimit(pid, slot)[0]
        return soft
    except PermissionError:
        return _read_from_table(pid, slot)  # another user's, or a set-user-id program
    except OSError:
        return 0


def _read_from_table(pid: int, slot: int) -> int:
    for line in proc.table(pid, "limits").splitlines():
        if line.startswith(_LINES[slot]):
            value = line[len(_LINES[slot]) :].split()[0]
            return int(value) if value.isdigit() else 0
    return 0
