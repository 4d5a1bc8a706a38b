"""The server's side of the guardian: starting it, replacing it when it was killed, and letting it go in the end."""

from __future__ import annotations

import logging
import os
import sys

import trio

from execsrv._processes import guardian, spawn
from execsrv._processes.command import Command
from execsrv._processes.finders import Register
from execsrv._processes.marks import ServerMark

log = logging.getLogger(__name__)

RESTART_SECONDS = 0.5
"""A guardian that could not live this long is replaced only after as long: something is wrong with it."""

OF_NO_SESSION = -1
"""The guardian is a child that somebody owns, and leads a session of its own, but none that the keeper has started."""

LEAVE_SECONDS = 2.0
"""How long a guardian may take to make sure that nothing is left, at an orderly end. Then it goes on alone."""


def possible() -> bool:
    """Whether there is an interpreter to run it: not so in a program that was frozen into one file."""
    return bool(sys.executable) and not hasattr(sys, "frozen") and hasattr(os, "pidfd_open")


async def guard(register: Register, cgroups: bool) -> None:
    """From the first command on, keep a guardian running until cancelled; then let it finish, and reap it.

    With `cgroups` it moves this process into a control group, if there is one to be had.
    """
    mark, leaders = register.mark, register.leaders
    assert mark is not None
    # Not earlier: half of the time that a server takes to start would go into it.
    await register.used.wait()
    while True:
        reader, writer = os.pipe()
        try:
            pid = _start(mark, cgroups, reader)
        except OSError as error:
            os.close(writer)
            log.error("cannot start the guardian: %s", error)
            return
        finally:
            os.close(reader)
        leaders[pid] = OF_NO_SESSION
        pidfd = os.pidfd_open(pid)
        started_at = trio.current_time()
        try:
            await trio.lowlevel.wait_readable(pidfd)
            log.warning("the guardian (pid %d) was killed; starting another", pid)
        finally:
            os.close(writer)
            with trio.move_on_after(LEAVE_SECONDS, shield=True):
                await trio.lowlevel.wait_readable(pidfd)
            os.close(pidfd)
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG)  # noqa: ASYNC222  # does not block
            del leaders[pid]
        await trio.sleep_until(started_at + RESTART_SECONDS)


def _start(mark: ServerMark, cgroups: bool, stdin: int) -> int:
    """Start one, in a session of its own, with nothing of ours but its stdin."""
    words = [sys.executable, "-I", "-S", guardian.__file__, os.getpid(), mark.slot, mark.server, int(cgroups)]
    # Some interpreters find their own library by it.
    kept = {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
    env = tuple(os.fsencode(f"{name}={value}") for name, value in kept.items())
    command = Command(os.fsencode(sys.executable), tuple(os.fsencode(str(word)) for word in words), env, b"/")
    nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    directory = os.open("/", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return spawn.start(command, directory, (stdin, nothing, nothing))
    finally:
        os.close(nothing)
        os.close(directory)
