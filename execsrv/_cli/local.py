"""`execsrv run` without a server: the command is our child, and nothing lies between it and our caller.

It stays in our session and process group, where the terminal's keys and stops reach it as they reach us, and has our
directory and our descriptors. Only what asks for it puts us in between: a terminal of its own, whose ends we join to
our streams, and an idle timeout or a recording, for which its output has to come through us.
"""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator

import trio
from msgspec.structs import replace

from execsrv._cli import terminal
from execsrv._cli.heard_signals import Heard, Signals, ignored_signals
from execsrv._cli.job import (
    FLOOD_SECONDS,
    QUIET_SECONDS,
    Cause,
    Clocks,
    Ended,
    Passing,
    Recorder,
    RunOptions,
    say_ended,
    timed_out,
)
from execsrv._cli.local_place import enter, has_no_children, inherited_environment
from execsrv._cli.local_streams import LocalStreams, open_streams
from execsrv._cli.signals import ENDING
from execsrv._cli.silence_rule import watch_silence
from execsrv._cli.streams import say
from execsrv._nursery import open_helpers
from execsrv._processes.accounts import account_of
from execsrv._processes.command import Wishes, settle
from execsrv._processes.git_trust import trusting
from execsrv._processes.inherited import Inherited
from execsrv._processes.leader import ExitStatus
from execsrv._processes.signals import signal_name
from execsrv._processes.supervisor import Spawned, open_supervisor
from execsrv.protocol import Member, Reason, Size

_STOP_SECONDS = 0.05
"""The command is stopped for good, and not about to be continued together with us, when it still is after that time."""

_OF_THE_GROUP = frozenset({signal.SIGINT, signal.SIGQUIT, signal.SIGWINCH})
"""Signals that the kernel sends to all of a terminal's foreground, and so to the command as well as to us."""


async def run_here(options: RunOptions, signals: Signals, report: Recorder | None = None) -> Ended:
    """Run a command as our child; return its end. `report` is given its output. Raises `SpawnError`."""
    env = inherited_environment(options)
    if options.cwd is not None:
        enter(options.cwd)
    account = None if options.user is None else account_of(options.user)
    if account is not None:
        env = {**env, **account.variables, **dict(setting.split("=", 1) for setting in options.env)}
    other = account if account is not None and not account.is_ours else None
    if other is not None:
        env = trusting(env, None)
    command = settle(options.argv, None, env, wishes=Wishes(account=other))
    if options.confines:
        from execsrv._cli.confining import confinement_here

        command = replace(command, confinement=confinement_here(options, env.get("TMPDIR")))
    if options.has_limits:
        from execsrv._cli.limiting import limits_of

        command = replace(command, limits=limits_of(options))
    with trio.open_signal_receiver(signal.SIGCHLD) as news, open_streams(options) as streams:
        streams.others = [] if report is None else [report]
        inherited = Inherited(
            streams.stdio,
            [descriptor for descriptor in options.pass_fd if descriptor > 2],
            ignored_signals(),
            terminal.modes(),
            terminal.window(),
        )
        async with open_supervisor(
            own_process=True,
            sole=has_no_children(),
            cgroups=command.limits is not None and command.limits.takes_group,
            guarded=not options.leave,
        ) as supervisor:
            await supervisor.begin_guard()
            size = Size() if options.tty else None
            spawned = supervisor.spawn(replace(command, inherited=inherited), size=size, pipe_stdin=False)
            streams.started(spawned.outputs.get("pty"), spawned.held)
            if options.verbose:
                say(f"execsrv: it runs here as pid {spawned.tree.pid}")
                if command.confinement is not None:
                    from execsrv._cli.confining import say_gaps_here

                    say_gaps_here(command.confinement)
            ended = await _Life(options, spawned, streams).live(signals, news)
            if streams.recording is not None:
                streams.recording.exit_code = ended.code
            return ended


