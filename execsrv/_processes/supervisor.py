"""The supervisor: starts the commands of one server, and makes sure that nothing of them outlives their session.

It owns what the layers of docs/survival.md need for the server as a whole: the mark, being a subreaper, the reaping of
strays, the control group and the guardian, which it starts, replaces and lets go. Sessions own their `ProcessTree`; the
supervisor lets each find what belongs to it. It changes no setting of this process unless the process is its own.
"""

from __future__ import annotations

import errno
import logging
import os
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass

import trio

from execsrv._nursery import open_helpers
from execsrv._processes import guardian, rlimit_mark, spawn, subreaper
from execsrv._processes.command import Command
from execsrv._processes.inherited import Inherited
from execsrv._processes.leader import Leader
from execsrv._processes.membership import ByDescent, ByWalk, Register
from execsrv._processes.rlimit_mark import ServerMark
from execsrv._processes.subreaper import Strays
from execsrv._processes.tree import ProcessTree
from execsrv.errors import SpawnError
from execsrv.protocol import Layer, Size, Stream

logger = logging.getLogger(__name__)

RETRY_SECONDS = 0.5, 30.0
"""How long after its start a guardian that did not live is replaced: at first, and after doubling, at last."""

LEAVE_SECONDS = 2.0
"""How long a guardian may take to make sure that nothing is left, at an orderly end. Then it goes on alone."""

_GUARDIAN_DESCRIPTORS = 7
"""The start of a guardian needs this many for an instant: the ends of three pipes, and a directory."""

_REAP_SECONDS = 0.05
"""Strays that end one after the other are reaped together, this often at most."""


@dataclass(frozen=True, slots=True)
class Spawned:
    """A running command and the server's ends of its streams. The descriptors belong to whoever holds this.

    `program` is the name of its file.
    """

    program: str
    tree: ProcessTree
    outputs: dict[Stream, int]
    stdin: int | None


class Supervisor:
    """Starts commands and keeps hold of them.

    Constructed directly it is a guest, which changes no setting of this process.
    `open_supervisor` opens one that may have more of the process.
    """

    def __init__(self, *, own_process: bool = False) -> None:
        """Raises `FileNotFoundError` where `/proc` is not mounted."""
        if not os.path.exists("/proc/loadavg"):
            raise FileNotFoundError(errno.ENOENT, "cannot keep hold of processes without the process table", "/proc")
        self._own_process = own_process
        self._register = Register(rlimit_mark.new_server_mark())
        self._finder: ByWalk | ByDescent = ByWalk(self._register)

    def __repr__(self) -> str:
        return f"<Supervisor {self.layer} sessions={len(self._register.trees)}>"

    @property
    def layer(self) -> Layer:
        """The layer that keeps sessions together here: "subreaper", "mark" or "session"."""
        return self._finder.layer

    def spawn(
        self, command: Command, *, size: Size | None, pipe_stdin: bool, inherited: Inherited | None = None
    ) -> Spawned:
        """Start a command on a terminal of `size`, or on pipes where that is None, and watch it.

        Without `pipe_stdin` a piped command reads an empty stdin. Does not wait: when this returns, the command's own
        program runs. Raises `SpawnError`; then nothing is left behind.
        """
        number = self._register.unused_number()
        mark = self._register.mark.of(number) if self._register.mark else None
        started = spawn.spawn(command, size, pipe_stdin, mark, carry=self._own_process, inherited=inherited)
        tree = ProcessTree(Leader(started.pid, started.pidfd), number, self._finder)
        self._register.enter(tree)
        program = os.path.basename(command.program).decode(errors="replace")
        return Spawned(program, tree, started.outputs, started.stdin)


