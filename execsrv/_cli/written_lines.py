"""Lines that many tasks write to one descriptor, each whole. Whoever reads them slowly holds up those tasks alone."""

from __future__ import annotations

from collections.abc import Callable

import trio

from execsrv._wire.writing import write_all


class WrittenLines:
    """What is written to a descriptor. Lines that come while others are being written go together."""

    def __init__(self, descriptor: int, before: Callable[[], None] = lambda: None) -> None:
        """`before` is called before anything is written."""
        self._descriptor = descriptor
        self._before = before
        self._waiting: list[bytes] = []
        self._turn = trio.Lock()
        self._limiter = trio.CapacityLimiter(1)

    async def write(self, line: bytes) -> None:
        """Write a line, and return when it is written. Raises `OSError`. Cancelled, it may be written or not."""
        self._waiting.append(line)
        async with self._turn:
            if lines := b"".join(self._waiting):
                self._waiting.clear()
                self._before()
                await trio.to_thread.run_sync(
                    write_all, self._descriptor, lines, limiter=self._limiter, abandon_on_cancel=True
                )
