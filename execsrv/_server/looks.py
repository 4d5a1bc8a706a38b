"""The turns of those who look for something that they wait for (`process/waitFor`): many hold up nobody long."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import trio

T = TypeVar("T")

TURN_SECONDS = 0.004
"""So long all looks of a server together may hold up everybody else."""

MOST_TRIES = 4
"""So many ports one connection tries at once. Each has a descriptor, and some never answer."""

_MOST_PAUSES = 8
"""So many of those of one connection who look again and again, where nothing tells of a change, are in their pause."""


class Round:
    """What the looks of one server have taken since everybody else had a turn."""

    def __init__(self) -> None:
        self.spent = 0.0
        self.turn = trio.Lock()

    def __repr__(self) -> str:
        return f"<Round spent={self.spent:.6f}>"


class Looks:
    """Those of one connection."""

    def __init__(self, round: Round) -> None:
        """The `round` is their server's."""
        self.tries = trio.CapacityLimiter(MOST_TRIES)
        """Held by whoever tries a port, and by its pause behind that."""
        self._round = round
        self._turn = trio.Lock()
        self._pauses = trio.CapacityLimiter(_MOST_PAUSES)

    def __repr__(self) -> str:
        return f"<Looks {self._round} tries={self.tries.borrowed_tokens}>"

    async def pause(self, seconds: float) -> None:
        """Wait before the next look at what nothing tells of. Where many want to look, each has its turn."""
        async with self._pauses:
            await trio.sleep(seconds)

    async def take_turn(self) -> None:
        """Wait where others are to have their turn before the next look. Of each connection one look is next."""
        if self._round.spent < TURN_SECONDS and not self._round.turn.locked():
            return
        async with self._turn, self._round.turn:
            if self._round.spent >= TURN_SECONDS:
                await trio.lowlevel.checkpoint()
                self._round.spent = 0.0

    def timed(self, look: Callable[[], T]) -> T:
        """Take a look."""
        began = time.perf_counter()
        try:
            return look()
        finally:
            self._round.spent += time.perf_counter() - began
