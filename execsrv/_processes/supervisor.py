"""The supervisor: starts the commands of one server, and makes sure that nothing of them outlives their session.

It owns what the layers of docs/survival.md need for the server as a whole: the mark, being a subreaper, the reaping of
strays, the control group and the guardian, which it starts, replaces and lets go. Sessions own their `ProcessTree`; the
supervisor lets each find what belongs to it. It changes no setting of this process unless the process is its own.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager

import trio

from execsrv._nursery import open_helpers
from execsrv._processes import guardian, proc, rlimit_mark, spawn, subreaper
from execsrv._processes.command import Command
from execsrv._processes.membership import ByDescent, ByGroup, ByMark, Register
from execsrv._processes.rlimit_mark import ServerMark
from execsrv._processes.subreaper import Strays
from execsrv._processes.tree import ProcessTree
from execsrv.protocol import Layer, Size

logger = logging.getLogger(__name__)

RESTART_SECONDS = 0.5
"""A guardian that could not live this long is replaced only after as long: something is wrong with it."""

OF_NO_SESSION = -1
"""The guardian is a child that leads a session of its own, but none that a client has started."""

LEAVE_SECONDS = 2.0
"""How long a guardian may take to make sure that nothing is left, at an orderly end. Then it goes on alone."""

_REAP_SECONDS = 0.05
"""Strays that end one after the other are reaped together, this often at most."""


class Supervisor:
    """See the module. Made as it is, it is a guest: `open_supervisor` makes one that may have more of the process."""

    def __init__(self, *, own_process: bool = False) -> None:
        self._own_process = own_process
        self._register = Register(rlimit_mark.new_server_mark())
        self._finder: ByGroup = (ByMark if os.path.exists("/proc/loadavg") else ByGroup)(self._register)
        self._last_number = 0

    def __repr__(self) -> str:
        return f"<Supervisor {self.layer} sessions={len(self._register.trees)}>"

    @property
    def layer(self) -> Layer:
        """What sessions are kept together by, here: "subreaper", "mark", "session" or "group"."""
        return self._finder.layer

    def spawn(self, command: Command, *, size: Size | None, pipe_stdin: bool) -> spawn.Spawned:
        """Start a command. See `spawn.spawn`."""
        return spawn.spawn(command, size=size, pipe_stdin=pipe_stdin, bear=self._bear)

    def _bear(self, start: Callable[[], int]) -> ProcessTree:
        """Start a leader by `start`, marked, and watch it."""
        number = self._unused_number()
        room = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)  # for the pidfd: what runs has to be watched
        try:
            pid = self._start(start, number)
        finally:
            os.close(room)
        try:
            tree = ProcessTree(pid, number, self._finder)
        except OSError:  # no descriptor left for watching it, so it must not run
            os.killpg(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise
        self._register.enter(tree)
        return tree

    def _start(self, start: Callable[[], int], number: int) -> int:
        """Start a leader that carries the mark of the session of that number."""
        mark = self._register.mark
        if mark is None:
            pid = start()
        elif self._own_process:
            with rlimit_mark.carried(mark.slot, mark.of(number)):
                pid = start()
        else:
            pid = start()
            rlimit_mark.put(pid, mark.slot, mark.of(number))
            for child in proc.family([pid]):  # what it has started meanwhile, on a busy machine
                rlimit_mark.put(child, mark.slot, mark.of(number))
        return pid

    def _unused_number(self) -> int:
        while True:
            self._last_number = (self._last_number + 1) % (1 << rlimit_mark.SESSION_BITS)
            if self._last_number not in self._register.trees:
                return self._last_number


@asynccontextmanager
async def open_supervisor(
    *, own_process: bool = False, sole: bool = False, cgroups: bool = True
) -> AsyncIterator[Supervisor]:
    """A supervisor for the sessions that are started in this block; they must be over when it is left.

    `own_process` allows it to change settings of this process: it becomes a subreaper, hears SIGCHLD, carries a mark
    for the instant of each start (so no other thread may start processes), and has a guardian as a child. It must then
    run in the main thread, and no other such supervisor may end before it in the same process. `sole` says that no
    other code of this process starts any: then all children are ours, and it is moved into a control group of its own,
    if there is one to be had, unless `cgroups` is off.
    """
    if not own_process:
        yield Supervisor()
        return
    supervisor = Supervisor(own_process=True)
    register = supervisor._register
    with ExitStack() as stack:
        strays = None
        if subreaper.available():
            stack.enter_context(subreaper.subreaping())
            strays = Strays(register.leaders, register.session_of, sole=sole)
            stack.callback(strays.close)
            supervisor._finder = ByDescent(register, strays)
        async with open_helpers() as nursery:
            if strays is not None:
                await nursery.start(_reap, strays)
            if register.mark is not None and guardian_possible():
                nursery.start_soon(_guard, register, sole and cgroups)
            yield supervisor


async def _reap(strays: Strays, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
    """Reap strays as they end."""
    with trio.open_signal_receiver(signal.SIGCHLD) as signals:
        task_status.started()
        async for _ in signals:
            strays.reap()
            await trio.sleep(_REAP_SECONDS)


def guardian_possible() -> bool:
    """Whether there is an interpreter to run it: not so in a program that was frozen into one file."""
    return bool(sys.executable) and not hasattr(sys, "frozen") and hasattr(os, "pidfd_open")


async def _guard(register: Register, cgroups: bool) -> None:
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
            pid = _start_guardian(mark, cgroups, reader)
        except OSError as error:
            os.close(writer)
            logger.error("cannot start the guardian: %s", error)
            return
        finally:
            os.close(reader)
        leaders[pid] = OF_NO_SESSION
        pidfd = os.pidfd_open(pid)
        started_at = trio.current_time()
        try:
            await trio.lowlevel.wait_readable(pidfd)
            logger.warning("the guardian (pid %d) was killed; starting another", pid)
        finally:
            os.close(writer)
            with trio.move_on_after(LEAVE_SECONDS, shield=True):
                await trio.lowlevel.wait_readable(pidfd)
            os.close(pidfd)
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG)  # noqa: ASYNC222  # does not block
            del leaders[pid]
        await trio.sleep_until(started_at + RESTART_SECONDS)


def _start_guardian(mark: ServerMark, cgroups: bool, stdin: int) -> int:
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
