"""The start of one command, carried out in a thread, since a file system may hold it up for as long as it likes.

From its first instant the command belongs to the attempt: when the attempt ends, by an error at any step, by an
interrupt or because nobody waits for it any more, so does the command. A thread that hangs before it starts anything is
left behind, and starts nothing; one that hangs later has two seconds to end what it has started, and does so anyway.
"""

from __future__ import annotations

import os
import resource
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Literal

import trio
from msgspec import Struct
from msgspec.structs import replace

from execsrv._lent import Lent
from execsrv._processes import carried_limits, spawn, terminal
from execsrv._processes.command import Command
from execsrv._processes.confine.places import Confinement
from execsrv._processes.leader import Leader
from execsrv._processes.membership import ByDescent, ByWalk, Register
from execsrv._processes.own_streams import OwnStreams
from execsrv._processes.reaper import Reaper
from execsrv._processes.spawn import Started
from execsrv._processes.spawn_errors import of_no_means, shortage_told
from execsrv._processes.starting_threads import start_soon
from execsrv._processes.stream_ends import Onward, open_onward
from execsrv._processes.tree import ProcessTree
from execsrv._threads import Job, SharedThreads
from execsrv.protocol import Size, Stream

if TYPE_CHECKING:
    from execsrv._processes.guardian_keeper import Guard
    from execsrv._processes.limiting.group import LimitGroup

PipeName = Literal["stdin", "stdout", "stderr"]

_BRIEF_SECONDS = 0.002
"""So long the loop waits for a start, unless some of the same connection have taken longer and are still under way."""

_UNDO_SECONDS = 2.0
"""Time for a thread to end what nobody wants any more: the program may be about to exit, and its threads with it."""


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
    onward: dict[Stream, Onward] = {}
    """The pipes into which its outputs go on, for who has their other ends."""

    def streams(self) -> OwnStreams:
        """Return its streams as a session has them, which takes ownership of the descriptors."""
        return OwnStreams(self.tree, self.outputs, self.stdin, self.held, self.onward)

    def without_streams(self, *, keeps: bool) -> Spawned:
        """Return it without its pipes, for who gives them to somebody else.

        Who `keeps` something of its outputs has these go on to pipes of their own. Raises `SpawnError`.
        """
        if not keeps:
            return replace(self, outputs={}, stdin=None)
        return replace(self, stdin=None, onward={name: open_onward() for name in self.outputs})

    def lent_streams(self, onward: Mapping[Stream, Onward]) -> dict[PipeName, Lent]:
        """Return the ends of its pipes for somebody else, which must be nobody else's from now on."""
        lent: dict[PipeName, Lent] = {} if self.stdin is None else {"stdin": Lent(self.stdin)}
        for name in ("stdout", "stderr"):
            if name in self.outputs:
                lent[name] = onward[name].read if name in onward else Lent(self.outputs[name])
        return lent


class Attempt:
    """One start. Whoever makes it calls `end` in the end, whatever happened."""

    def __init__(
        self,
        register: Register,
        finder: ByWalk | ByDescent,
        guard: Guard | None,
        *,
        carries: bool,
        refuses: bool,
        moves: bool,
    ) -> None:
        """With `refuses` nothing is started. Where it `moves`, this process may be put into another control group for
        the limits of a command."""
        self._register = register
        self._finder = finder
        self._guard = guard
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
        self._job: Job[None] | None = None
        self._is_launched = False  # the job
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
        """Do what `begin` does, and what `wait` does where that is needed."""
        await trio.lowlevel.checkpoint_if_cancelled()
        spawned = self.begin(settle, threads, size=size, pipe_stdin=pipe_stdin, modes=modes)
        return await self.wait(threads) if spawned is None else spawned

    def begin(
        self,
        settle: Callable[[], Command],
        threads: SharedThreads,
        *,
        size: Size | None,
        pipe_stdin: bool,
        modes: Mapping[str, bool | int] = terminal.DEFAULT_MODES,
    ) -> Spawned | None:
        """Settle and start the command in a thread. Return it where that took but a moment, for which the loop stands.

        It is watched then, and this attempt's until `end`. None: there is more to wait for, which `wait` does. Raises
        what `settle` does, `SpawnError`, and `BusyError` where the machine gives no thread.
        """
        self._job = job = Job(lambda: shortage_told(self.run, settle, size, pipe_stdin, modes), threads, start_soon)
        if self._guard is not None and not self._guard.is_settled:
            return None
        patience = _BRIEF_SECONDS if threads.are_few else 0
        try:
            threads.acquire_on_behalf_of_nowait(job)
        except trio.WouldBlock:
            return None
        return self._enter_after(job) if self._launch(job, patience) else None

    async def wait(self, threads: SharedThreads) -> Spawned:
        """Wait for what `begin` has begun, or could not begin yet. Raises as it does. Cancelling waits for no file."""
        assert self._job is not None
        if not self._is_launched:
            await trio.lowlevel.checkpoint_if_cancelled()
            if self._guard is not None:  # or a command that kills us in its first instant would outlive us
                await self._guard.begun.wait()
            patience = _BRIEF_SECONDS if threads.are_few else 0
            await threads.acquire_on_behalf_of(self._job)
            self._launch(self._job, patience)
        if self._register.waited_for:
            self._register.waited_for.unpark_all()
        await self._job.wait()
        if self._guard is not None:
            await self._guard.wait_ready()
        return self._enter_after(self._job)

    def _launch(self, job: Job[None], patience: float) -> bool:
        """Begin the job, which has its thread. Return whether it is over within so many seconds."""
        self._is_launched = self._runs = True
        try:
            return job.begin(patience)
        except BaseException:
            self._runs = False
            raise

    def _enter_after(self, job: Job[None]) -> Spawned:
        self._job = None  # it holds the request
        self._runs = False  # whatever came of it
        job.outcome()
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
                raise of_no_means()
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
                return await self._see_undone()
            if self._tree is None and self._started.pid and self._started.is_watched:
                self.enter()
            if self._tree is not None and not self._tree.leader.is_closed:
                await self._tree.end()
        finally:
            self._register.starting.discard(self._number)
            if not runs:
                if self._limits is not None:
                    await self._limits.end(self._register.removals)
                if self._tree is not None:
                    self._started.pidfd = self._started.reaper_pidfd = None  # the tree's
                self._started.close()

    async def _see_undone(self) -> None:
        """Wait for the thread to end what it starts, unless that takes too long."""
        if (job := self._job) is None or not self._started.is_coming:
            return
        with trio.move_on_after(_UNDO_SECONDS, shield=True):
            while True:
                with trio.move_on_after(_BRIEF_SECONDS) as pause:
                    await job.wait()
                if not pause.cancelled_caught:
                    return
                spawn.kill_newborn(self._started)
