"""Messages between two ends in one program: the very structs, no JSON."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import trio
from msgspec import UNSET, UnsetType, msgpack

from execsrv._budget.budget import Budget
from execsrv._wire.channel import CLOSED_IN_ORDER
from execsrv.protocol import Message, Response


class _Direction:
    """Messages on their way from one end to the other. Closed by either end, what is in it can still be received."""

    def __init__(self, most: int) -> None:
        self.messages: deque[Message] = deque()
        self.most = most
        self.is_closed = False
        self.take: Callable[[Message], bool] | None = None
        self.readers = trio.lowlevel.ParkingLot()
        self.writers = trio.lowlevel.ParkingLot()

    def close(self) -> None:
        self.is_closed = True
        self.readers.unpark_all()
        self.writers.unpark_all()


class MemoryChannel:
    """One end of a pair (`MessageChannel`)."""

    passing = None
    goodbye = ""

    def __init__(self, out: _Direction, into: _Direction) -> None:
        self._out = out
        self._in = into
        self._is_closed = False

    async def send(self, message: Message) -> None:
        """Hand the message over."""
        await trio.lowlevel.checkpoint_if_cancelled()
        while not (self.has_room or self._out.is_closed):
            await self._out.writers.park()
        self.send_now(message)
        await trio.lowlevel.cancel_shielded_checkpoint()

    @property
    def has_room(self) -> bool:
        """True while the other end has not fallen behind."""
        return len(self._out.messages) < self._out.most and not self._out.is_closed

    def send_now(self, message: Message) -> bool:
        """Hand the message over at once. Raises as `send` does."""
        if self._is_closed:
            raise trio.ClosedResourceError
        if self._out.is_closed:
            raise trio.BrokenResourceError
        if self._out.readers:
            if self._out.take is not None and self._out.take(message):
                return True
            self._out.readers.unpark()
        self._out.messages.append(message)
        return True

    async def send_rest(self) -> None:
        """Do nothing: no part of a message is ever left."""

    def size_of(self, message: Message) -> int:
        """Return how many bytes it has in the densest encoding: it is bounded as elsewhere, though none is used."""
        return len(msgpack.encode(message))

    async def receive(self) -> Message | None:
        """Return the next message, None at the end.

        What is there is returned without a turn for others: it is a few messages, and then they have theirs.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        while not self._in.messages:
            if self._in.is_closed:
                return None
            await self._in.readers.park()
        if self._is_closed:
            return None
        if self._in.writers:
            self._in.writers.unpark()
        return self._in.messages.popleft()

    def hear(self, take: Callable[[Message], bool]) -> None:
        """Have a message that arrives while `receive` waits taken at once, by whoever sends it."""
        self._in.take = take

    def agree(self, encoding: str | None, is_last: Callable[[Response], bool]) -> str | UnsetType:
        """Return nothing: structs are passed as they are."""
        return UNSET

    def trust(self, budget: Budget) -> None:
        """Do nothing: what is in memory already is not bounded."""

    async def is_alive(self, patience: float) -> bool:
        """Return True: `receive` tells of every end."""
        return True

    async def wait_gone(self, interval: float, patience: float) -> None:
        """Wait for ever: an end that goes closes its side, and `receive` tells of it."""
        await trio.sleep_forever()

    async def aclose(self, code: int = CLOSED_IN_ORDER, reason: str = "") -> None:
        """Close both directions. There is nobody to say a reason to."""
        self._is_closed = True
        self._out.close()
        self._in.close()


def open_memory_pair(messages: int = 32) -> tuple[MemoryChannel, MemoryChannel]:
    """Return two connected ends, which hold up to `messages` in each direction."""
    there, back = _Direction(messages), _Direction(messages)
    return MemoryChannel(there, back), MemoryChannel(back, there)
