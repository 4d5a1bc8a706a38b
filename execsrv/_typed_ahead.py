"""What is typed at our terminal faster than the program reads it: the keys are read all the same, and wait here.

So the escape keys are heard whatever the program and the server do.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

_PIECE_BYTES = 64 * 1024


class TypedAhead:
    """Keys between a task that reads them, and waits for nobody, and one that writes them."""

    def __init__(self, limit: int, overflowed: Callable[[], None] = lambda: None) -> None:
        self._limit = limit
        self._overflowed = overflowed
        self._waiting = bytearray()
        self._is_full = self._is_writing = self._is_over = False
        self._news = trio.lowlevel.ParkingLot()

    def type(self, keys: bytes) -> None:
        """Take keys. Those beyond the limit are lost, and the first of them is told."""
        room = self._limit - len(self._waiting)
        if len(keys) > room and not self._is_full:
            self._overflowed()
        self._is_full = len(keys) > room
        self._waiting += keys[:room]
        self._news.unpark_all()

    def end(self) -> None:
        """Say that nothing more is typed."""
        self._is_over = True
        self._news.unpark_all()

    async def add(self, keys: bytes) -> None:
        """Take all keys, and wait until fewer than the limit wait."""
        self._waiting += keys
        self._news.unpark_all()
        while len(self._waiting) >= self._limit:
            await self._news.park()

    async def next(self) -> bytes:
        """Wait for keys and return them, empty at the end. Those that were returned before are written by now."""
        self._is_writing = False
        self._news.unpark_all()
        while not self._waiting and not self._is_over:
            await self._news.park()
        keys = bytes(self._waiting[:_PIECE_BYTES])
        del self._waiting[:_PIECE_BYTES]
        self._is_writing = bool(keys)
        return keys

    async def all_written(self) -> None:
        """Wait until all that was typed is written."""
        while self._waiting or self._is_writing:
            await self._news.park()