@asynccontextmanager
async def open_supervisor(
    *, own_process: bool = False, sole: bool = False, cgroups: bool = True, guarded: bool = True
) -> AsyncIterator[Supervisor]:
    """A supervisor for the sessions that are started in this block; they must be over when it is left.

    `own_process` allows it to change settings of this process: it becomes a subreaper, hears SIGCHLD, carries a mark
    for the instant of each start (so no other thread may start processes), and has a guardian as a child. It must then
    run in the main thread. `sole` says that no other code of this process starts any: then all children are ours, and
    it is moved into a control group of its own, if there is one to be had, unless `cgroups` is off. There is no
    guardian unless it is `guarded`.
    """
    if not own_process:
        yield Supervisor()
        return
    supervisor = Supervisor(own_process=True)
    register = supervisor._register
    with ExitStack() as stack:
        strays = None
        if subreaper.available():
            strays = stack.enter_context(subreaper.open_strays(register.owns, register.session_of, sole=sole))
            supervisor._finder = ByDescent(register, strays)
        async with open_helpers() as nursery:
            if strays is not None:
                nursery.start_soon(_reap, strays, register)
            if guarded and register.mark is not None and guardian_possible():
                nursery.start_soon(_keep_guardian, register, register.mark, sole and cgroups)
            yield supervisor


async def _reap(strays: Strays, register: Register) -> None:
    """Reap strays as they end."""
    while True:
        await strays.news.wait()
        strays.reap()
        register.reap_held()
        await trio.sleep(_REAP_SECONDS)


def guardian_possible() -> bool:
    """Tell whether there is an interpreter to run a guardian: not so in a program that was frozen into one file."""
    return bool(sys.executable) and not hasattr(sys, "frozen")


async def _keep_guardian(register: Register, mark: ServerMark, cgroups: bool) -> None:
    """From the first command on, keep a guardian running until cancelled; then let it finish, and reap it.

    One that was killed, or could not be started, is replaced, whatever the error. With `cgroups` it moves this process
    into a control group, if there is one to be had.
    """
    # Not earlier: half of the time that a server takes to start would go into it.
    await register.used.wait()
    shortest, longest = RETRY_SECONDS
    pause = shortest
    with _Reserve(_GUARDIAN_DESCRIPTORS) as reserve:
        while True:
            began = trio.current_time()
            try:
                with reserve.lent():
                    leader, stdin = _start_guardian(mark, cgroups)
                await _watch_guardian(leader, stdin, register)
                logger.warning("the guardian (pid %d) was killed; starting another", leader.pid)
            except SpawnError as error:
                if pause == shortest:
                    logger.error("cannot start the guardian, trying on: %s", error)
            if trio.current_time() - began >= shortest:
                pause = shortest
            else:
                await trio.sleep_until(began + pause)
                pause = min(2 * pause, longest)


async def _watch_guardian(leader: Leader, stdin: int, register: Register) -> None:
    """Wait until a guardian has ended. On cancellation let it finish, by the end of its stdin."""
    register.helpers.add(leader.pid)
    try:
        await leader.wait_exited()
    finally:
        os.close(stdin)
        with trio.move_on_after(LEAVE_SECONDS, shield=True):
            await leader.wait_exited()
        leader.reap()
        leader.close()
        register.helpers.discard(leader.pid)


def _start_guardian(mark: ServerMark, cgroups: bool) -> tuple[Leader, int]:
    """Start one, in a session of its own, with nothing of ours but its stdin. Return it and our end of that."""
    words = [sys.executable, "-I", "-S", guardian.__file__, os.getpid(), mark.slot, mark.server, int(cgroups)]
    # Some interpreters find their own library by it.
    kept = {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
    env = tuple(os.fsencode(f"{name}={value}") for name, value in kept.items())
    command = Command(os.fsencode(sys.executable), tuple(os.fsencode(str(word)) for word in words), env, b"/")
    started = spawn.spawn(command, None, True, None, carry=False)
    for output in started.outputs.values():
        os.close(output)
    assert started.stdin is not None
    return Leader(started.pid, started.pidfd), started.stdin


class _Reserve:
    """Descriptors that are kept for a time when there are no others. Entered, it has them; left, it has none."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._held: list[int] = []

    def __enter__(self) -> _Reserve:
        self._fill()
        return self

    def __exit__(self, *error: object) -> None:
        self._empty()

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Leave as many descriptors to the block, which must not await, and then take what is there."""
        self._empty()
        try:
            yield
        finally:
            self._fill()

    def _fill(self) -> None:
        try:
            while len(self._held) < self._count:
                self._held.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        except OSError:
            pass  # there will be others

    def _empty(self) -> None:
        while self._held:
            os.close(self._held.pop())
