"""Requests and their answers over one channel, from the side that asks.

Two tasks: a reader, which hands each answer to the call that waits for it, and a writer, the only one that sends, so
that a call that is cancelled never leaves half a message behind.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from itertools import count
from typing import TypeVar

import trio
from msgspec import Struct

from execsrv._codec import decode_params
from execsrv._transports import MessageChannel
from execsrv.errors import ConnectionLost, ExecsrvError, RequestError
from execsrv.protocol import METHODS, Failure, Message, MessageId, Notification, Request, Response

R = TypeVar("R", bound=Struct)


class Asked:
    """A request on its way."""

    __slots__ = ("answer", "answered")

    def __init__(self) -> None:
        self.answered = trio.Event()
        self.answer: Response | Failure | None = None


class Calls:
    """See the module. `run` must run; `heard` is awaited for each notification, in order."""

    def __init__(self, channel: MessageChannel, heard: Callable[[Notification], Awaitable[None]]) -> None:
        self._channel = channel
        self._heard = heard
        self._ids = count(1)
        self._pending: dict[MessageId | None, Asked] = {}
        self._outbound, self._to_write = trio.open_memory_channel[Message](0)
        self.lost: ConnectionLost | None = None

    async def run(self) -> None:
        """Read and write until the connection ends; then every waiting call fails with `ConnectionLost`."""
        reason = "the server ended the connection"
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._write, nursery.cancel_scope)
                reason = await self._read() or reason
                nursery.cancel_scope.cancel()
        finally:
            self.lost = ConnectionLost(reason)
            self._to_write.close()
            for asked in self._pending.values():
                asked.answered.set()

    async def call(self, method: str, params: Struct, result: type[R]) -> R:
        """Ask and wait for the answer. Raises the error that the server answered, or `ConnectionLost`.

        Cancelling stops waiting; whether the server still does what was asked is then unknown.
        """
        return await self.answer_to(await self.post(method, params), result)

    async def answer_to(self, asked: Asked, result: type[R]) -> R:
        """The second half of `call`."""
        await asked.answered.wait()
        match asked.answer:
            case Response(_, value):
                return decode_params(value, result)
            case Failure(_, error):
                raise RequestError.from_wire(error.code, error.message, error.data)
            case None:
                raise self._lost()

    async def post(self, method: str, params: Struct) -> Asked:
        """Ask without waiting for the answer."""
        assert method in METHODS
        id, asked = next(self._ids), Asked()
        self._pending[id] = asked
        try:
            await self._send(Request(id, method, params))
        except BaseException:
            del self._pending[id]
            raise
        return asked

    async def tell(self, method: str) -> None:
        """Notify the server."""
        await self._send(Notification(method))

    async def _send(self, message: Message) -> None:
        try:
            await self._outbound.send(message)
        except trio.BrokenResourceError:
            raise self._lost() from None

    def _lost(self) -> ConnectionLost:
        return ConnectionLost(*(self.lost.args if self.lost else ("the connection is closed",)))

    async def _write(self, reading: trio.CancelScope) -> None:
        try:
            async for message in self._to_write:
                await self._channel.send(message)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            # What the server said before it went is still worth reading; its end ends the reader too.
            return

    async def _read(self) -> str | None:
        """Take message after message until the end; why it came, if that was said."""
        said = None
        try:
            while (message := await self._channel.receive()) is not None:
                match message:
                    case Failure(None, error):
                        said = f"the server ended the connection: {error.message}"
                    case Response(id) | Failure(id):
                        if (asked := self._pending.pop(id, None)) is not None:
                            asked.answer = message
                            asked.answered.set()
                    case Notification():
                        await self._heard(message)
                    case Request(id, method):
                        return f"the server sent a request `{method}` ({id!r}), which clients do not answer"
        except ExecsrvError as error:
            return f"the server sent what is no message of ours: {error}"
        return said
