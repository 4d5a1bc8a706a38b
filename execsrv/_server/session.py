"""One session: a started command from its start to its close, with its streams, its input and its log.

    started -> exited (the leader; known from the kernel, never from end-of-file)
            -> drained (every stream at its end) -> closed

It owns the tree of its processes, the server's ends of the streams, and the log. It runs as one task of its connection,
with its helpers below it, and all of them behind a shield. Cancelling that task asks the tree to end; its life
goes on for the grace, and what is left then is killed: that is the only way to lose a session. Its input is in
`stdin.py`, its output in `pump.py`, how it is made to end in `ending.py`. It knows nothing of messages.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from signal import SIGKILL
from typing import Any

import trio
from msgspec import UNSET

from execsrv._budget.budget import Budget
from execsrv._log.log import OutputLog
from execsrv._nursery import is_cancelled, owned
from execsrv._processes import input_wait, proc, streams, terminal
from execsrv._processes.attempt import Spawned
from execsrv._processes.input_wait import InputWait
from execsrv._processes.leader import ExitStatus
from execsrv._processes.proc import Steps
from execsrv._processes.usage import Usage, usage_of, used_by
from execsrv._server.confining import denial
from execsrv._server.ending import Ending
from execsrv._server.feed import Dialect, Feed
from execsrv._server.outbox import Outbox
from execsrv._server.pump import Pump
from execsrv._server.start_options import StartOptions, cost, largest_piece, new_clock
from execsrv._server.stdin import Stdin
from execsrv.limits import ServerConfig
from execsrv.protocol import Reason, SignalTarget
from execsrv.protocol.process_limits import ProcessLimits


class Session:
    """A running or ended command. `id` is what its connection calls it.

    `stdin` is its input, `feed` is what its peer hears of the `log`.
    """

    def __init__(
        self,
        id: str,
        spawned: Spawned,
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
        self.started_at = trio.current_time()
        self.is_terminal = "pty" in spawned.outputs
        self.log = OutputLog(
            config.retained_output_bytes_per_session,
            options.window_bytes or config.unsent_output_bytes,
            streams=spawned.outputs,
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
        self._group = spawned.group
        self._tree = spawned.tree
        self._outputs = spawned.outputs
        self._held = spawned.held
        self._grace = options.grace
        self._hangup_grace = config.hangup_grace
        self._ends_with_leader = options.ends_with_leader
        grace = self.grace(config.end_grace)
        self._ending = Ending(self._tree, self.feed, options.timeout, options.idle_timeout, grace, self._group)
        self._life: trio.CancelScope | None = None
        self._pump = Pump(spawned.outputs, self._tree.leader, self.log, self.feed, self._ending)
        self.stdin = Stdin(
            id,
            spawned.stdin,
            self._ending.idle,
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
        cancels it also calls `heed_cancel`: no task waits in front of the shield only to hear of it.
        """
        try:
            async with trio.open_nursery() as helpers:
                self._life = helpers.cancel_scope
                if is_cancelled():
                    self.heed_cancel()
                self._life.shield = True
                self._ending.open(helpers)
                if self.stdin.was_open:
                    helpers.start_soon(owned, self.stdin.feed)
                await owned(self._live)
                if helpers.child_tasks:
                    helpers.cancel_scope.cancel()
                self._ending.is_over = True  # before the nursery closes, so that nobody starts a helper any more
        finally:
            self._ending.is_over = True
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
        if self._life is not None and not self._ending.is_over:
            self.feed.leave()
            self._life.deadline = self._ending.hang_up(self.grace(self._hangup_grace))

    async def _live(self) -> None:
        """Go from running to its close, and on until nothing of it lives."""
        try:
            await self._exit_and_drain()
        except Exception:
            self._ending.is_over = True  # a fault of ours: it is killed at once, and its peer is told
            raise
        self._close_streams()
        proof = None
        if self._ends_with_leader:
            await self._ending.end_rest()
        if self._ending.asked:
            await self._ending.wait_alone()
            proof = await self._tree.kill()
        remaining = [] if proof else await self._tree.remaining()
        usage = None if self._group is None else self._group.usage(self._tree.leader)
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
        self._let_go_of_terminal()
        held = await self._pump.catch_up()
        reason = self._ending.reason(status)
        is_own_end = self.confinement is not None and reason in ("exited", "signaled")
        self.log.append_exited(status.code, status.signal, reason, denial(status, self.log) if is_own_end else None)
        self.feed.announce()
        if self._ends_with_leader and not all(map(streams.is_at_its_end, held)):
            self._ending.end_when_quiet()

    def _let_go_of_terminal(self) -> None:
        """Close the other end of the terminal: as long as its leader lives, it may be opened again by anybody of it."""
        if self._held is not None:
            os.close(self._held)
            self._held = None

    def _close_streams(self) -> None:
        self._pump.close()
        self.stdin.end()
        self._let_go_of_terminal()
        while self._outputs:
            os.close(self._outputs.popitem()[1])

    # -- what may be asked of it --

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

    def signal(self, number: int, target: SignalTarget) -> int:
        """Send a signal. Return how many processes received it. `foreground` is the job in front of a terminal."""
        if self._ending.is_over:
            return 0
        self._ending.was_sent_kill |= number == SIGKILL
        if target != "foreground":
            return self._tree.signal(number, target)
        return self._tree.signal_foreground(number, self._outputs["pty"]) if self._outputs else 0

    def resize(self, rows: int, cols: int, xpixel: int = 0, ypixel: int = 0) -> None:
        """Change the size of its terminal."""
        if "pty" in self._outputs:
            terminal.set_size(self._outputs["pty"], rows, cols, xpixel, ypixel)

    @property
    def master(self) -> int | None:
        """The server's end of its terminal, None where it has none any more."""
        return self._outputs.get("pty")

    def look_for_input_wait(self) -> Steps[InputWait | None]:
        """Look for a process of it that waits for input, where there is none that nobody has read yet."""
        if self.stdin.descriptor is None or self.stdin.is_waiting or self.log.exited is not None:
            return None
        pids: Steps[Any] = proc.family_in_steps([self._tree.pid])
        if self.is_terminal:
            if self._held is None or terminal.unread(self._held):
                return None
            master, front = self._outputs["pty"], os.tcgetpgrp(self._outputs["pty"])
            pids = input_wait.in_front(pids, lambda pid: proc.group(pid) == front)
            names = {terminal.name(master), "/dev/tty"}
        else:
            if terminal.unread(self.stdin.descriptor):
                return None
            names = {f"pipe:[{os.fstat(self.stdin.descriptor).st_ino}]"}
        return (yield from input_wait.look(pids, names))

    @property
    def limits(self) -> ProcessLimits | None:
        """The limits that it was started with."""
        return None if self._group is None else self._group.limits

    async def usage(self) -> Usage:
        """Return what it takes of processors and memory: all that lives of it, or what its leader has taken."""
        living = await self._tree.remaining()
        return usage_of(member.pid for member in living) if living else used_by(self._tree.leader.usage)

    async def wait_empty(self) -> None:
        """Wait until neither the leader nor anything that descends from it lives. Cancelling stops waiting."""
        await self._ending.wait_empty()
