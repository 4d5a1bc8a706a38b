"""The supervisor: starts the commands of one server, and makes sure that nothing of them outlives their session.

It owns what the layers of docs/survival.md need for the server as a whole: the mark, being a subreaper, the reaping of
strays, the control group and the guardian, which it starts, replaces and lets go. Sessions own their `ProcessTree`; the
supervisor lets each find what belongs to it. It changes no setting of this process unless the process is its own.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, ExitStack, asynccontextmanager, nullcontext

import trio

from execsrv._nursery import open_helpers, owned
from execsrv._processes import carried_limits, guardian_keeper, proc, rlimit_mark, subreaper
from execsrv._processes.attempt import Attempt
from execsrv._processes.attempt import Spawned as Spawned
from execsrv._processes.command import Command
from execsrv._processes.guardian_keeper import Guard
from execsrv._processes.kin import Kin
from execsrv._processes.membership import ByDescent, ByWalk, Register
from execsrv._processes.refused_calls import refusals
from execsrv._processes.subreaper import Strays
from execsrv._processes.turns import in_turns
from execsrv._threads import MOST_THREADS, ThreadSlots
from execsrv.protocol import Layer, Size

logger = logging.getLogger(__name__)

_REAP_SECONDS = 0.05
"""Strays that end one after the other are reaped together, this often at most."""

_AGAIN_SECONDS = 0.2
"""The pause before what has failed is tried again."""

_TURN_SECONDS = 0.05
"""A start that takes longer waits for a file system, with its child born."""


class Supervisor:
    """Starts commands and keeps hold of them.

    Constructed directly it is a guest, which changes no setting of this process.
    `open_supervisor` opens one that may have more of the process.
    """

    def __init__(self, *, own_process: bool = False, sole: bool = False, moves: bool = False) -> None:
        """Raises `FileNotFoundError` where `/proc` is not mounted, or is that of another pid namespace."""
        if not proc.is_ours():
            message = "cannot keep hold of processes without the process table of our own pid namespace"
            raise FileNotFoundError(errno.ENOENT, message, "/proc")
        self._own_process = own_process
        self._moves = moves
        self.register = Register(rlimit_mark.new_server_mark(puts=not own_process))
        self._finder: ByWalk | ByDescent = ByWalk(self.register)
        self._strays: Strays | None = None
        self.guard: Guard | None = None
        """The guardian, None without one."""
        self.refuses = False
        """True where nothing is started, since too little keeps sessions together."""
        self.kin = Kin(self.register, sole=sole)
        """All processes of all sessions, for telling who they are not."""
        self.threads = ThreadSlots(MOST_THREADS)
        """The threads in which commands are started."""

    def __repr__(self) -> str:
        return f"<Supervisor {self.layer} sessions={len(self.register.trees)}>"

    @property
    def sessions(self) -> int:
        """Sessions that run, of all connections."""
        return len(self.register.trees)

    @property
    def reaped(self) -> int:
        """Strays that were reaped."""
        return self._strays.reaped if self._strays is not None else 0

    @property
    def layer(self) -> Layer:
        """The layer that keeps sessions together here: "subreaper", "mark" or "session"."""
        return self._finder.layer

    def means(self) -> str:
        """Return in words what keeps sessions together here, and which system calls are refused."""
        words = {
            "subreaper": "descent, as a child subreaper",
            "mark": "marks in a limit",
            "session": "their session ids alone: who leaves them escapes",
        }[self.layer]
        if self.refuses:
            words = "nothing, so starts are refused"
        elif self.layer == "subreaper":
            words += ", and marks in a limit" if self.register.mark else "; no limit has room for marks"
        words += ", with a guardian" if self.guard else "; without a guardian"
        refused = [f"{call} ({name})" for call, name in refusals().items()]
        return f"{words}; refused here: {', '.join(refused)}" if refused else words

    def find_by_descent(self, strays: Strays) -> None:
        """Have what belongs to a session found by descent, since strays become children of ours."""
        self._finder = ByDescent(self.register, strays)
        self._strays = strays

    def expect_starts(self) -> None:
        """Have the guardian ready by the time of the first start, where there can be one."""
        self.register.used.set()

    def one_look(self) -> AbstractContextManager[None]:
        """Let one look for strays do for all sessions in a block whose leader lives. It must not await."""
        return nullcontext() if self._strays is None else self._strays.one_look()

    def spare_descriptors(self) -> AbstractContextManager[None]:
        """Leave the descriptors that are kept for ends to the block, which must not await."""
        return self.register.reserve.lent()

    async def begin_guard(self) -> None:
        """Wait until what is started from now on has a guardian that hears of our end, where there can be one."""
        self.expect_starts()
        if self.guard is not None and not self.guard.begun.is_set():
            await self.guard.begun.wait()

    def new_attempt(self) -> Attempt:
        """Return an attempt to start a command, which its caller must `end`."""
        return Attempt(
            self.register,
            self._finder,
            self.guard,
            carries=self._own_process,
            refuses=self.refuses,
            moves=self._moves,
        )

    def spawn(self, command: Command, *, size: Size | None, pipe_stdin: bool) -> Spawned:
        """Start a command on a terminal of `size`, or on pipes where that is None, and watch it.

        Without `pipe_stdin` a piped command reads an empty stdin. Blocks as long as the file system does: when this
        returns, the command's own program runs. Raises `SpawnError`; then nothing is left behind.
        """
        attempt = self.new_attempt()
        attempt.run(lambda: command, size, pipe_stdin)
        spawned = attempt.enter()
        attempt.release()
        return spawned


@asynccontextmanager
@trio.lowlevel.enable_ki_protection
async def open_supervisor(
    *,
    own_process: bool = False,
    sole: bool = False,
    cgroups: bool = True,
    guarded: bool = True,
    guardian_patience: float = 0.0,
) -> AsyncIterator[Supervisor]:
    """A supervisor for the sessions that are started in this block; they must be over when it is left.

    `own_process` allows it to change settings of this process: it becomes a subreaper, hears SIGCHLD, carries a mark
    for the instant of each start (so no other thread may start processes), and has a guardian as a child. It must then
    run in the main thread. `sole` says that no other code of this process starts any: then all children are ours, and
    it is moved into a control group of its own, if there is one to be had, unless `cgroups` is off; without `sole`, for
    the first command with limits that take it. There is no guardian unless it is `guarded`. It ends the sessions too
    when the loop stands still for `guardian_patience` seconds, unless that is 0. Where it is `guarded` and nothing else
    than session ids can be had, starts are refused.
    """
    if not own_process:
        yield Supervisor()
        return
    supervisor = Supervisor(own_process=True, sole=sole, moves=cgroups)
    register = supervisor.register
    with ExitStack() as stack:
        stack.enter_context(register.reserve)
        stack.callback(_step_out, register)
        strays = None
        if subreaper.available():
            strays = stack.enter_context(subreaper.open_strays(register, sole=sole))
            supervisor.find_by_descent(strays)
        supervisor.refuses = guarded and supervisor.layer == "session"
        async with open_helpers() as nursery:
            nursery.start_soon(owned, _end_turns, register)
            if strays is not None:
                nursery.start_soon(owned, _reap, strays, register)
            if guarded and register.mark is not None and guardian_keeper.possible():
                guard = Guard(register, register.mark, cgroups=sole and cgroups, patience=guardian_patience)
                supervisor.guard = guard
                nursery.start_soon(owned, guard.run)
            yield supervisor


def _step_out(register: Register) -> None:
    """Undo what limits may have done to this process, unless the guardian has: put it into another control group."""
    if register.has_had_limits:
        from execsrv._processes import cgroup

        cgroup.leave_own(os.getpid())


async def _end_turns(register: Register) -> None:
    """Have this process carry nothing for a start that it needs no more, as long as one is under way."""
    while True:
        while not register.starting:
            await register.waited_for.park()
        await trio.sleep(_TURN_SECONDS)
        carried_limits.look()


async def _reap(strays: Strays, register: Register) -> None:
    """Reap strays as they end."""
    while True:
        await strays.news.wait()
        try:
            await in_turns(strays.reap(), register.turn)
        except Exception as error:
            if not isinstance(error, OSError):  # which says that there is no descriptor left to look with
                logger.error("cannot reap what has ended, trying on", exc_info=error)
            strays.news.set()
            await trio.sleep(_AGAIN_SECONDS)
        register.reap_held()
        await trio.sleep(_REAP_SECONDS)
