"""A pace: so many bytes a second for all that share it. Pure: no I/O, no clock of its own.

What is not used is saved for a second. Whoever takes a piece when there is some left may take more than that, and all
wait the longer.
"""

from __future__ import annotations

_SAVED_SECONDS = 1.0

TURN_SECONDS = 0.05
"""Whoever finds nothing left waits for that long: to look more often would cost more than it gives."""


class Pace:
    """What is left, as of some time."""

    __slots__ = ("_at", "_left", "_per_second")

    def __init__(self, per_second: int, now: float) -> None:
        self._per_second = per_second
        self._left = per_second * _SAVED_SECONDS
        self._at = now

    def __repr__(self) -> str:
        return f"<Pace {self._left:.0f} left of {self._per_second} a second>"

    def take(self, size: int) -> None:
        """Take so much, whatever is left."""
        self._left -= size

    def is_used_up(self, now: float) -> bool:
        """Return whether nothing is left at that time."""
        if self._left <= 0:
            self._left = min(self._left + (now - self._at) * self._per_second, self._per_second * _SAVED_SECONDS)
            self._at = now
        return self._left <= 0
