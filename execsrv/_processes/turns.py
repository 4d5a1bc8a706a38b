"""Turns: a look at thousands of processes is taken step by step, and holds up nobody for long."""

from __future__ import annotations

import time
from collections.abc import Awaitable
from typing import TypeVar

import trio

from execsrv._processes.proc import Steps

T = TypeVar("T")

TURN_SECONDS = 0.004
"""So long a look at many processes may hold up everybody else."""


def in_one_turn(steps: Steps[T]) -> T | None:
    """Take as many steps as one turn has time for, and one at least. Return their result, None where there are more."""
    until = time.perf_counter() + TURN_SECONDS
    try:
        next(steps)
        while time.perf_counter() < until:
            next(steps)
    except StopIteration as done:
        found: T = done.value
        return found
    return None


async def in_turns(steps: Steps[T], turn: trio.Lock) -> T:
    """Take all steps, and return their result. What needs more than a moment lets others have their turns.

    All looks of a server share one `turn`, so that together they hold up everybody else no longer than one.
    """
    while True:
        has_turn = turn.locked()
        if has_turn:
            await turn.acquire()
        try:
            until = time.perf_counter() + TURN_SECONDS
            next(steps)
            while time.perf_counter() < until:
                next(steps)
            if not has_turn:
                turn.acquire_nowait()
                has_turn = True
            await trio.lowlevel.checkpoint()  # with the turn, so that nobody else takes one in this round
        except StopIteration as done:
            found: T = done.value
            return found
        finally:
            if has_turn:
                turn.release()


async def shielded(steps: Awaitable[T]) -> T:
    """Take steps that a cancel must not leave half taken."""
    with trio.CancelScope(shield=True):
        return await steps
    raise AssertionError("nobody else has this scope")
