"""The guardian: a small process that outlives the server by the moment it takes to end what the server has started.

It waits for the end of its stdin, a pipe that the server holds, or of the server itself, however that came about. Then
it kills what carries the server's mark or is in the server's control group, until nothing is left, and ends. On its
stdout it says when it is ready, and answers each beat of the server, so that the server notices when it is stopped.
Nothing but SIGKILL and SIGSTOP disturbs it, and the server continues or replaces it then.

Run as a script, by `python -I -S`, with the standard library alone; `guard` starts it.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from types import ModuleType

PATIENCE_SECONDS = 60.0
"""How long it goes on where a process cannot be killed: the kernel is busy with it, or it is another user's."""

_ROUND_SECONDS = 0.1
_PAUSE_SECONDS = 0.002


def main(server: int, slot: int, number: int, cgroups: bool) -> None:
    """Guard the server with this pid and this mark; with `cgroups`, in a control group where there is one to be had."""
    from execsrv._processes import proc
    from execsrv._processes.proc import walk
    from execsrv._processes.rlimit_mark import ServerMark

    for ignored in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM):
        signal.signal(ignored, signal.SIG_IGN)
    mark = ServerMark(slot, number)

    def carries(pid: int) -> bool:
        return mark.session_of(pid) is not None

    answer()
    from execsrv._processes import cgroup  # not before, for its imports take as long as all the rest

    group = cgroup.make(f"{server}-{number:x}") if cgroups else None
    if group and os.getppid() == server and cgroup.enter(group, server):
        for pid, _ in walk(mark.session_of):  # what it has started before
            if wait_end(server, 0):
                break
            cgroup.enter(group, pid)
    wait_end(server)

    if group and os.getppid() == server:
        cgroup.enter(group.parent, server)  # an orderly end: it only lets go
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        for pid, _ in walk(mark.session_of):  # or a shell whose child was killed would go on with its next command
            proc.send(pid, signal.SIGSTOP, carries)
        left = [proc.send(pid, signal.SIGKILL, carries) for pid, _ in walk(mark.session_of)]
        if (not group or cgroup.kill(group, _ROUND_SECONDS)) and not left:
            break
        time.sleep(_PAUSE_SECONDS)
    if group:
        cgroup.remove(group)


def answer() -> None:
    """Tell the server that we are there. Where it does not listen any more, we shall hear of its end."""
    try:
        os.write(1, b"\n")
    except OSError:
        pass


def wait_end(server: int, milliseconds: int | None = None) -> bool:
    """Wait until stdin or the server, our parent, has ended, and answer beats. Return whether one has."""
    from execsrv._processes.pidfd import open_pidfd

    poll = select.poll()
    poll.register(0, select.POLLIN | select.POLLHUP)
    try:
        pidfd = open_pidfd(server)
    except ProcessLookupError:
        return True
    try:
        if pidfd is not None:
            poll.register(pidfd, select.POLLIN)
        # Not our parent any more: it had ended before, and the pid may be another's.
        while os.getppid() == server:
            ready = [descriptor for descriptor, _ in poll.poll(milliseconds)]
            if not ready:
                return False
            if 0 not in ready or not os.read(0, 4096):
                return True
            answer()
        return True
    finally:
        if pidfd is not None:
            os.close(pidfd)


if __name__ == "__main__":
    # The package's own __init__ is left out: it would bring in all of the server.
    package = ModuleType("execsrv")
    package.__path__ = [os.path.dirname(os.path.dirname(os.path.abspath(__file__)))]
    sys.modules["execsrv"] = package
    main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "1")