class _Life:
    """One command from its start to the end of all that descends from it."""

    def __init__(self, options: RunOptions, spawned: Spawned, streams: LocalStreams) -> None:
        self._options = options
        self._tree = spawned.tree
        self._limits = spawned.limits
        self._streams = streams
        self._nursery: trio.Nursery | None = None
        self._clocks = Clocks(options)
        self._passing = Passing(
            options,
            resize=lambda: streams.resize(terminal.window()),  # of which nobody is told in the background
            send=lambda heard: self._tree.signal_now(heard.number, "leader"),
            kill=lambda number, grace: self._kill_after(grace, number),
            is_hung_up=options.tty,
        )
        self._is_over = False
        self._is_ending = False
        self._left_by: int | None = None
        streams.touched = self._clocks.touch
        streams.broken = lambda: self._ask(options.grace, signal.SIGHUP) if options.tty else None

    async def live(self, signals: Signals, news: AsyncIterator[int]) -> Ended:
        """Watch it, and end what outlives it. Return how it ended."""
        options, streams = self._options, self._streams
        try:
            with terminal.raw_terminal(options.tty) as self._passing.raw_again:
                async with open_helpers() as nursery:
                    self._nursery = nursery
                    nursery.start_soon(self._hear_signals, signals)
                    if options.tty:
                        nursery.start_soon(self._pass_keys)
                    else:
                        nursery.start_soon(self._stop_along, news)
                    self._clocks.watch(nursery, self._end_in_time)
                    streams.others += watch_silence(options, nursery)
                    streams.pump(nursery)
                    status = await self._tree.leader.wait_exited()
                    self._is_over = True
                    reached = self._limit_reached(status)
                    await streams.settle()
                    left = [] if options.leave else await self._end_rest()
                    await streams.settle()
        finally:
            if options.leave and self._is_over:
                self._tree.release()
            else:
                await self._tree.end()
            if self._limits is not None:
                usage = self._limits.usage()
                self._limits.remove()
        if (cause := self._clocks.ended_by) is not None:
            return timed_out(options, idle=cause == "idle")
        if left:
            say_ended(options, left)
        if self._left_by is not None:
            return Ended(128 + self._left_by, signal_name(self._left_by))
        ended = Ended(status.code, status.signal)
        if self._limits is None:
            return ended
        from execsrv._cli.limiting import ended_with

        return ended_with(options, ended, reached, usage)

    def _limit_reached(self, status: ExitStatus) -> Reason | None:
        """Return the limit that the command, whose leader is not reaped yet, has died of."""
        if self._limits is None or self._is_ending:
            return None
        return self._limits.reached(status, was_killed=False)

    # -- its end --

    async def _end_rest(self) -> list[Member]:
        """Ask all that outlives the command to end, and kill what does not. Return who that was."""
        with trio.move_on_after(QUIET_SECONDS):
            await self._tree.wait_alone()
        left = await self._tree.remaining()
        if left:
            if self._options.aftermath > 0:
                self._signal_all()
                with trio.move_on_after(self._options.aftermath):
                    await self._tree.wait_alone()
            await self._tree.kill()
        return left

    def _ask(self, grace: float, number: int = signal.SIGTERM) -> None:
        """Ask all of it to end, and kill it when the grace is over."""
        if grace > 0:
            self._signal_all(number)
        self._kill_after(grace)

    def _signal_all(self, number: int = signal.SIGTERM) -> None:
        self._is_ending = True
        try:
            if number != signal.SIGTERM:
                self._tree.signal_now(number, "tree")
            self._tree.ask_to_end_now()
        except OSError:
            pass  # no descriptor is left to look with; it is killed in the end

    def _kill_after(self, grace: float, number: int | None = None) -> None:
        """Kill it, and leave a moment later what it has printed, if nobody takes that: then a signal is our end too."""

        async def kill() -> None:
            await trio.sleep(grace)
            self._is_ending = True
            await self._tree.kill()
            await trio.sleep(FLOOD_SECONDS)
            if self._streams.leave():
                self._left_by = number

        assert self._nursery is not None
        self._nursery.start_soon(kill)

    async def _end_in_time(self, cause: Cause) -> None:
        if self._clocks.ended_by is not None:
            return
        if not self._tree.leader.has_ended:
            self._clocks.ended_by = cause
            self._ask(self._options.grace)
            return
        await trio.sleep(self._options.grace + FLOOD_SECONDS)
        if self._streams.leave():
            self._clocks.ended_by = cause

    # -- signals and keys --

    async def _hear_signals(self, signals: Signals) -> None:
        while True:
            for heard in await signals.next():
                await self._hear(heard)

    async def _hear(self, heard: Heard) -> None:
        """Pass a signal on, unless the command has it already."""
        number = heard.number
        if self._is_over:
            if number in ENDING:
                self._kill_after(0, number)
            return
        if not self._passing.is_of_terminal(number) and not await self._has_it(heard):
            self._passing.hear(heard)

    async def _has_it(self, heard: Heard) -> bool:
        """Tell whether the command was sent a signal together with us, or sent it to our group itself."""
        if not heard.by_kernel:
            return any(member.pid == heard.sender for member in await self._tree.remaining())
        if self._options.tty:
            return False
        # The leader of a session is told alone that its terminal was hung up.
        return heard.number in _OF_THE_GROUP or (heard.number == signal.SIGHUP and os.getsid(0) != os.getpid())

    async def _pass_keys(self) -> None:
        if self._options.no_stdin:
            return
        escape = terminal.Escape() if os.isatty(0) else None
        if await self._streams.pass_keys(escape):
            self._ask(self._options.aftermath)

    async def _stop_along(self, news: AsyncIterator[int]) -> None:
        """Stop when the command has stopped, so that whoever waits for us hears of it. We are continued together."""
        async for _ in news:
            if self._is_ending:
                return  # what is to be ended is stopped in between
            if self._stopped_by():
                await trio.sleep(_STOP_SECONDS)
                if (number := self._stopped_by()) and not self._is_ending:
                    os.kill(os.getpid(), number)

    def _stopped_by(self) -> int:
        """Return the signal that has stopped the command, 0 while it is not stopped."""
        try:
            result = os.waitid(os.P_PID, self._tree.pid, os.WSTOPPED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return 0
        return result.si_status if result is not None and result.si_code == os.CLD_STOPPED else 0
