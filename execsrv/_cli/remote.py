"""`execsrv run --url`: the command runs on a server, and its streams, its signals and its end come here."""

from __future__ import annotations

import signal
from functools import partial

import trio

from execsrv._cli import terminal
from execsrv._cli.connection_name import connected_as
from execsrv._cli.end_by_server import ENDED_BY_SERVER, until_unheard
from execsrv._cli.heard_signals import Signals
from execsrv._cli.job import (
    FLOOD_SECONDS,
    Cause,
    Clocks,
    Ended,
    Recorder,
    RunOptions,
    failed,
    pass_on,
    say_ended,
    timed_out,
)
from execsrv._cli.manners import Manners
from execsrv._cli.remote_signals import KILL_SECONDS, SignalsThere
from execsrv._cli.remote_start import reach_of, surroundings
from execsrv._cli.remote_stdin import has_stdin, pass_stdin
from execsrv._cli.silence_rule import watch_silence
from execsrv._cli.streams import say
from execsrv._log.entries import Closed, Exited
from execsrv._nursery import open_helpers
from execsrv._processes.signals import signal_name
from execsrv.client import Client, Event, Process
from execsrv.errors import LimitExceededError
from execsrv.protocol import Chunk

_HELD_SECONDS = 0.5
"""Time that the output may be quiet, and not at its end, after the end of the command: the network has its delays."""

_BACKSTOP_SECONDS = 5.0
"""Time by which the server ends a command later than we do, should we not be able to."""


async def run_there(options: RunOptions, url: str, signals: Signals, report: Recorder | None = None) -> Ended:
    """Run a command on a server; return its end. `report` is given its output. Raises `ExecsrvError`."""
    heard = SignalsThere(options)
    run = _RemoteRun(options, heard, report)
    async with open_helpers() as nursery:
        # Outside of what they end, so that a second signal cannot interrupt the clean-up after the first.
        nursery.start_soon(heard.hear, signals)
        with heard.scope:
            if options.pool is not None:
                from execsrv._cli.pooling import leased

                note = Manners(quiet=options.quiet).note
                async with leased(options.pool, options.label, reach_of(options, url), note) as lease:
                    return await run.through(lease, lease.server)
            async with connected_as(reach_of(options, url), options.name) as client:
                return await run.through(client, url)
    assert heard.ended_by is not None
    return Ended(128 + heard.ended_by, signal_name(heard.ended_by))


class _RemoteRun:
    """One command on a server, joined to our streams, and the times that concern it."""

    def __init__(self, options: RunOptions, heard: SignalsThere, report: Recorder | None) -> None:
        self._options = options
        self._heard = heard
        self._url = ""
        self._others = [] if report is None else [report]
        self._clocks = Clocks(options)
        self._exited: Exited | None = None

    async def through(self, client: Client, url: str) -> Ended:
        """Run the command on the server of that URL; return its end."""
        self._url = url
        try:
            return await self._run(client, self._options.grace)
        except LimitExceededError as error:
            bound = error.facts.get("value")
            is_of_grace = self._heard.process is None and error.facts.get("limit") == "max_grace"
            if is_of_grace and isinstance(bound, int | float):
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
            self._heard.process = process
            if options.verbose:
                say(f"execsrv: it runs at {self._url} as pid {process.pid}")
                if process.confined is not None:
                    from execsrv._cli.confining import say_gaps

                    say_gaps(process.confined)
            self._heard.started.set()
            with terminal.raw_terminal(options.tty) as self._heard.passing.raw_again:
                return await self._attend(client, process)

    async def _attend(self, client: Client, process: Process) -> Ended:
        """Join the command to our streams until all is over; return its end."""
        async with open_helpers() as nursery:
            self._others += watch_silence(self._options, nursery)
            if not self._options.no_stdin:
                nursery.start_soon(self._pass_stdin, process)
            self._clocks.watch(nursery, partial(self._end_in_time, client, process, nursery.cancel_scope))
            try:
                await self._pass_output(process)
                await self._pass_rest(process)
            except BrokenPipeError:  # whoever read our output has gone, and so does the command
                if self._clocks.ended_by is None:
                    return Ended(128 + signal.SIGPIPE, "SIGPIPE")
        exited, cause = self._exited, self._clocks.ended_by
        if exited is None or cause is not None or exited.reason in ("timeout", "idle"):
            return timed_out(self._options, idle="idle" in (cause, exited and exited.reason))
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
        self._heard.is_over = True

    async def _pass_rest(self, process: Process) -> None:
        """Pass on what is there behind the end of the command. What holds the streams open is asked to end."""
        end = trio.current_time() + FLOOD_SECONDS
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
                    await process.terminate(self._options.aftermath)
            elif asked:
                return  # it is killed when the block is left
            else:
                asked, end = True, trio.current_time() + self._options.aftermath + _BACKSTOP_SECONDS
                say("execsrv: ended what held the output of the command, and outlived it")
                await process.terminate(self._options.aftermath)

    async def _pass(self, event: Event | None) -> None:
        self._clocks.touch()
        if isinstance(event, Chunk):
            await pass_on(2 if event.stream == "stderr" else 1, event.chunk, others=self._others)

    # -- its time --

    async def _end_in_time(self, client: Client, process: Process, attending: trio.CancelScope, cause: Cause) -> None:
        """Have it ended, and leave a moment later what it has printed, if nobody takes that."""
        if self._clocks.ended_by is not None:
            return
        async with open_helpers() as helpers:
            helpers.start_soon(self._end_without, client, cause, attending)
            if self._exited is None and await process.terminate(self._options.grace):
                self._clocks.ended_by = cause
            await trio.sleep(self._options.grace + FLOOD_SECONDS)
        self._clocks.ended_by = self._clocks.ended_by or cause
        attending.cancel()

    async def _end_without(self, client: Client, cause: Cause, attending: trio.CancelScope) -> None:
        """Hang up where we cannot hear of the end, once its time is over: that ends the command too."""
        await until_unheard(client)
        if self._exited is None:
            self._clocks.ended_by = cause
            say("execsrv: the connection is interrupted, so the server has to end the command by itself")
            attending.cancel()

    # -- input --

    async def _pass_stdin(self, process: Process) -> None:
        if await pass_stdin(process, self._options.tty, self._clocks.touch):
            with trio.move_on_after(KILL_SECONDS) as patience:  # whether or not the server answers
                await process.terminate(self._options.aftermath)
            if patience.cancelled_caught:
                self._heard.die(signal.SIGTERM)
