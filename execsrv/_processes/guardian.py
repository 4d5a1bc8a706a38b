"""The guardian: a small process that outlives the server by the moment it takes to end what the server has started.

It waits for the end of its stdin, a pipe that the server holds, or of the server itself, however that came about. Then
it kills what carries the server's mark or is in the server's control group, until nothing is left, and ends. On its
stdout it says when it is ready, and answers each beat of the server, so that the server notices when it is stopped.
Nothing but SIGKILL and SIGSTOP disturbs it, and the server continues or replaces it then.

Where it was asked to, it does the same when it has not heard the server for long, but leaves the server itself alone:
should that go on, it sees the ends of its sessions as any others, and is told why.

Run as a script, by `python -I -S`, with the standard library alone; `guard` starts it.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

PATIENCE_SECONDS = 60.0
"""Time for which it goes on where a process cannot be killed: the kernel is busy with it, or it is another user's."""

SILENCE = b"!"
"""Word that it says when it has ended the sessions of a server that was silent."""

_SILENT_ROUND_SECONDS = 1.0
"""Time for which it kills at once in that case: what is left then has its turn when the server stays silent."""

_TICK_SECONDS = 0.25
"""It listens no longer at a time, and counts no more than that of it: if it took longer, we were stopped ourselves."""

_ROUND_SECONDS = 0.1
_PAUSE_SECONDS = 0.002


def main(server: int, slot: int, number: int, cgroups: bool, patience: float) -> None:
    """Guard the server with this pid and this mark; with `cgroups`, in a control group where there is one to be had.

    Its sessions end when it has been silent for `patience` seconds, unless that is 0.
    """
    from execsrv._processes import proc
    from execsrv._processes.proc import walk
    from execsrv._processes.rlimit_mark import ServerMark

    for ignored in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM):
        signal.signal(ignored, signal.SIG_IGN)
    mark = ServerMark(slot, number)

    answer()
    from execsrv._processes import cgroup  # not before, for its imports take as long as all the rest

    group = cgroup.make(cgroup.server_name(server, number)) if cgroups else None
    if group and cgroup.hands_on(group.parent):
        cgroup.step_aside(group)
    if group and os.getppid() == server and cgroup.enter(group, server):
        for pid, _ in walk(mark.session_of):  # what it has started before
            if wait_end(server, 0):
                break
            if cgroup.folder_of(pid) == group.parent:  # who has limits is where those hold
                cgroup.enter(group, pid)

    def groups() -> list[Path]:
        return cgroup.with_limits(group) if group else []

    def kill(seconds: float, spared: int) -> None:
        """Kill the sessions, for that long if need be. The server is none of them, whatever it carries for a start.

        Where it is `spared` in their control group too, it goes on, and reaps nobody.
        """

        def session_of(pid: int) -> int | None:
            return None if pid == server == os.getppid() else mark.session_of(pid)

        def carries(pid: int) -> bool:
            return session_of(pid) is not None

        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for pid, _ in walk(session_of):  # or a shell whose child was killed would go on with its next command
                proc.send(pid, signal.SIGSTOP, carries)
            left = [proc.send(pid, signal.SIGKILL, carries) for pid, _ in walk(session_of)]
            if spared:  # the dead stay where they are
                emptied = [cgroup.kill_others(each, spared) for each in groups()]
                left = [lives for lives in left if lives]
            else:
                emptied = [cgroup.kill(each, _ROUND_SECONDS) for each in groups()]
            if all(emptied) and not left:
                break
            time.sleep(_PAUSE_SECONDS)

    while not wait_end(server, patience or None):
        kill(_SILENT_ROUND_SECONDS, server)
        answer(SILENCE)

    spared = 0
    if group and os.getppid() == server and not cgroup.step_out(group, server):
        spared = server  # an orderly end: it only lets go
    kill(PATIENCE_SECONDS, spared)
    cgroup.remove_limits(server, number)
    if group:
        cgroup.leave(group)


def answer(words: bytes = b"\n") -> None:
    """Tell the server that we are there. Where it does not listen any more, we shall hear of its end."""
    try:
        os.write(1, words)
    except OSError:
        pass


def wait_end(server: int, patience: float | None = None) -> bool:
    """Wait until stdin or the server, our parent, has ended, and answer beats. Return whether one has.

    With `patience`, wait no longer than until no beat has come for so many seconds, in which we were awake ourselves.
    """
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
        silent = 0.0
        # Not our parent any more: it had ended before, and the pid may be another's.
        while os.getppid() == server:
            began = time.monotonic()
            tick = None if patience is None else min(_TICK_SECONDS, patience - silent)
            ready = [descriptor for descriptor, _ in poll.poll(None if tick is None else 1000 * tick)]
            if not ready and patience is not None:
                silent += min(time.monotonic() - began, _TICK_SECONDS)
                if silent >= patience:
                    return False
            elif 0 not in ready or not os.read(0, 4096):
                return True
            else:
                answer()
                silent = 0.0
        return True
    finally:
        if pidfd is not None:
            os.close(pidfd)


if __name__ == "__main__":
    # The package's own __init__ is left out: it would bring in all of the server.
    package = ModuleType("execsrv")
    package.__path__ = [os.path.dirname(os.path.dirname(os.path.abspath(__file__)))]
    sys.modules["execsrv"] = package
    main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "1", float(sys.argv[5]))
