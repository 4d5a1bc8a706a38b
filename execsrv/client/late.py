"""What a call for another thread has taken, when whoever made it was cancelled before the value had come there.

A task of trio is cancelled before it has taken something, or not at all. A thread, or a task of asyncio, can be
cancelled while the value is on its way: then what the call has done is undone.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio

T = TypeVar("T")

Undo = list[Callable[[], object]]
"""Functions that undo what a call has done, in the order in which that was done. None of them raises."""

_noted: dict[trio.lowlevel.Task, Undo] = {}
"""For each task that makes such a call. What it starts is not among them."""


async def noting(undo: Undo, function: Callable[[], Awaitable[T]]) -> T:
    """Make such a call, and note in `undo` how what it does is undone."""
    task = trio.lowlevel.current_task()
    _noted[task] = undo
    try:
        return await function()
    finally:
        del _noted[task]


def undo_if_late(undo: Callable[[], object]) -> None:
    """Have what this task has just done undone, if its value comes too late for whoever has called."""
    if (noted := _noted.get(trio.lowlevel.current_task())) is not None:
        noted.append(undo)
