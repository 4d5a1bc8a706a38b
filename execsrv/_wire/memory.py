"""Messages between two ends in one program: the very structs, no JSON."""

from __future__ import annotations

import trio

from execsrv.protocol import Message


class MemoryChannel:
    """One end of a pair (`MessageChannel`)."""

    def __init__(self, out: trio.MemorySendChannel[Message], into: trio.MemoryReceiveChannel[Message]) -> None:
        self._out = out
        self._in = into

    async def send(self, message: Message) -> None:
        """Hand the message over."""
        await self._out.send(message)

    async def receive(self) -> Message | None:
        """Return the next message, None at the end."""
        try:
            return await self._in.receive()
        except (trio.EndOfChannel, trio.ClosedResourceError):
            return None

    async def is_alive(self, patience: float) -> bool:
        """Return True: `receive` tells of every end."""
        return True

    async def wait_gone(self, interval: float, patience: float) -> None:
        """Wait for ever: an end that goes closes its side, and `receive` tells of it."""
        await trio.sleep_forever()

    async def aclose(self, code: int = 1000, reason: str = "") -> None:
        """Close both directions. There is nobody to say a reason to."""
        self._out.close()
        self._in.close()


def open_memory_pair(messages: int = 4) -> tuple[MemoryChannel, MemoryChannel]:
    """Return two connected ends, which hold up to `messages` in each direction."""
    to_b, from_a = trio.open_memory_channel[Message](messages)
    to_a, from_b = trio.open_memory_channel[Message](messages)
    return MemoryChannel(to_b, from_b), MemoryChannel(to_a, from_a)
