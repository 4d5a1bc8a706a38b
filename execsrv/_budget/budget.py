"""A budget: so much may be held at once, of bytes or of anything that is counted. Pure: no I/O, plain ints.

Whoever comes to hold something takes it first, and gives it back when it is let go. A budget may have another above it:
what is taken below is taken there too. So a principal's is below the server's, and neither is ever exceeded but by what
was there already and is only counted (`add`). What does not fit is refused, with the name of the limit and its value.

Before that, those who keep something for convenience forget it (`Keeper`): retained output, the oldest first.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Protocol

from execsrv.errors import LimitExceededError

STEP_BYTES = 64 * 1024
"""A `Share` grows and shrinks by this: most changes of what somebody holds then cost one comparison."""

_PORTION = 32
"""At least this part of a budget is forgotten at once, so that the search for the oldest is seldom."""

_FRUITLESS_SECONDS = 0.05
"""So long nobody is asked again to forget something, when nobody could: that takes long where there are many."""

turns = count(1)
"""Numbers that tell what came later. A keeper takes one whenever it gets something new."""


class Keeper(Protocol):
    """Somebody who keeps more than is needed. The one with the lowest `turn` forgets first."""

    turn: int

    def forget(self, size: int) -> int:
        """Give back at least so many bytes of what is not needed, or all of it, and return how many."""


class Budget:
    """So much of something, named by its setting. What is `taken` never exceeds `most` by taking."""

    __slots__ = ("_fruitless_until", "above", "keepers", "limit", "most", "refused", "taken", "whose")

    def __init__(self, limit: str = "", most: int = 1 << 62, above: Budget | None = None, whose: str = "") -> None:
        """`whose` says to people for whom the limit holds, where that is not everybody."""
        self.limit = limit
        self.most = most
        self.above = above
        self.whose = whose
        self.taken = 0
        self.refused = 0
        """How often somebody was refused."""
        self.keepers: dict[Keeper, None] = {}
        self._fruitless_until = 0.0

    def __repr__(self) -> str:
        return f"<Budget {self.limit} {self.taken} of {self.most}>"

    def take(self, size: int = 1) -> None:
        """Take so much. Raises `LimitExceededError`."""
        if (short := self.try_take(size)) is not None:
            short.refused += 1
            raise short.exceeded()

    def try_take(self, size: int) -> Budget | None:
        """Take so much, or return the budget that has too little left."""
        while (short := self.short_of(size)) is not None:
            if not short.forget(size):
                return short
        self.add(size)
        return None

    def short_of(self, size: int) -> Budget | None:
        """Return the budget that has too little left for so much, None where it can be taken."""
        budget: Budget | None = self
        while budget is not None and budget.taken + size <= budget.most:
            budget = budget.above
        return budget

    def add(self, size: int) -> None:
        """Count what is there already, whatever is left."""
        budget: Budget | None = self
        while budget is not None:
            budget.taken += size
            budget = budget.above

    def give(self, size: int = 1) -> None:
        """Give back so much."""
        self.add(-size)

    @contextmanager
    def taken_for(self, size: int) -> Iterator[None]:
        """Take so much for as long as the block lasts. Raises `LimitExceededError`."""
        self.take(size)
        try:
            yield
        finally:
            self.give(size)

    @property
    def is_over(self) -> bool:
        """True where nothing is left of it, or of the one above."""
        return self.short_of(0) is not None

    def exceeded(self) -> LimitExceededError:
        """Return the error of somebody who asks for more than is left."""
        text = f"{self.limit} ({self.most}{self.whose}) would be exceeded"
        return LimitExceededError(text, limit=self.limit, value=self.most)

    def keep(self, keeper: Keeper) -> None:
        """Ask this one too when something has to be forgotten."""
        budget: Budget | None = self
        while budget is not None:
            budget.keepers[keeper] = None
            budget = budget.above

    def leave(self, keeper: Keeper) -> None:
        """Ask this one no more."""
        budget: Budget | None = self
        while budget is not None:
            budget.keepers.pop(keeper, None)
            budget = budget.above

    def forget(self, size: int) -> bool:
        """Have the oldest forgotten that nobody needs. Return whether there was anything."""
        if not self.keepers or (self._fruitless_until and time.monotonic() < self._fruitless_until):
            return False
        self._fruitless_until = 0
        wanted = left = max(size, self.most // _PORTION)
        for keeper in sorted(self.keepers, key=_turn):
            if left <= 0:
                break
            left -= keeper.forget(left)
        if left == wanted:
            self._fruitless_until = time.monotonic() + _FRUITLESS_SECONDS
        return left < wanted


def _turn(keeper: Keeper) -> int:
    return keeper.turn


class Share:
    """The bytes that one holder has of a budget, in steps. `room` of them may be held without asking.

    `close` must follow.
    """

    __slots__ = ("_budget", "_taken", "room")

    def __init__(self, budget: Budget, room: int = 0) -> None:
        """So much room was taken by somebody else already."""
        self._budget = budget
        self._taken = 0
        self.room = room

    def grow(self, held: int) -> bool:
        """Have room for so much in all. Return False where the budget does not have it."""
        steps = -(-(held - self.room) // STEP_BYTES) * STEP_BYTES
        if steps > 0:
            if self._budget.try_take(steps) is not None:
                return False
            self._taken += steps
            self.room += steps
        return True

    def shrink(self, held: int) -> int:
        """Give back what is more than so much needs, and return how much that is."""
        surplus = min((self.room - held) // STEP_BYTES * STEP_BYTES, self._taken)
        if surplus <= 0:
            return 0
        self._budget.give(surplus)
        self._taken -= surplus
        self.room -= surplus
        return surplus

    def count(self, held: int) -> None:
        """Have room for so much that is held already, whatever the budget has."""
        if held > self.room:
            self._budget.add(held - self.room)
            self._taken += held - self.room
            self.room = held

    def close(self) -> None:
        """Give everything back."""
        self._budget.give(self._taken)
        self.room -= self._taken
        self._taken = 0
