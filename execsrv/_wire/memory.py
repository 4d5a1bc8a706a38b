"""Messages between two ends in one program: the very structs, no JSON."""

from __future__ import annotations

import trio

from execsrv.protocol import Message


class MemoryChannel:
    """One end. See `MessageChannel`."""

    def __init__(self, out: trio.MemorySendChannel[Message], into: trio.MemoryReceiveChannel[Message]) -> None:
        self._out = out
        self._in = into

    async def send(self, message: Message) -> None:
        """See `MessageChannel`."""
        await self._out.send(message)

    async def receive(self) -> Message | None:
        """See `MessageChannel`."""
        try:
            return await self._in.receive()
        except (trio.EndOfChannel, trio.ClosedResourceError):
            return None

    async def wait_gone(self, interval: float, patience: float) -> None:
        """See `MessageChannel`. The kernel tells of every end."""
        await trio.sleep_forever()

    async def aclose(self, code: int = 1000, reason: str = "") -> None:
        """See `MessageChannel`. There is nobody to say a reason to."""
        self._out.close()
        self._in.close()


def open_memory_pair(messages: int = 4) -> tuple[MemoryChannel, MemoryChannel]:
    """Two connected ends, which hold up to `messages` in each direction."""
    to_b, from_a = trio.open_memory_channel[Message](messages)
    to_a, from_b = trio.open_memory_channel[Message](messages)
    return MemoryChannel(to_b, from_b), MemoryChannel(to_a, from_a)
