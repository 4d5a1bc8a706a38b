"""Messages over a websocket that belongs to another program: one that a web application has accepted.

The application's library speaks the protocol, pings, and bounds its frames. What is asked of it here is three calls.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import trio
from msgspec import UNSET, UnsetType

from execsrv._budget.budget import Budget
from execsrv._wire.bounds import above_bound
from execsrv._wire.channel import CLOSED_IN_ORDER
from execsrv._wire.encoded_channel import EncodedChannel
from execsrv.limits import Limits
from execsrv.protocol import Message, Response


class WebSocket(Protocol):
    """An accepted websocket of any library for trio. Quart's `websocket` is one as it is."""

    async def receive(self) -> str | bytes:
        """Return the next whole message. Raises anything of trio that says that there is none any more."""

    async def send(self, data: str) -> None:
        """Send a message."""

    async def close(self, code: int, reason: str) -> None:
        """Say goodbye."""


_ENDS: tuple[type[Exception], ...] = (trio.EndOfChannel, trio.ClosedResourceError, trio.BrokenResourceError)


class OfferedChannel(EncodedChannel):
    """A websocket of somebody else (`MessageChannel`). `ends` are the errors by which it says that the peer is gone."""

    def __init__(self, socket: WebSocket, limits: Limits, ends: tuple[type[Exception], ...] = ()) -> None:
        super().__init__()
        self._socket = socket
        self._max_bytes = limits.max_message_bytes
        self._ends = (*_ENDS, *ends)

    def agree(self, encoding: str | None, is_last: Callable[[Response], bool]) -> str | UnsetType:
        """Return nothing: a library's `send` may take text only."""
        return UNSET

    def _frame(self) -> int:
        return 0

    async def _send_written(self) -> None:
        try:
            await self._socket.send(self._buffer.decode())
        except self._ends:
            raise trio.BrokenResourceError from None

    async def receive(self) -> Message | None:
        """Return the next message, text or binary."""
        try:
            data = await self._socket.receive()
        except self._ends:
            return None
        if isinstance(data, str):
            data = data.encode(errors="surrogatepass")
        if len(data) > self._max_bytes:
            raise above_bound(self._max_bytes)
        return await self._read(data)

    def trust(self, budget: Budget) -> None:
        """Do nothing: the program that has offered it knows the peer, and its library bounds the messages."""

    async def is_alive(self, patience: float) -> bool:
        """Return True: the library of the websocket tells of every end."""
        return True

    async def wait_gone(self, interval: float, patience: float) -> None:
        """Wait for ever: to ping the peer is up to the library of the websocket."""
        await trio.sleep_forever()

    async def aclose(self, code: int = CLOSED_IN_ORDER, reason: str = "") -> None:
        """Close it with code and reason, as far as a close frame has room for that."""
        try:
            await self._socket.close(code, reason.encode()[:123].decode(errors="ignore"))
        except self._ends:
            pass  # it is closed already
