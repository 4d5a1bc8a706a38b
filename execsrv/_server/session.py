"""One session: a started command from its start to its close, with its streams, its input and its log.

    started -> exited (the leader; known from the kernel, never from end-of-file)
            -> drained (every stream at its end) -> closed

It owns the tree of its processes, the server's ends of the streams, and the log. It runs as one task of its connection,
with its helpers below it, and all of them behind a shield. Cancelling that task asks the tree to end; its life
goes on for the grace, and what is left then is killed: that is the only way to lose a session. Its input is in
`_processes/stdin.py`, its output in `pump.py`, how it is made to end in `ending.py`. It knows nothing of messages.
"""

from __future__ import annotations

from collections.abc import Callable
from signal import SIGKILL
from typing import TYPE_CHECKING

import trio
from msgspec import UNSET, UnsetType

from execsrv._budget.budget import Budget
from execsrv._log.log import OutputLog
from execsrv._nursery import owned
from execsrv._processes.leader import ExitStatus
from execsrv._processes.stdin import Stdin
from execsrv._processes.usage import Usage
from execsrv._server.ending import Ending
from execsrv._server.feed import Dialect, Feed
from execsrv._server.outbox import Outbox
from execsrv._server.pumps import pump_of
from execsrv._server.start_options import StartOptions, cost, largest_piece, new_clock
from execsrv.limits import ServerConfig
from execsrv.protocol import Reason, SignalTarget, Size
from execsrv.protocol.process_limits import ProcessLimits

if TYPE_CHECKING:
    from execsrv._processes.contract import AnySpawned, Received
    from execsrv._processes.input_wait import InputWait
    from execsrv.protocol.login_shells import Snapshotted
    from execsrv.protocol.sandbox import Denial


