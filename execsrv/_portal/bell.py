"""The bell by which the portal's thread wakes a task of asyncio. It knows nothing of what the task waits for."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


class Bell:
    """Wakes the one task that waits, from another thread."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._future: asyncio.Future[None] = self._loop.create_future()
        self.is_expired = False

    def ring(self) -> None:
        """Wake it, from any thread."""
        try:
            self._loop.call_soon_threadsafe(self._rung)
        except RuntimeError:
            pass  # the loop is closed, and nobody waits

    def _rung(self) -> None:
        if not self._future.done():
            self._future.set_result(None)

    @contextmanager
    def expiring(self, seconds: float) -> Iterator[None]:
        """Ring by itself behind so many seconds of the block, and `is_expired` from then on."""
        timer = self._loop.call_later(seconds, self._expire)
        try:
            yield
        finally:
            timer.cancel()

    def _expire(self) -> None:
        self.is_expired = True
        self._rung()

    async def wait(self) -> None:
        """Wait until it rings."""
        if self._future.done():
            self._future = self._loop.create_future()
        await self._future
