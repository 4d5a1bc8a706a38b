"""The frames on their way out of a runner: what is told first, and then in turn one of each stream that has something.

A stream is read only when its frame is the next to leave: what a command prints waits in its pipe, not in here. So a
slow reader costs no memory, no stream waits for more than one frame of each other one, and nothing that is told waits
for more than one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Protocol

import trio
from msgspec import Struct

from execsrv._runner.frames import encode

_MOST_TOLD_BYTES = 1024 * 1024
"""With so much that is told and not read, no further question is taken."""


class Source(Protocol):
    """A stream with something to send."""

    def take(self) -> bytes | None:
        """Return its next frame, None where there is none after all."""


class Outgoing:
    """One writer for all that a runner says. `run` is its task; nobody else sends."""

    def __init__(self, send: Callable[[bytes], Awaitable[None]]) -> None:
        self._send = send
        self._told: deque[bytes] = deque()
        self._told_bytes = 0
        self._ready: deque[Source] = deque()
        self._is_sending = False
        self._wanted = trio.lowlevel.ParkingLot()
        self._sent = trio.lowlevel.ParkingLot()

    def __repr__(self) -> str:
        return f"<Outgoing told={self._told_bytes} ready={len(self._ready)}>"

    def tell(self, message: Struct) -> None:
        """Send a message, behind those that were told before."""
        frame = encode(message)
        self._told.append(frame)
        self._told_bytes += len(frame)
        self._wanted.unpark()

    def ready(self, source: Source) -> None:
        """Send of a stream when its turn has come, once."""
        self._ready.append(source)
        self._wanted.unpark()

    async def wait_room(self) -> None:
        """Wait until enough of what was told has been read."""
        while self._told_bytes > _MOST_TOLD_BYTES:
            await self._sent.park()

    async def wait_sent(self) -> None:
        """Wait until all that was told has left."""
        while self._told or self._is_sending:
            await self._sent.park()

    async def run(self) -> None:
        """Send, for ever. Raises `trio.BrokenResourceError` where nobody reads any more."""
        while True:
            self._is_sending = False
            self._sent.unpark_all()
            while not (self._told or self._ready):
                await self._wanted.park()
            self._is_sending = True
            if self._told:
                told, self._told, self._told_bytes = b"".join(self._told), deque(), 0
                await self._send(told)
            elif (frame := self._ready.popleft().take()) is not None:
                await self._send(frame)
