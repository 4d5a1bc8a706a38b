"""The process table: single processes, their descendants, and a walk in which nothing can hide.

A pid is only a number, and may be another process's a moment later. So a signal goes through a pidfd, which names one
process for good, and only after asking, with the pidfd open, whether that number is still whom it was taken for. Where
pidfds are refused, the number is asked for the same and signalled at once. See pidfd_open(2), proc(5).

A listing of `/proc` is not one instant: a process may fork behind the reader's back and end before the reader comes to
it. But the kernel gives out pids in a row and tells the last one, so `walk` looks at those that came up meanwhile as
well, until a look finds that none came.

Without a descriptor left to look with, these functions raise `OSError`: they never take who cannot be seen for gone,
nor an error that they do not know.

A look at thousands of processes takes its time. So it is a generator of `Steps`, which yields after each process: who
has others to serve takes the steps in turns with them.

Standard library only: the guardian runs this too.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import TypeVar

from execsrv._processes import pidfd

_FEW = 512
"""More new pids than this are better listed than asked for one by one. It also catches the row starting anew."""

T = TypeVar("T")
Steps = Generator[None, None, T]
"""A look in short steps, which returns what it has found."""

Belongs = Callable[[int], bool]
"""Tells whether a number is, now, the process that it was taken for."""


def at_once(steps: Steps[T]) -> T:
    """Take all steps, and return their result."""
    while True:
        try:
            next(steps)
        except StopIteration as done:
            found: T = done.value
            return found


def living(pid: int) -> bool:
    """Tell whether a process lives. A zombie does not, nor is the id of a thread a process.

    A process whose first thread has ended, but not the others, lives, whatever its state says.
    """
    try:
        handle = pidfd.open_pidfd(pid)
    except ProcessLookupError:
        return False
    try:
        return not _has_ended(pid, handle)
    finally:
        _close(handle)


def _has_ended(pid: int, handle: int | None) -> bool:
    if handle is not None:
        return pidfd.has_ended(handle)
    if (leader := process_of(pid)) != pid:
        return leader != 0 or not _is_hidden(pid)
    return all(state(pid, int(thread)) in ("Z", "X", "") for thread in _listed(f"/proc/{pid}/task"))


def _is_hidden(pid: int) -> bool:
    """Tell whether a process that the table does not show is there and another user's."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except OSError:
        pass
    return False


def _close(handle: int | None) -> None:
    if handle is not None:
        os.close(handle)


def _check_gone(error: OSError) -> None:
    """Raise an error that does not say that a process is gone, or is not ours to look at (proc(5), hidepid)."""
    if error.errno not in (errno.ENOENT, errno.ESRCH, errno.EACCES, errno.EPERM):
        raise error


def send(pid: int, number: int, belongs: Belongs) -> bool:
    """Send a signal to a process if it lives and `belongs`. Return whether that is so, also where we may not."""
    try:
        handle = pidfd.open_pidfd(pid)
    except ProcessLookupError:
        return False
    try:
        if _has_ended(pid, handle) or not belongs(pid):
            return False
        pidfd.send_signal(pid, handle, number)
    except PermissionError:
        pass  # a set-user-id program: it lives, and that is all that can be said
    except ProcessLookupError:
        return False
    finally:
        _close(handle)
    return True


def children(pid: int) -> list[int]:
    """Return the children of a process, of all of its threads, zombies too; none when it is gone."""
    found: list[int] = []
    for thread in _listed(f"/proc/{pid}/task"):
        found += map(int, table(pid, f"task/{thread}/children").split())
    return found


def has_ended_child() -> bool:
    """Tell whether one of our own children has ended and was not reaped."""
    try:
        return os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return False


def reap_children(belongs: Belongs) -> None:
    """Reap those of our own children that have ended and belong. Others' are left to whoever waits for them."""
    for pid in filter(belongs, children(os.getpid())):
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG)


