"""A mark that nothing sheds by accident: which server, and which of its sessions, a process descends from.

The mark is the soft value of a resource limit that has no effect: a huge number. Everything that a process forks
inherits it, through exec, setsid, a double fork and an emptied environment, and anybody may read it. Only a process
that sets that very limit for itself loses it.

A server marks `RLIMIT_RTTIME` (it concerns real-time scheduling alone, see getrlimit(2)). A server that carries such a
mark itself, because it runs inside another server's session, marks `RLIMIT_LOCKS` instead, which Linux has ignored
since 2.4.25: so its processes keep the mark of the outermost session beside its own.

Where a machine refuses `prlimit64`, by which the C library does all of it, the older `setrlimit` sets our own mark, and
the process table tells that of others. Nobody can then be marked from outside.

Standard library only: the guardian runs this too.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from execsrv._processes import pidfd, proc

RTTIME = resource.RLIMIT_RTTIME
LOCKS = 10  # RLIMIT_LOCKS, which the standard library does not name

_LINES = {RTTIME: b"Max realtime timeout", LOCKS: b"Max file locks"}
_SERVER_BITS, SESSION_BITS = 31, 21
_MAGIC = 0x6E5 << (_SERVER_BITS + SESSION_BITS)  # eleven bits, the highest of them set: above any real limit
_MAGIC_MASK = 0x7FF << (_SERVER_BITS + SESSION_BITS)


class Mark(NamedTuple):
    """The mark of one session: a limit, and the value in it."""

    slot: int
    value: int

    @contextmanager
    def carried(self) -> Iterator[None]:
        """Carry it ourselves, so that a child has it from its first instant. The block must not await."""
        soft, hard = own_limit(self.slot)
        set_own_limit(self.slot, self.value, hard)
        try:
            yield
        finally:
            set_own_limit(self.slot, soft, hard)

    def is_on(self, pid: int) -> bool:
        """Tell whether a process has this mark. A zombie still has it."""
        return read(pid, self.slot) == self.value

    def put(self, pid: int) -> None:
        """Mark a child that runs already; what it has forked before stays unmarked.

        Nothing happens to a process that is gone, or not ours.
        """
        try:
            resource.prlimit(pid, self.slot, (self.value, resource.prlimit(pid, self.slot)[1]))
        except OSError:
            pass


class ServerMark(NamedTuple):
    """The part that all marks of one server share: the limit that holds them, and the server's own number."""

    slot: int
    server: int

    def of(self, session: int) -> Mark:
        """Return the mark of a session, by its number from 0 to 2**21 - 1."""
        return Mark(self.slot, _MAGIC | self.server << SESSION_BITS | session)

    def session_of(self, pid: int) -> int | None:
        """Return the number of this server's session that a process has in its mark, None where it has no such mark.

        A zombie still carries it. A thread's id answers for its process.
        """
        value = read(pid, self.slot)
        ours = value >> SESSION_BITS == _MAGIC >> SESSION_BITS | self.server
        return value & (1 << SESSION_BITS) - 1 if ours else None


def new_server_mark(*, puts: bool = False) -> ServerMark | None:
    """Return a mark for a new server in this process, None where the limits have no room for it, or are refused.

    One that `puts` it on its children, rather than carry it for them, needs more of the machine. It is tried, with the
    limit as it is.
    """
    for slot in (RTTIME, LOCKS):
        try:
            soft, hard = own_limit(slot)
            if puts:
                resource.prlimit(os.getpid(), slot, (soft, hard))
            else:
                set_own_limit(slot, soft, hard)
        except (OSError, ValueError):
            continue
        roomy = hard == resource.RLIM_INFINITY or hard >= _MAGIC | _MAGIC - 1
        if roomy and read(os.getpid(), slot) == soft and (slot == LOCKS or not is_mark(soft)):
            return ServerMark(slot, int.from_bytes(os.urandom(4), "big") >> 1)
    return None


def own_limit(slot: int) -> tuple[int, int]:
    """Return the soft and the hard value of a limit of this process. Raises `OSError` where it cannot be read."""
    try:
        return resource.getrlimit(slot)
    except OSError:
        if (found := _from_table(os.getpid(), slot)) is None:
            raise
        return found


def set_own_limit(slot: int, soft: int, hard: int) -> None:
    """Set a limit of this process. Raises `OSError`."""
    try:
        resource.setrlimit(slot, (soft, hard))
    except (OSError, ValueError):  # a ValueError is how the standard library tells EPERM
        import ctypes  # seldom needed, and never by the guardian

        # The call that the C library made before there was prlimit64 (<asm/unistd.h>).
        call = 160 if os.uname().machine == "x86_64" else 164
        values = (ctypes.c_uint64 * 2)(*(value & 2**64 - 1 for value in (soft, hard)))
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.syscall(ctypes.c_long(call), ctypes.c_long(slot), values) < 0:
            raise OSError(number := ctypes.get_errno(), os.strerror(number)) from None


def refusal() -> int:
    """Return the errno with which this machine refuses `prlimit64`, 0 where it works."""
    return pidfd.refusal(lambda: resource.prlimit(os.getpid(), RTTIME))


def is_mark(value: int) -> bool:
    """Tell whether a limit's value is a mark of some server."""
    return value & _MAGIC_MASK == _MAGIC and value >= _MAGIC


def read(pid: int, slot: int) -> int:
    """Return the value that a process has in a limit, 0 when it is gone."""
    try:
        soft: int = resource.prlimit(pid, slot)[0]
        return soft
    except ProcessLookupError:
        return 0
    except OSError:  # another user's, a set-user-id program, or refused to everybody
        return (_from_table(pid, slot) or (0, 0))[0]


def _from_table(pid: int, slot: int) -> tuple[int, int] | None:
    """Return the soft and the hard value of a limit of a process by the process table, None when it is not there."""
    for line in proc.table(pid, "limits").splitlines():
        if line.startswith(_LINES[slot]):
            soft, hard = line[len(_LINES[slot]) :].split()[:2]
            return _value(soft), _value(hard)
    return None


def _value(text: bytes) -> int:
    return int(text) if text.isdigit() else resource.RLIM_INFINITY
