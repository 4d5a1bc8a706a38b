"""`execsrv run --url`: the command runs on a server, and its streams, its signals and its end come here."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable
from functools import partial

import trio

from execsrv._cli import job, terminal
from execsrv._cli.connection_name import connected_as
from execsrv._cli.heard_signals import Heard, Signals, stop_self
from execsrv._cli.job import Ended, Insistence, Recorder, RunOptions, failed, pass_on, say_ended
from execsrv._cli.manners import Manners
from execsrv._cli.remote_end import ENDED_BY_SERVER, until_unheard
from execsrv._cli.remote_start import reach_of, surroundings
from execsrv._cli.remote_stdin import has_stdin, pass_stdin
from execsrv._cli.signals import ENDING
from execsrv._cli.silence_rule import watch_silence
from execsrv._cli.streams import say
from execsrv._log.entries import Closed, Exited
from execsrv._nursery import open_helpers
from execsrv._processes.signals import signal_name
from execsrv.client import Client, Event, Process
from execsrv.errors import ConnectionLostError, LimitExceededError, RequestError
from execsrv.protocol import Chunk, SignalTarget

_HELD_SECONDS = 0.5
"""Time that the output may be quiet, and not at its end, after the end of the command: the network has its delays."""

_BACKSTOP_SECONDS = 5.0
"""Time by which the server ends a command later than we do, should we not be able to."""

_KILL_SECONDS = 1.0
"""Time that the server has to answer a kill. Then we hang up, which ends the command too."""

_STOP_SECONDS = 1.0
"""Time that the server has to stop the command before we stop."""


async def run_there(options: RunOptions, url: str, signals: Signals, report: Recorder | None = None) -> Ended:
    """Run a command on a server; return its end. `report` is given its output. Raises `ExecsrvError`."""
    run = _RemoteRun(options, report)
    async with open_helpers() as nursery:
        # Outside of what they end, so that a second signal cannot interrupt the clean-up after the first.
        nursery.start_soon(run.hear_signals, signals)
        with run.scope:
            if options.pool is not None:
                from execsrv._cli.pooling import leased

                note = Manners(quiet=options.quiet).note
                async with leased(options.pool, options.label, reach_of(options, url), note) as lease:
                    return await run.through(lease, lease.server)
            async with connected_as(reach_of(options, url), options.name) as client:
                return await run.through(client, url)
    assert run.killed_by is not None
    return Ended(128 + run.killed_by, signal_name(run.killed_by))


class _RemoteRun:
    """One command on a server, joined to our streams, and the signals and the times that concern it."""

    def __init__(self, options: RunOptions, report: Recorder | None) -> None:
        self.scope = trio.CancelScope()
        self.killed_by: int | None = None
        self._options = options
        self._url = ""
        self._others = [] if report is None else [report]
        self._process: Process | None = None
        self._started = trio.Event()
        self._insistence = Insistence()
        self._idle = trio.CancelScope()
        self._timed_out: str | None = None
        self._exited: Exited | None = None
        self._is_stopping = False
        self._raw_again: Callable[[], None] = lambda: None

    async def through(self, client: Client, url: str) -> Ended:
        """Run the command on the server of that URL; return its end."""
        self._url = url
        try:
            return await self._run(client, self._options.grace)
        except LimitExceededError as error:
            bound = error.facts.get("value")
            if self._process is None and error.facts.get("limit") == "max_grace" and isinstance(bound, int | float):
                return await self._run(client, bound)  # no more than the server gives when we are gone
            raise

    async def _run(self, client: Client, grace: float) -> Ended:
        options = self._options
        patience = options.grace + _BACKSTOP_SECONDS
        async with client.start(
            options.argv,
            **surroundings(client, options),
            id=options.name,
            record=options.record,
            stdin=not options.no_stdin and (options.tty or has_stdin()),
            grace=grace,
            timeout=None if options.timeout is None else options.timeout + patience,
            idle_timeout=None if options.idle_timeout is None else options.idle_timeout + patience,
        ) as process:
            self._process = process
            if options.verbose:
                say(f"execsrv: it runs at {self._url} as pid {process.pid}")
                if process.confined is not None:
                    from execsrv._cli.confining import say_gaps

                    say_gaps(process.confined)
            self._started.set()
            with terminal.raw_terminal(options.tty) as self._raw_again:
                return await self._attend(client, process)

    async def _attend(self, client: Client, process: Process) -> Ended:
        """Join the command to our streams until all is over; return its end."""
        async with open_helpers() as nursery:
            self._others += watch_silence(self._options, nursery)
            if not self._options.no_stdin:
                nursery.start_soon(self._pass_stdin, process)
            if self._options.timeout is not None:
                clock = trio.CancelScope(deadline=trio.current_time() + self._options.timeout)
                nursery.start_soon(self._end_at, client, process, clock, "timeout", nursery.cancel_scope)
            if self._options.idle_timeout is not None:
                self._touch()
                nursery.start_soon(self._end_at, client, process, self._idle, "idle", nursery.cancel_scope)
            try:
                await self._pass_output(process)
                await self._pass_rest(process)
            except BrokenPipeError:  # whoever read our output has gone, and so does the command
                return Ended(128 + signal.SIGPIPE, "SIGPIPE")
        if (exited := self._exited) is None or self._timed_out is not None or exited.reason in ("timeout", "idle"):
            return job.timed_out(self._options, idle="idle" in (self._timed_out, exited and exited.reason))
        if exited.reason in ENDED_BY_SERVER:
            return failed(ENDED_BY_SERVER[exited.reason])
        ended = Ended(exited.exit_code, exited.signal)
        if not self._options.has_limits:
            return ended
        from execsrv._cli.limiting import ended_with

        return ended_with(self._options, ended, exited.reason, process.closed.usage if process.closed else None)

    # -- output --

    async def _pass_output(self, process: Process) -> None:
        """Pass the output on, each stream to our own of the same name, until the command has ended."""
        while not isinstance(event := await process.next_event(), Exited):
            await self._pass(event)
        self._exited = event

    async def _pass_rest(self, process: Process) -> None:
        """Pass on what is there behind the end of the command. What holds the streams open is asked to end."""
        end = trio.current_time() + job.FLOOD_SECONDS
        asked = False
        while True:
            with trio.move_on_at(end if asked else min(end, trio.current_time() + _HELD_SECONDS)) as patience:
                event = await process.next_event()
                if event is None:
                    return
            if not patience.cancelled_caught:
                await self._pass(event)
                if isinstance(event, Closed) and event.remaining:
                    say_ended(self._options, event.remaining)
                    await process.terminate(self._aftermath)
            elif asked:
                return  # it is killed when the block is left
            else:
                asked, end = True, trio.current_time() + self._aftermath + _BACKSTOP_SECONDS
                say("execsrv: ended what held the output of the command, and outlived it")
                await process.terminate(self._aftermath)

    @property
    def _aftermath(self) -> float:
        return min(self._options.grace, job.AFTERMATH_SECONDS)

    async def _pass(self, event: Event | None) -> None:
        self._touch()
        if isinstance(event, Chunk):
            await pass_on(2 if event.stream == "stderr" else 1, event.chunk, others=self._others)

    # -- its time --

    async def _end_at(
        self, client: Client, process: Process, clock: trio.CancelScope, cause: str, attending: trio.CancelScope
    ) -> None:
        with clock:
            await trio.sleep_forever()
        if self._exited is not None or self._timed_out is not None:
            return
        async with open_helpers() as helpers:
            helpers.start_soon(self._end_without, client, cause, attending)
            if await process.terminate(self._options.grace):
                self._timed_out = cause
                await trio.sleep_forever()

    async def _end_without(self, client: Client, cause: str, attending: trio.CancelScope) -> None:
        """Hang up where we cannot hear of the end, once its time is over: that ends the command too."""
        await until_unheard(client)
        if self._exited is None:
            self._timed_out = cause
            say("execsrv: the connection is interrupted, so the server has to end the command by itself")
            attending.cancel()

    def _touch(self) -> None:
        if self._options.idle_timeout is not None:
            self._idle.deadline = trio.current_time() + self._options.idle_timeout

    # -- input and signals --

    async def _pass_stdin(self, process: Process) -> None:
        if await pass_stdin(process, self._options.tty, self._touch):
            with trio.move_on_after(_KILL_SECONDS) as patience:  # whether or not the server answers
                await process.terminate(self._aftermath)
            if patience.cancelled_caught:
                self._die(signal.SIGTERM)

    async def hear_signals(self, signals: Signals) -> None:
        """Pass every signal on. One that asks for the end while there is no command, or a second, ends us."""
        async with trio.open_nursery() as nursery:
            while True:
                for heard in await signals.next():
                    self._hear(heard, nursery)

    def _hear(self, heard: Heard, nursery: trio.Nursery) -> None:
        number, process = heard.number, self._process
        if number == signal.SIGTSTP:
            nursery.start_soon(self._stop)
            return
        if process is None:
            if number in ENDING:
                self._die(number)
            else:
                nursery.start_soon(self._hear_when_started, heard, nursery)
            return
        if self._exited is not None:
            if number in ENDING:
                nursery.start_soon(self._kill, process, number)
            return
        if number in (signal.SIGWINCH, signal.SIGCONT) and self._options.tty:
            if number == signal.SIGCONT:
                self._raw_again()
            if (window := terminal.window()) is not None:
                # In a task: a server that does not answer must not keep us from the next signal.
                nursery.start_soon(self._tell, partial(process.resize, *terminal.size_of(window)))
            if number == signal.SIGWINCH:
                return
        weight = self._insistence.weigh(heard)
        if weight == "second":
            nursery.start_soon(self._kill, process, number)
        elif weight == "first":
            # Keys of a terminal concern all of its job, and so do its stops.
            is_for_all = heard.by_kernel or number in (signal.SIGINT, signal.SIGCONT)
            target: SignalTarget = "group" if is_for_all else "leader"
            nursery.start_soon(self._tell, partial(process.send_signal, _name(number), target))
            if number == signal.SIGTERM or (number == signal.SIGHUP and heard.by_kernel):
                nursery.start_soon(self._kill, process, number, self._options.grace)

    async def _hear_when_started(self, heard: Heard, nursery: trio.Nursery) -> None:
        await self._started.wait()
        self._hear(heard, nursery)

    async def _stop(self) -> None:
        """Stop, and have the command stopped before. It is continued together with us."""
        if self._is_stopping:
            return
        self._is_stopping = True
        with trio.move_on_after(_STOP_SECONDS):
            await self._started.wait()
            await self._tell_all("SIGSTOP")  # not SIGTSTP, which stops nobody in a session without a terminal
        will_hear_of_it = stop_self()
        self._is_stopping = False
        if not will_hear_of_it:
            await self._tell_all("SIGCONT")

    async def _tell_all(self, name: str) -> None:
        if self._process is not None and self._exited is None:
            await self._tell(partial(self._process.send_signal, name, "group"))

    async def _tell(self, call: Callable[[], Awaitable[object]]) -> None:
        try:
            await call()
        except (ConnectionLostError, RequestError):
            pass  # it has ended, or whoever reads the output hears of it too

    async def _kill(self, process: Process, number: int, grace: float = 0) -> None:
        await trio.sleep(grace)
        with trio.move_on_after(_KILL_SECONDS):
            await self._tell(process.kill)
        self._die(number)

    def _die(self, number: int) -> None:
        """End, which ends the command."""
        if self.killed_by is None:
            self.killed_by = number
        self.scope.cancel()


def _name(number: int) -> str:
    return "interrupt" if number == signal.SIGINT else signal_name(number)
