"""What a user types at our terminal waits here for the program, with the manners of a terminal: see `TypedAhead`."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable

import trio

from execsrv._cli import terminal
from execsrv._nursery import open_helpers
from execsrv._typed_ahead import TypedAhead

LAST_KEYS_SECONDS = 0.5
"""Time that what was typed has to arrive, when the process is left."""

_WAITING_BYTES = 16 * 1024 * 1024
"""So much waits for the program: any paste of a person, for one that reads as slowly as it likes. The rest is lost."""


def typed_here() -> TypedAhead:
    """Return where keys of our terminal wait. Of those that are lost a bell tells, as for a terminal's own."""
    return TypedAhead(_WAITING_BYTES, lambda: terminal.write_now(b"\a", 0))


async def pass_typed(
    read: Callable[[], Awaitable[bytes]],
    write: Callable[[bytes], Awaitable[object]],
    escape: terminal.Escape,
    touched: Callable[[], None],
) -> bool:
    """Pass on what is typed until its end, or the escape. Return whether the user has typed that."""
    typed = typed_here()

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
