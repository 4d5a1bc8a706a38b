"""Signals that we are sent while a command runs on a server, for the command to hear of them."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import trio

from execsrv._cli import terminal
from execsrv._cli.heard_signals import Heard, Signals, stop_self
from execsrv._cli.job import Passing, RunOptions
from execsrv._cli.signals import ENDING
from execsrv._processes.signals import signal_name
from execsrv.client import Process
from execsrv.errors import ConnectionLostError, RequestError
from execsrv.protocol import SignalTarget

KILL_SECONDS = 1.0
"""Time that the server has to answer a kill. Then we hang up, which ends the command too."""

_STOP_SECONDS = 1.0
"""Time that the server has to stop the command before we stop."""


class SignalsThere:
    """The signals that concern one command on a server."""

    def __init__(self, options: RunOptions) -> None:
        self.scope = trio.CancelScope()
        """Cancelled by a signal that ends us, and the command with us."""
        self.ended_by: int | None = None
        """That signal."""
        self.process: Process | None = None
        self.started = trio.Event()
        """Set once the command hears of signals."""
        self.is_over = False
        """True once the command has ended."""
        self.passing = Passing(options, resize=self._resize, send=self._send, kill=self._kill_soon, is_hung_up=True)
        self._tasks: trio.Nursery | None = None
        self._is_stopping = False

    async def hear(self, signals: Signals) -> None:
        """Pass every signal on. One that asks for the end while there is no command, or a second, ends us."""
        async with trio.open_nursery() as self._tasks:
            while True:
                for heard in await signals.next():
                    self._hear(heard)

    def _hear(self, heard: Heard) -> None:
        number = heard.number
        if number == signal.SIGTSTP:
            self._soon(self._stop)
        elif self.process is None:
            if number in ENDING:
                self.die(number)
            else:
                self._soon(self._hear_when_started, heard)
        elif self.is_over:
            if number in ENDING:
                self._kill_soon(number)
        elif not self.passing.is_of_terminal(number):
            self.passing.hear(heard)

    def _soon(self, call: Callable[..., Awaitable[object]], *args: Any) -> None:
        """Have something done in a task: a server that does not answer must not keep us from the next signal."""
        assert self._tasks is not None
        self._tasks.start_soon(call, *args)

    async def _hear_when_started(self, heard: Heard) -> None:
        await self.started.wait()
        self._hear(heard)

    def _resize(self) -> None:
        if (window := terminal.window()) is not None and self.process is not None:
            self._soon(self._tell, partial(self.process.resize, *terminal.size_of(window)))

    def _send(self, heard: Heard) -> None:
        # Keys of a terminal concern all of its job, and so do its stops.
        is_for_all = heard.by_kernel or heard.number in (signal.SIGINT, signal.SIGCONT)
        target: SignalTarget = "group" if is_for_all else "leader"
        assert self.process is not None
        self._soon(self._tell, partial(self.process.send_signal, _name(heard.number), target))

    def _kill_soon(self, number: int, grace: float = 0) -> None:
        assert self.process is not None
        self._soon(self._kill, self.process, number, grace)

    async def _stop(self) -> None:
        """Stop, and have the command stopped before. It is continued together with us."""
        if self._is_stopping:
            return
        self._is_stopping = True
        with trio.move_on_after(_STOP_SECONDS):
            await self.started.wait()
            await self._tell_all("SIGSTOP")  # not SIGTSTP, which stops nobody in a session without a terminal
        will_hear_of_it = stop_self()
        self._is_stopping = False
        if not will_hear_of_it:
            await self._tell_all("SIGCONT")

    async def _tell_all(self, name: str) -> None:
        if self.process is not None and not self.is_over:
            await self._tell(partial(self.process.send_signal, name, "group"))

    async def _tell(self, call: Callable[[], Awaitable[object]]) -> None:
        try:
            await call()
        except (ConnectionLostError, RequestError):
            pass  # it has ended, or whoever reads the output hears of it too

    async def _kill(self, process: Process, number: int, grace: float) -> None:
        await trio.sleep(grace)
        with trio.move_on_after(KILL_SECONDS):
            await self._tell(process.kill)
        self.die(number)

    def die(self, number: int) -> None:
        """End, which ends the command."""
        if self.ended_by is None:
            self.ended_by = number
        self.scope.cancel()


def _name(number: int) -> str:
    return "interrupt" if number == signal.SIGINT else signal_name(number)
