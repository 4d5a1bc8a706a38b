"""The start of one command, carried out in a thread, since a file system may hold it up for as long as it likes.

From its first instant the command belongs to the attempt: when the attempt ends, by an error at any step, by an
interrupt or because nobody waits for it any more, so does the command. A thread that hangs is left behind; whatever it
still starts, it ends itself.
"""

from __future__ import annotations

import os
import resource
import threading
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Literal

import trio
from msgspec import Struct
from msgspec.structs import replace

from execsrv._lent import Lent
from execsrv._processes import carried_limits, spawn, spawn_errors, terminal
from execsrv._processes.command import Command
from execsrv._processes.confine.places import Confinement
from execsrv._processes.leader import Leader
from execsrv._processes.membership import ByDescent, ByWalk, Register
from execsrv._processes.own_streams import OwnStreams
from execsrv._processes.reaper import Reaper
from execsrv._processes.spawn import Started
from execsrv._processes.tree import ProcessTree
from execsrv._threads import run_briefly
from execsrv.protocol import Size, Stream

if TYPE_CHECKING:
    from execsrv._processes.limiting.group import LimitGroup

MOST_THREADS = 40
"""So many starts of one server may be under way at once. More wait."""

CONNECTION_THREADS = 8
"""So many of them may be one connection's, so that those which hang hold up nobody else's."""


PipeName = Literal["stdin", "stdout", "stderr"]

_BRIEF_SECONDS = 0.002
"""So long the loop waits for a start, unless one of the same connection has taken longer and is still under way."""


class Spawned(Struct, frozen=True):
    """A running command and the server's ends of its streams. The descriptors belong to whoever holds this.

    `program` is the name of its file. `held` is the other end of its terminal, to be closed when its leader has ended.
    """

    program: str
    tree: ProcessTree
    outputs: dict[Stream, int]
    stdin: int | None
    held: int | None = None
    confinement: Confinement | None = None
    limits: LimitGroup | None = None
    """The limits that it has. Whoever has taken the command over removes it in the end."""

    def streams(self) -> OwnStreams:
        """Return its streams as a session has them, which takes ownership of the descriptors."""
        return OwnStreams(self.tree, self.outputs, self.stdin, self.held)

    def without_streams(self) -> Spawned:
        """Return it without its pipes, for who gives them to somebody else."""
        return replace(self, outputs={}, stdin=None)

    def lent_streams(self) -> dict[PipeName, Lent]:
        """Return the server's ends of its pipes, which must be nobody else's from now on."""
        ends: dict[PipeName, int | None] = {"stdin": self.stdin}
        for name in ("stdout", "stderr"):
            ends[name] = self.outputs.get(name)
        return {name: Lent(end) for name, end in ends.items() if end is not None}


class SharedThreads:
    """The threads that one connection may have of those of its server, each until it has really ended."""

    def __init__(self, of_server: trio.CapacityLimiter, most: int = CONNECTION_THREADS) -> None:
        self._of_server = of_server
        self._own = trio.CapacityLimiter(most)

    @property
    def is_free(self) -> bool:
        """True while none of them is in use."""
        return not self._own.borrowed_tokens

    async def acquire_on_behalf_of(self, borrower: object) -> None:
        """Wait for a thread. Where there is one, nobody else gets a turn first."""
        await _acquire(self._own, borrower)
        try:
            await _acquire(self._of_server, borrower)
        except BaseException:
            self._own.release_on_behalf_of(borrower)
            raise

    def release_on_behalf_of(self, borrower: object) -> None:
        """Give a thread back."""
        self._of_server.release_on_behalf_of(borrower)
        self._own.release_on_behalf_of(borrower)


async def _acquire(limiter: trio.CapacityLimiter, borrower: object) -> None:
    try:
        limiter.acquire_on_behalf_of_nowait(borrower)
    except trio.WouldBlock:
        await limiter.acquire_on_behalf_of(borrower)


