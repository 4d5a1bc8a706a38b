"""Single processes, and who descends from whom, by the kernel's own lists. Never a signal to a recycled pid.

A pid is only a number, and may be another process's a moment later. So a signal goes through a pidfd, which names one
process for good, and only after asking, with the pidfd open, whether that number is still whom it was taken for.
See pidfd_open(2), proc(5).

Without a descriptor left to look with, these functions raise `OSError`: they never take who cannot be seen for gone.

Standard library only: the guardian runs this too.
"""

from __future__ import annotations

import errno
import os
import select
import signal
from collections.abc import Callable, Iterable

Belongs = Callable[[int], bool]
"""Whether a number is, now, the process that it was taken for."""


def living(pid: int) -> bool:
    """Whether this process lives. A zombie does not, nor is the id of a thread a process.

    A process whose first thread has ended, but not the others, lives, whatever its state says.
    """
    if (pidfd := _open(pid)) is None:
        return False
    try:
        return not _ended(pidfd)
    finally:
        os.close(pidfd)


def _open(pid: int) -> int | None:
    """A pidfd, None where there is no such process."""
    try:
        return os.pidfd_open(pid)
    except OSError as error:
        _check_gone(error)
        return None


def _check_gone(error: OSError) -> None:
    """Raise an error that says nothing of the process that was asked for, but that we cannot ask any more."""
    if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
        raise error


def _ended(pidfd: int) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


def send(pid: int, number: int, belongs: Belongs) -> bool:
    """Send a signal to a process, if it lives and `belongs`; whether it does, also where we may not signal it."""
    if (pidfd := _open(pid)) is None:
        return False
    try:
        if _ended(pidfd) or not belongs(pid):
            return False
        signal.pidfd_send_signal(pidfd, number)
    except PermissionError:
        pass  # a set-user-id program: it lives, and that is all that can be said
    except ProcessLookupError:
        return False
    finally:
        os.close(pidfd)
    return True


def children(pid: int) -> list[int]:
    """The children of a process, of all of its threads, zombies too; none when it is gone."""
    found: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children", "rb") as file:
                found += map(int, file.read().split())
    except OSError as error:
        _check_gone(error)
    return found


def knows_children() -> bool:
    """Whether this kernel lists them (CONFIG_PROC_CHILDREN)."""
    return os.path.exists(f"/proc/self/task/{os.getpid()}/children")


def family(roots: Iterable[int]) -> dict[int, int]:
    """The living among these processes and all that descends from them, parents first: each with its parent.

    A root's parent is given as 0.
    """
    found: dict[int, int] = {}
    generation = [(root, 0) for root in roots]
    while generation:
        found |= {pid: parent for pid, parent in generation if pid not in found}
        generation = [(child, pid) for pid, _ in generation for child in children(pid) if child not in found]
    return {pid: parent for pid, parent in found.items() if living(pid)}


def table(pid: int, entry: str) -> bytes:
    """What the process table says of a process, see proc(5); empty when it is gone, or may not be read."""
    try:
        with open(f"/proc/{pid}/{entry}", "rb") as file:
            return file.read()
    except OSError as error:
        _check_gone(error)
        return b""


def parent(pid: int) -> int:
    """The parent of a process, 0 when it is gone or has none."""
    fields = table(pid, "stat").rpartition(b")")[2].split()
    return int(fields[1]) if fields else 0


def process_of(thread: int) -> int:
    """The process that a thread is of, 0 when it is gone."""
    lines = table(thread, "status").splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith(b"Tgid:")), 0)


def name(pid: int) -> str:
    """What the kernel calls a process, at most 15 characters; empty when it is gone."""
    try:
        with open(f"/proc/{pid}/comm", "rb") as file:
            return file.read().rstrip(b"\n").decode(errors="replace")
    except OSError:
        return ""
