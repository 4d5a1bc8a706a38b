"""What is typed at our terminal faster than the program reads it: the keys are read all the same, and wait here.

So the escape keys are heard whatever the program and the server do. Only for a terminal: who writes into a pipe waits.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable

import trio

from execsrv._cli import terminal
from execsrv._nursery import open_helpers

LAST_KEYS_SECONDS = 0.5
"""Time that what was typed has to arrive, when the process is left."""

_WAITING_BYTES = 16 * 1024 * 1024
"""So much waits for the program: any paste of a person, for one that reads as slowly as it likes. The rest is lost."""

_PIECE_BYTES = 64 * 1024


class TypedAhead:
    """Keys between a task that reads them, and waits for nobody, and one that writes them."""

    def __init__(self, limit: int = _WAITING_BYTES) -> None:
        self._limit = limit
        self._waiting = bytearray()
        self._is_full = self._is_writing = self._is_over = False
        self._news = trio.lowlevel.ParkingLot()

    def type(self, keys: bytes) -> None:
        """Take keys. Those that there is no room for are lost, with a bell, as a terminal does it with its own."""
        room = self._limit - len(self._waiting)
        if len(keys) > room and not self._is_full:
            terminal.write_now(b"\a", 0)
        self._is_full = len(keys) > room
        self._waiting += keys[:room]
        self._news.unpark_all()

    def end(self) -> None:
        """Say that nothing more is typed."""
        self._is_over = True
        self._news.unpark_all()

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


async def pass_typed(
    read: Callable[[], Awaitable[bytes]],
    write: Callable[[bytes], Awaitable[object]],
    escape: terminal.Escape,
    touched: Callable[[], None],
) -> bool:
    """Pass on what is typed until its end, or the escape. Return whether the user has typed that."""
    typed = TypedAhead()

    async def write_all() -> None:
        while keys := await typed.next():
            await write(keys)

    async with open_helpers() as helpers:
        helpers.start_soon(write_all)
        while not escape.is_complete and (data := await read()):
            touched()
            typed.type(escape.take(data))
        with trio.move_on_after(LAST_KEYS_SECONDS if escape.is_complete else math.inf):
            await typed.all_written()
    return escape.is_complete
