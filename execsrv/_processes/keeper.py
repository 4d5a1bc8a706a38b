"""The keeper: starts the commands of one server, and makes sure that nothing of them outlives their session.

It owns what the layers of docs/survival.md need for the server as a whole: the mark, being a subreaper, the reaping of
strays, the control group and the guardian. Sessions own their `ProcessTree`; the keeper lets each find what belongs to
it. It changes no setting of this process unless it is told that the process is its own.
"""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager

import trio

from execsrv._background import open_background
from execsrv._processes import guardianship, lineage, marks, spawn, subreaper
from execsrv._processes.command import Command
from execsrv._processes.finders import ByDescent, ByGroup, ByMark, Register
from execsrv._processes.subreaper import Strays
from execsrv._processes.tree import ProcessTree
from execsrv.protocol import Layer, Size

_REAP_SECONDS = 0.05
"""Strays that end one after the other are reaped together, this often at most."""


class Keeper:
    """See the module. Made as it is, it is a guest: `open_keeper` makes one that may have more of the process."""

    def __init__(self, *, own_process: bool = False) -> None:
        self._own_process = own_process
        self._register = Register(marks.new_server_mark())
        self._finder: ByGroup = (ByMark if os.path.exists("/proc/loadavg") else ByGroup)(self._register)
        self._last_number = 0

    def __repr__(self) -> str:
        return f"<Keeper {self.layer} sessions={len(self._register.trees)}>"

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
            with marks.carried(mark.slot, mark.of(number)):
                pid = start()
        else:
            pid = start()
            marks.put(pid, mark.slot, mark.of(number))
            for child in lineage.family([pid]):  # what it has started meanwhile, on a busy machine
                marks.put(child, mark.slot, mark.of(number))
        return pid

    def _unused_number(self) -> int:
        while True:
            self._last_number = (self._last_number + 1) % (1 << marks.SESSION_BITS)
            if self._last_number not in self._register.trees:
                return self._last_number


@asynccontextmanager
async def open_keeper(*, own_process: bool = False, sole: bool = False, cgroups: bool = True) -> AsyncIterator[Keeper]:
    """A keeper for the sessions that are started in this block; they must be over when it is left.

    `own_process` allows it to change settings of this process: it becomes a subreaper, hears SIGCHLD, carries a mark
    for the instant of each start (so no other thread may start processes), and has a guardian as a child. Must then
    run in the main thread, and no other such keeper may end before it in the same process. `sole` says that no other
    code of this process starts any: then all children are ours, and it is moved into a control group of its own, if
    there is one to be had, unless `cgroups` is off.
    """
    if not own_process:
        yield Keeper()
        return
    keeper = Keeper(own_process=True)
    register = keeper._register
    with ExitStack() as stack:
        strays = None
        if subreaper.available():
            stack.enter_context(subreaper.subreaping())
            strays = Strays(register.leaders, register.session_of, sole=sole)
            stack.callback(strays.close)
            keeper._finder = ByDescent(register, strays)
        async with open_background() as nursery:
            if strays is not None:
                await nursery.start(_reap, strays)
            if register.mark is not None and guardianship.possible():
                nursery.start_soon(guardianship.guard, register, sole and cgroups)
            yield keeper


async def _reap(strays: Strays, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
    """Reap strays as they end."""
    with trio.open_signal_receiver(signal.SIGCHLD) as signals:
        task_status.started()
        async for _ in signals:
            strays.reap()
            await trio.sleep(_REAP_SECONDS)