class Session:
    """A running or ended command. `id` is what its connection calls it.

    `stdin` is its input, `feed` is what its peer hears of the `log`.
    """

    def __init__(
        self,
        id: str,
        spawned: AnySpawned,
        options: StartOptions,
        config: ServerConfig,
        dialect: Dialect,
        outbox: Outbox | None,
        budget: Budget,
    ) -> None:
        """Take ownership of what was spawned, and of `cost` bytes of the budget: `run` must follow, then `forget`.

        With a window, the log's attached reader lags by at most that, by its own acknowledgements. Raises `SpawnError`.
        """
        self.id = id
        self.program = spawned.program
        self.argv = options.argv
        self.cwd = options.cwd
        self.key = options.key
        self.shell_snapshot: Snapshotted | UnsetType = UNSET
        self.passes = options.passes is not False
        self.started_at = trio.current_time()
        self._streams = spawned.streams()
        self.is_terminal = "pty" in self._streams.names
        self.log = OutputLog(
            config.retained_output_bytes_per_session,
            options.window_bytes or config.unsent_output_bytes,
            streams=self._streams.names,
            acknowledged=options.window_bytes is not None,
            drops=options.drops,
            clock=new_clock() if options.times else lambda: UNSET,
            budget=budget,
            largest_piece=largest_piece(is_terminal=self.is_terminal),
        )
        self._budget = budget
        self.feed = Feed(id, self.log, dialect, outbox, options.is_read_again)
        self.closed_at: float | None = None
        self.waits: dict[str, Callable[[], None]] = {}
        """Ends a wait for something, by the name that its peer gave it."""
        self.confinement = spawned.confinement
        self._limits = spawned.limits
        self._tree = spawned.tree
        self._grace = options.grace
        self._hangup_grace = config.hangup_grace
        self._ends_with_leader = options.ends_with_leader
        grace = self.grace(config.end_grace)
        self._ending = Ending(self._tree, self.feed, options.timeout, options.idle_timeout, grace, self._limits)
        self._life: trio.CancelScope | None = None
        self._is_cancelled = False
        try:
            self._pump = pump_of(self._streams, self._tree.leader, self.log, self.feed, self._ending)
        except BaseException:
            self.log.let_go()  # which the budget knows already, and nobody else will
            raise
        self.stdin = Stdin(
            id,
            self._streams.input,
            None if self._ending.idle is None else self._ending.idle.restart,
            is_terminal=self.is_terminal,
            max_queued_bytes=config.queued_stdin_bytes,
            budget=budget,
        )

    def __repr__(self) -> str:
        state = "closed" if self.log.closed else "exited" if self.log.exited else "running"
        return f"<Session {self.id} {state} pid={self._tree.pid}>"

    # -- its life --

    async def run(self) -> None:
        """Watch it to its end. When this returns, the leader is reaped.

        Cancelling asks the tree to end, reads and throws away what it prints, and kills it when the grace is over. Who
        has it run calls `heed_cancel` then (`Sessions.close`): no task waits in front of the shield only to hear of it.
        """
        try:
            async with trio.open_nursery() as helpers:
                try:
                    self._life = helpers.cancel_scope
                    if self._is_cancelled:
                        self.heed_cancel()
                    self._life.shield = True
                    self._ending.open(helpers)
                    if self.stdin.was_open:
                        helpers.start_soon(owned, self.stdin.feed)
                    await owned(self._live)
                    if helpers.child_tasks:
                        helpers.cancel_scope.cancel()
                finally:  # before the nursery closes, so that nobody starts a helper any more
                    self._ending.is_over = True
        finally:
            self._close_streams()
            await self._tree.end()
        await trio.lowlevel.checkpoint_if_cancelled()

    def abandon(self) -> None:
        """Log what is known of its end, where `run` failed to, so that nobody waits for it. It was killed."""
        if self.log.exited is None:
            status = self._tree.leader.exit_status() or ExitStatus(255)
            self.log.append_exited(status.code, status.signal, self._ending.reason(status))
        if self.log.closed is None:
            self.log.append_closed([])
        self.closed_at = trio.current_time()
        self.feed.announce()

    def forget(self) -> None:
        """Give back what it has of the budget: it is over, and nobody can ask for it any more."""
        self.stdin.forget()
        self.feed.forget()
        self._budget.give(cost(is_terminal=self.is_terminal))

    def heed_cancel(self) -> None:
        """Bound the rest of its life by the grace, now that `run` is cancelled; or soon, where it has not begun."""
        self._is_cancelled = True
        if self._life is not None and not self._ending.is_over:
            self.feed.leave()
            self._life.deadline = self._ending.hang_up(self.grace(self._hangup_grace))

    async def _live(self) -> None:
        """Go from running to its close, and on until nothing of it lives."""
        await self._exit_and_drain()
        self._close_streams()
        proof = None
        if self._ends_with_leader:
            await self._ending.end_rest()
        if self._ending.asked:
            await self._ending.wait_alone()
            proof = await self._tree.kill()
        remaining = [] if proof else await self._tree.remaining()
        usage = None if self._limits is None else self._limits.usage()
        self.log.append_closed(remaining, proof, self._ending.ended, usage)
        self.closed_at = trio.current_time()
        self.feed.announce()
        if remaining:  # without any of our streams, as they were told to; they are still ours
            await self._ending.wait_alone()

    async def _exit_and_drain(self) -> None:
        """Pump every stream to its end. In between, wait for the leader's end and log it.

        As a rule nobody else holds a stream, so that all of them are over by then.
        """
        await self._pump.run_until_exit()
        if self._pump.is_over or self._tree.leader.exit_status() is not None:
            await self._exit()
            if not self._pump.is_over:
                with trio.CancelScope() as draining:
                    self._ending.bound_drain(draining)
                    await self._pump.run()
            return
        async with trio.open_nursery() as pumping:  # no pidfd tells of its end, or a debugger holds it
            pumping.start_soon(owned, self._pump.run)
            await owned(self._exit)  # or the nursery would take a cancel of nobody for its own
            self._ending.bound_drain(pumping.cancel_scope)

    async def _exit(self) -> None:
        """Wait for the leader's end and log it, behind all that the leader wrote."""
        status = await self._tree.leader.wait_exited()
        self._streams.let_go_of_terminal()
        await self._pump.catch_up()
        reason = self._ending.reason(status)
        denial: Denial | None = None
        if self.confinement is not None and reason in ("exited", "signaled"):
            from execsrv._server.denial import denial_of  # few commands are confined

            denial = denial_of(status, self.log)
        self.log.append_exited(status.code, status.signal, reason, denial)
        self.feed.announce()
        if self._ends_with_leader and self._pump.is_held:
            self._ending.end_when_quiet()

    def _close_streams(self) -> None:
        self._pump.close()
        self.stdin.end()
        self._streams.close()

    # -- what may be asked of it --

    @property
    def is_over_runner(self) -> bool:
        """True where a runner is asked about its processes, which may not answer."""
        return self._tree.is_over_runner

    @property
    def pid(self) -> int:
        """The leader's pid."""
        return self._tree.pid

    def grace(self, default: float) -> float:
        """Return the seconds that it has after SIGTERM: those that its start asked for, else the default."""
        return default if self._grace is None else self._grace

    def terminate(self, reason: Reason = "terminated", grace: float = 0) -> bool:
        """End everything of it, whether or not its leader has ended. Return whether the leader was still running.

        With a grace, in seconds, it is asked first, and killed when that time is over. What the leader has printed is
        still delivered; what others hold of the streams gets `DRAIN_SECONDS` after the kill.
        """
        return self._ending.terminate(reason, grace)

    def signal(self, number: int, target: SignalTarget) -> Received:
        """Send a signal. Return how many processes received it. `foreground` is the job in front of a terminal."""
        if self._ending.is_over:
            return 0
        self._ending.was_sent_kill |= number == SIGKILL
        if target != "foreground":
            return self._tree.signal(number, target)
        return self._streams.signal_foreground(number)

    def resize(self, size: Size) -> None:
        """Change the size of its terminal."""
        self._streams.resize(size)

    @property
    def size(self) -> Size | None:
        """The size of its terminal, None where it has none any more."""
        return self._streams.size

    async def echoes(self) -> bool:
        """Return whether its terminal shows what is typed. One that is gone does as far as anybody knows."""
        return await self._streams.echoes()

    async def input_wait(self) -> InputWait | None:
        """Return a process of it that waits for input, None if there is none, or if written input is still unread."""
        if not self.stdin.is_open or self.stdin.is_waiting or self.log.exited is not None:
            return None
        return await self._streams.input_wait()

    @property
    def asked_limits(self) -> ProcessLimits | None:
        """The limits that its start has asked for."""
        return None if self._limits is None else self._limits.asked

    async def usage(self) -> Usage:
        """Return what it takes of processors and memory: all that lives of it, or what its leader has taken."""
        return await self._tree.usage()

    async def wait_empty(self) -> None:
        """Wait until neither the leader nor anything that descends from it lives. Cancelling stops waiting."""
        await self._ending.wait_empty()