class Attempt:
    """One start. Whoever makes it calls `end` in the end, whatever happened."""

    def __init__(
        self,
        register: Register,
        finder: ByWalk | ByDescent,
        begin_guard: Callable[[], Awaitable[None]],
        wait_guarded: Callable[[], Awaitable[None]],
        *,
        carries: bool,
        refuses: bool,
        moves: bool,
    ) -> None:
        """`begin_guard` waits until there is a guardian, `wait_guarded` until it is ready. With `refuses` nothing is
        started. Where it `moves`, this process may be put into another control group for the limits of a command."""
        self._register = register
        self._finder = finder
        self._begin_guard = begin_guard
        self._wait_guarded = wait_guarded
        self._carries = carries
        self._refuses = refuses
        self._moves = moves
        self._number = register.reserve_number()
        self._mark = register.mark.of(self._number) if register.mark else None
        self._started = Started()
        self._program = ""
        self._confinement: Confinement | None = None
        self._limits: LimitGroup | None = None
        self._lock = threading.Lock()
        self._runs = False  # in its thread
        self._tree: ProcessTree | None = None

    def __repr__(self) -> str:
        state = "given up" if self._started.given_up else "starting" if self._runs else f"pid={self._started.pid}"
        return f"<Attempt number={self._number} {state}>"

    @property
    def usage(self) -> resource.struct_rusage | None:
        """The resources that the leader and those whose end it has waited for have used, once it is reaped."""
        return None if self._tree is None else self._tree.leader.usage

    async def start(
        self,
        settle: Callable[[], Command],
        threads: SharedThreads,
        *,
        size: Size | None,
        pipe_stdin: bool,
        modes: Mapping[str, bool | int] = terminal.DEFAULT_MODES,
    ) -> Spawned:
        """Settle and start the command in a thread, and watch it. It is this attempt's until `end`.

        Raises what `settle` does, `SpawnError`, and `BusyError` where the machine gives no thread. Cancelling waits for
        no file system.
        """

        def run() -> None:
            self.run(settle, size, pipe_stdin, modes)

        await self._begin_guard()  # or a command that kills us in its first instant would outlive us
        self._runs = True
        try:
            await run_briefly(run, threads, _BRIEF_SECONDS if threads.is_free else 0)
        except trio.Cancelled:
            raise  # and it may run on
        except BaseException:
            self._runs = False
            raise
        await self._wait_guarded()
        return self.enter()

    def run(
        self,
        settle: Callable[[], Command],
        size: Size | None,
        pipe_stdin: bool,
        modes: Mapping[str, bool | int] = terminal.DEFAULT_MODES,
    ) -> None:
        """Settle and start the command in this thread. Blocks as long as the file systems do."""
        try:
            if self._refuses:
                raise spawn_errors.of_no_means()
            command = settle()
            self._confinement = command.confinement
            if command.limits is not None:
                from execsrv._processes.limiting.make import make

                self._register.has_had_limits = True
                self._limits = make(command.limits, self._register.server, self._number, moves=self._moves)
            self._program = os.path.basename(command.program).decode(errors="replace")
            spawn.spawn(
                command,
                size,
                pipe_stdin,
                self._mark,
                carries=self._carries,
                modes=modes,
                started=self._started,
                group=self._limits,
            )
        finally:
            with self._lock:
                self._runs = False
                given_up = self._started.given_up
            if given_up:
                self._started.undo(self._mark)
            if self._limits is not None and not self._started.pid:
                self._limits.remove()

    def enter(self) -> Spawned:
        """Watch the command, which was started, and have it found by its server. It may be done again."""
        started = self._started
        tree = ProcessTree(Leader(started.pid, started.pidfd), self._number, self._finder, started.born_after)
        if started.reaper is not None:
            tree.reaper = Reaper(started.reaper, started.reaper_pidfd)
        if self._limits is not None:
            self._limits.leader = tree.leader
        self._register.enter(tree)
        self._tree = tree
        return Spawned(
            self._program, tree, started.outputs, started.stdin, started.held, self._confinement, self._limits
        )

    def pass_streams(self) -> None:
        """Leave the streams to whoever holds what was spawned. The command still ends with this."""
        self._started = Started()  # the pidfd is the leader's

    def release(self) -> None:
        """Leave the command too. `end` ends nothing any more."""
        self._tree, self._started, self._limits = None, Started(), None

    async def end(self) -> None:
        """End what was started, and what still is being started. Cannot be cancelled."""
        with self._lock:
            self._started.given_up = True
            runs = self._runs
            if runs:
                spawn.kill_newborn(self._started)
                carried_limits.look()
        try:
            if runs:
                return  # it ends in its thread
            if self._tree is None and self._started.pid and self._started.is_watched:
                self.enter()
            if self._tree is not None and not self._tree.leader.is_closed:
                await self._tree.end()
        finally:
            self._register.starting.discard(self._number)
            if not runs:
                if self._limits is not None:
                    await _remove(self._limits)
                if self._tree is not None:
                    self._started.pidfd = self._started.reaper_pidfd = None  # the tree's
                self._started.close()


async def _remove(limits: LimitGroup) -> None:
    """Remove the groups of a command that is over, in a thread: the kernel may have to wait for others' groups."""
    with trio.CancelScope(shield=True):
        await trio.to_thread.run_sync(limits.remove, limiter=trio.CapacityLimiter(1))