def threads(pid: int) -> list[int]:
    """Return the ids of the threads of a process; none when it is gone."""
    return [int(name) for name in _listed(f"/proc/{pid}/task")]


def _listed(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError as error:
        _check_gone(error)
        return []


def is_ours() -> bool:
    """Tell whether `/proc` is there, and that of our own pid namespace."""
    try:
        return os.readlink("/proc/self") == str(os.getpid()) and last_pid() > 0
    except (OSError, ValueError):
        return False


def children_of_thread(thread: int) -> list[int]:
    """Return the children that a thread of this process has started, oldest first, zombies too."""
    return [int(pid) for pid in table(os.getpid(), f"task/{thread}/children").split()]


def knows_children() -> bool:
    """Tell whether this kernel lists children (CONFIG_PROC_CHILDREN)."""
    try:
        with open(f"/proc/self/task/{os.getpid()}/children", "rb") as file:
            file.read()
    except OSError as error:
        if error.errno in pidfd.SHORT:
            raise
        return False
    return True


def family(roots: Iterable[int]) -> dict[int, int]:
    """Return the living among these processes and all that descends from them, each with its parent, parents first.

    A root's parent is given as 0.
    """
    return at_once(family_in_steps(roots))


def family_in_steps(roots: Iterable[int]) -> Steps[dict[int, int]]:
    """Find what `family` returns."""
    found: dict[int, int] = {}
    generation = [(root, 0) for root in roots]
    while generation:
        found |= {pid: parent for pid, parent in generation if pid not in found}
        below: list[tuple[int, int]] = []
        for pid, _ in generation:
            below += ((child, pid) for child in children(pid) if child not in found)
            yield
        generation = below
    alive: dict[int, int] = {}
    for pid, parent in found.items():
        if living(pid):
            alive[pid] = parent
        yield
    return alive


def table(pid: int, entry: str) -> bytes:
    """Read an entry of a process in the process table, proc(5); empty when it is gone, or may not be read."""
    try:
        return content(f"/proc/{pid}/{entry}")
    except OSError as error:
        _check_gone(error)
        return b""


def content(path: str) -> bytes:
    """Read a file of the process table, without what a file object looks for at its opening."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        pieces = []
        while piece := os.read(descriptor, 65536):
            pieces.append(piece)
        return b"".join(pieces)
    finally:
        os.close(descriptor)


def parent(pid: int) -> int:
    """Return the parent of a process, 0 when it is gone or has none."""
    fields = table(pid, "stat").rpartition(b")")[2].split()
    return int(fields[1]) if fields else 0


def group(pid: int) -> int:
    """Return the process group of a process, 0 when it is gone."""
    try:
        return os.getpgid(pid)
    except OSError:
        return 0


def state(pid: int, thread: int | None = None) -> str:
    """Return the state of a process's first thread, or of another: one letter of proc(5), empty when it is gone."""
    fields = table(pid, f"task/{thread or pid}/stat").rpartition(b")")[2].split()
    return fields[0].decode() if fields else ""


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
    return (found for found in walk_in_steps(session_of, since) if found is not None)


def walk_in_steps(
    session_of: Callable[[int], int | None], since: int | None = None
) -> Generator[tuple[int, int] | None, None, int]:
    """Walk as `walk` does, and yield None for every process that belongs to none. Return the last pid of all."""
    last = last_pid() if since is None else since
    pids: Iterable[int] = listed() if since is None else ()
    while True:
        for pid in pids:
            number = session_of(pid)
            yield (pid, number) if number is not None and living(pid) else None
        before, last = last, last_pid()
        if before == last:
            return last
        pids = range(before + 1, last + 1) if before < last < before + _FEW else listed()


def listed() -> list[int]:
    """Return the ids of all processes, zombies too."""
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]


def last_pid() -> int:
    """Return the id that the kernel gave out last in our pid namespace, to a process or a thread (proc(5), loadavg)."""
    return int(content("/proc/loadavg").rsplit(None, 1)[1])
