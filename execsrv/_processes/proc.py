"""The process table: single processes, their descendants, and a walk in which nothing can hide.

A pid is only a number, and may be another process's a moment later. So a signal goes through a pidfd, which names one
process for good, and only after asking, with the pidfd open, whether that number is still whom it was taken for.
See pidfd_open(2), proc(5).

A listing of `/proc` is not one instant: a process may fork behind the reader's back and end before the reader comes to
it. But the kernel gives out pids in a row and tells the last one, so `walk` looks at those that came up meanwhile as
well, until a look finds that none came.

Without a descriptor left to look with, these functions raise `OSError`: they never take who cannot be seen for gone.

Standard library only: the guardian runs this too.
"""

from __future__ import annotations

import errno
import os
import select
import signal
from collections.abc import Callable, Iterable, Iterator

_FEW = 512
"""More new pids than this are better listed than asked for one by one. It also catches the row starting anew."""

Belongs = Callable[[int], bool]
"""Tells whether a number is, now, the process that it was taken for."""


def living(pid: int) -> bool:
    """Tell whether a process lives. A zombie does not, nor is the id of a thread a process.

    A process whose first thread has ended, but not the others, lives, whatever its state says.
    """
    if (pidfd := _open(pid)) is None:
        return False
    try:
        return not has_ended(pidfd)
    finally:
        os.close(pidfd)


def _open(pid: int) -> int | None:
    """Return a pidfd, None where there is no such process."""
    try:
        return os.pidfd_open(pid)
    except OSError as error:
        _check_gone(error)
        return None


def _check_gone(error: OSError) -> None:
    """Raise an error that only says that we have no means to ask, and nothing of the process."""
    if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
        raise error


def has_ended(pidfd: int) -> bool:
    """Tell whether the process that a pidfd names has ended: it is a zombie, or reaped."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


def send(pid: int, number: int, belongs: Belongs) -> bool:
    """Send a signal to a process if it lives and `belongs`. Return whether that is so, also where we may not."""
    if (pidfd := _open(pid)) is None:
        return False
    try:
        if has_ended(pidfd) or not belongs(pid):
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
    """Return the children of a process, of all of its threads, zombies too; none when it is gone."""
    found: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children", "rb") as file:
                found += map(int, file.read().split())
    except OSError as error:
        _check_gone(error)
    return found


def children_of_thread(thread: int) -> list[int]:
    """Return the children that a thread of this process has started, oldest first, zombies too."""
    return [int(pid) for pid in table(os.getpid(), f"task/{thread}/children").split()]


def knows_children() -> bool:
    """Tell whether this kernel lists children (CONFIG_PROC_CHILDREN)."""
    return os.path.exists(f"/proc/self/task/{os.getpid()}/children")


def family(roots: Iterable[int]) -> dict[int, int]:
    """Return the living among these processes and all that descends from them, each with its parent, parents first.

    A root's parent is given as 0.
    """
    found: dict[int, int] = {}
    generation = [(root, 0) for root in roots]
    while generation:
        found |= {pid: parent for pid, parent in generation if pid not in found}
        generation = [(child, pid) for pid, _ in generation for child in children(pid) if child not in found]
    return {pid: parent for pid, parent in found.items() if living(pid)}


def table(pid: int, entry: str) -> bytes:
    """Read an entry of a process in the process table, proc(5); empty when it is gone, or may not be read."""
    try:
        with open(f"/proc/{pid}/{entry}", "rb") as file:
            return file.read()
    except OSError as error:
        _check_gone(error)
        return b""


def parent(pid: int) -> int:
    """Return the parent of a process, 0 when it is gone or has none."""
    fields = table(pid, "stat").rpartition(b")")[2].split()
    return int(fields[1]) if fields else 0


def process_of(thread: int) -> int:
    """Return the process that a thread is of, 0 when it is gone."""
    lines = table(thread, "status").splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith(b"Tgid:")), 0)


def name(pid: int) -> str:
    """Return the kernel's name of a process, at most 15 characters; empty when it is gone."""
    try:
        with open(f"/proc/{pid}/comm", "rb") as file:
            return file.read().rstrip(b"\n").decode(errors="replace")
    except OSError:
        return ""


def command_line(pid: int) -> str:
    """Return the words that a process was started with, cut to 200 characters; its name where it shows none."""
    words = table(pid, "cmdline").rstrip(b"\0").replace(b"\0", b" ").decode(errors="replace")
    return f"{words[:200]}..." if len(words) > 200 else words or name(pid)


def walk(session_of: Callable[[int], int | None], since: int | None = None) -> Iterator[tuple[int, int]]:
    """Yield every living process that belongs to a session, with that session's number.

    With `since`, only those with a later pid: for who descends from a process that was started a moment ago. What is
    yielded may be killed at once. When the walk is over, nothing belonged to a session at its last step but what was
    yielded and has forked since.
    """
    last = last_pid() if since is None else since
    pids: Iterable[int] = listed() if since is None else ()
    while True:
        for pid in pids:
            number = session_of(pid)
            if number is not None and living(pid):
                yield pid, number
        before, last = last, last_pid()
        if before == last:
            return
        pids = range(before + 1, last + 1) if before < last < before + _FEW else listed()


def listed() -> list[int]:
    """Return the ids of all processes, zombies too."""
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]


def last_pid() -> int:
    """Return the id that the kernel gave out last in our pid namespace, to a process or a thread (proc(5), loadavg)."""
    with open("/proc/loadavg", "rb") as file:
        return int(file.read().rsplit(None, 1)[1])
