"""Turns of large pieces of work: to read or write one takes milliseconds, and several at once would hold up others."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import TypeVar

import trio

R = TypeVar("R")

_turns: trio.lowlevel.RunVar[trio.Lock] = trio.lowlevel.RunVar("large work")


async def in_turns(steps: Generator[None, None, R]) -> R:
    """Do something step by step, and return what it gives at its end.

    Cancelling waits for that all the same: whoever is here holds a message that is not to be lost.
    """
    while True:
        with trio.CancelScope(shield=True):
            await my_turn()
        try:
            next(steps)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]


async def each_in_turn(steps: Iterator[None]) -> None:
    """Do something step by step. Cancelling leaves it undone."""
    await my_turn()
    for _ in steps:
        await my_turn()


async def my_turn() -> None:
    """Wait until everybody else who is ready has had a turn since the last large piece of work."""
    try:
        lock = _turns.get()
    except LookupError:
        _turns.set(lock := trio.Lock())
    async with lock:
        await trio.lowlevel.checkpoint()
