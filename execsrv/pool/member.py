"""One server of a pool: its connection, for as long as there is a server, and how much trust it has.

A server that cannot be reached, or is lost again and again, is tried ever more rarely. One that has no room for a
command, though there should be, rests. One that does not answer gets nothing new, and is lost when that goes on.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any, Literal, Protocol

import trio

from execsrv._nursery import happened, open_helpers
from execsrv.client.client import Client
from execsrv.client.inside import connection_of
from execsrv.directories import Endpoint
from execsrv.errors import (
    ConnectionFailedError,
    ConnectionLostError,
    ExecsrvError,
    InvalidListenURLError,
    InvalidParamsError,
    RequestError,
)
from execsrv.limits import ClientConfig
from execsrv.pool.labels import labels_of
from execsrv.pool.scheduler import Scheduler
from execsrv.protocol import EnvironmentStatus, Unit

logger = logging.getLogger(__name__)

State = Literal["new", "up", "interrupted", "silent", "resting", "ending", "lost"]

Dial = Callable[[Endpoint], AbstractAsyncContextManager["Line"]]
"""Opens a connection to a server. Raises `ConnectionFailedError`."""

TakeTurn = Callable[..., Awaitable[None]]
"""A task that waits for its turn to connect, starts with a scope, and ends the turn when that is cancelled."""

_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.25, 30.0
"""Before a server that was lost is tried again. Each time in a row twice as long, and never at the same time as others
that have lost it too."""

_FIRST_REST_SECONDS, _LONGEST_REST_SECONDS = 0.05, 5.0
"""For a server that had no room."""

_STEADY_SECONDS = 5.0
"""After so long a connection is taken for one that works."""


class Line(Protocol):
    """What a pool wants of a connection."""

    @property
    def run(self) -> Callable[..., Awaitable[Any]]:
        """Runs a command as `Client.run` does."""

    async def ask(self) -> None:
        """Ask for a sign of life. Raises `ConnectionLostError`."""

    @property
    def is_lost(self) -> bool:
        """True once the connection is lost for good."""

    async def wait_lost(self) -> str:
        """Wait until the connection is lost for good, and return why."""

    async def wait_interrupted(self, wanted: bool) -> None:
        """Wait until the connection is interrupted, or is not."""

    @property
    def is_ending(self) -> bool:
        """True once the server has said that it starts nothing any more."""


class ClientLine:
    """A client as a line."""

    def __init__(self, client: Client) -> None:
        self.run: Callable[..., Awaitable[Any]] = client.run
        self._connection = connection_of(client)
        self.wait_interrupted = self._connection.wait_interrupted

    async def ask(self) -> None:
        """Ask for a sign of life. A refusal is one. Raises `ConnectionLostError`."""
        try:
            await self._connection.calls.call("environment/status", Unit(), EnvironmentStatus)
        except RequestError:
            return

    @property
    def is_lost(self) -> bool:
        """True once the connection is lost for good."""
        return self._connection.calls.lost is not None

    async def wait_lost(self) -> str:
        """Wait until the connection is lost for good, and return why."""
        await happened(self._connection.calls.ended)
        return str(self._connection.calls.lost)

    @property
    def is_ending(self) -> bool:
        """True once the server has said that it starts nothing any more."""
        return self._connection.ends_at is not None


class Member:
    """One server, as long as the directory has it, and longer while something runs there."""

    def __init__(self, endpoint: Endpoint, slots: int, scheduler: Scheduler, config: ClientConfig) -> None:
        self.endpoint = endpoint
        self.labels = labels_of(endpoint.labels)
        self.running = 0
        self.slots = slots
        self.is_resting = False
        """True while it is to be left alone for a moment."""
        self.why = ""
        self.is_hopeless = False
        """True where it never took us, and waiting would not change that."""
        self.line: Line | None = None
        self._was_up = False
        self._scheduler = scheduler
        self._config = config
        self._is_silent = False
        self._is_interrupted = False
        self._rest = _FIRST_REST_SECONDS
        self._pause = _FIRST_PAUSE_SECONDS
        self._is_leaving = False
        self._idle = trio.Event()
        self._nursery: trio.Nursery | None = None

    def __str__(self) -> str:
        return self.endpoint.url

    def __repr__(self) -> str:
        return f"<Member {self.endpoint.url} {self.state} running={self.running}>"

    @property
    def is_there(self) -> bool:
        """True while it takes commands, though it may have no room for one now."""
        line = self.line
        return line is not None and not (self._is_silent or self._is_interrupted or self._is_leaving or line.is_ending)

    @property
    def state(self) -> State:
        """How it is, for people."""
        if self.line is None:
            return "lost" if self.why else "new"
        if self._is_leaving or self.line.is_ending:
            return "ending"
        if self._is_interrupted:
            return "interrupted"
        if self._is_silent:
            return "silent"
        return "resting" if self.is_resting else "up"

    # -- what commands have met with --

    def has_run(self) -> None:
        """Note that a command has run there."""
        self._rest, self._pause = _FIRST_REST_SECONDS, _FIRST_PAUSE_SECONDS

    def had_no_room(self, why: str) -> None:
        """Leave it alone for a moment, each time in a row for longer."""
        self.why = why
        if self.is_resting or self._nursery is None:
            return  # others have met with the same
        self.is_resting = True
        self._nursery.start_soon(self._have_rest)

    async def _have_rest(self) -> None:
        seconds, self._rest = self._rest, min(2 * self._rest, _LONGEST_REST_SECONDS)
        await trio.sleep(seconds * random.uniform(0.5, 1.5))
        self.is_resting = False
        self._scheduler.fill(self)

    def has_lost(self, line: Line, why: str) -> str:
        """Note that a command was lost, most likely with its connection, and return why: others may know better."""
        if line.is_lost:
            self._lose(line, why)
        return why if self.line is line else self.why or why

    def _lose(self, line: Line, why: str) -> None:
        if self.line is line:
            self.line, self.why = None, why

    def give(self) -> None:
        """Give a place back."""
        self._scheduler.give(self)
        if self._is_leaving and not self.running:
            self._idle.set()

    def leave(self) -> None:
        """Take nothing new, and end when nothing runs here any more."""
        self._is_leaving = True
        if not self.running:
            self._idle.set()

    def come_back(self) -> None:
        """Take what is new again, while something runs here."""
        self._is_leaving = False

    # -- its connections --

    async def stay(self, dial: Dial, take_turn: TakeTurn) -> None:
        """Be connected, again and again, until it has left."""
        try:
            async with open_helpers() as nursery:
                self._nursery = nursery
                nursery.start_soon(self._keep_dialing, dial, take_turn, nursery)
                await happened(self._idle)
        finally:
            self._nursery = None  # a lease may still be on its way when the pool is closed

    async def _keep_dialing(self, dial: Dial, take_turn: TakeTurn, nursery: trio.Nursery) -> None:
        while True:
            endpoint = self.endpoint
            try:
                async with AsyncExitStack() as stack:
                    turn = await nursery.start(take_turn)
                    try:
                        line = await stack.enter_async_context(dial(endpoint))
                    finally:
                        turn.cancel()
                    await self._stay_connected(line)
            except (ExecsrvError, OSError, ValueError) as error:  # a directory may name any host
                self.why = str(error)
                self.is_hopeless = not self._was_up and endpoint is self.endpoint and _is_final(error)
                if self.is_hopeless:
                    self._scheduler.look()
            except Exception as error:  # such as no thread to be had: it is no fault of the other servers
                logger.exception("cannot connect to `%s`", self.endpoint.url)
                self.why = repr(error)
            await trio.sleep(self._pause * random.uniform(0.5, 1.5))
            self._pause = min(2 * self._pause, _LONGEST_PAUSE_SECONDS)

    async def _stay_connected(self, line: Line) -> None:
        """Have commands use a connection until it is lost."""
        began = trio.current_time()
        self.line, self.why, self._is_silent, self._is_interrupted = line, "", False, False
        self._was_up, self.is_hopeless = True, False
        self._scheduler.fill(self)
        try:
            async with open_helpers() as nursery:
                nursery.start_soon(self._watch_interruptions, line)
                nursery.start_soon(self._keep_asking, line, nursery.cancel_scope)
                self._lose(line, await line.wait_lost())
        finally:
            self._lose(line, "the connection was given up")
        if trio.current_time() - began > _STEADY_SECONDS:
            self._pause = _FIRST_PAUSE_SECONDS

    async def _watch_interruptions(self, line: Line) -> None:
        while True:
            await line.wait_interrupted(True)
            self._is_interrupted = True
            await line.wait_interrupted(False)
            self._is_interrupted = False
            self._scheduler.fill(self)

    async def _keep_asking(self, line: Line, connected: trio.CancelScope) -> None:
        """Ask for signs of life, and give the connection up when there is none."""
        patience = self._config.ping_timeout
        why = f"no answer within {patience:g} s"
        try:
            while True:
                await trio.sleep(self._config.ping_interval)
                with trio.move_on_after(patience / 2) as first:
                    await line.ask()
                if not first.cancelled_caught:
                    continue
                self._is_silent = True
                with trio.move_on_after(patience / 2) as last:
                    await line.ask()
                if last.cancelled_caught and not self._is_interrupted:
                    break
                self._is_silent = False
                self._scheduler.fill(self)
        except ConnectionLostError as error:
            why = str(error)
        if self.line is line:
            self._lose(line, why)
            connected.cancel()


def _is_final(error: Exception) -> bool:
    """Return True where the next attempt to connect would fail for the same reason."""
    if isinstance(error, ConnectionFailedError):
        return error.is_final
    return isinstance(error, InvalidListenURLError | InvalidParamsError | ValueError)
