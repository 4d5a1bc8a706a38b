"""A rate: so much may be done in a time, and what was not done is saved up to a bound. Pure: no I/O, plain ints."""

from __future__ import annotations

import time

from execsrv.errors import LimitExceededError


class Rate:
    """So much a second, named by its setting; at once, as much as `seconds` of it.

    The clock is looked at when the credit is used up: to do something costs a subtraction.
    """

    __slots__ = ("_above", "_credit", "_limit", "_most", "_per_second", "_renewed_at", "_value", "_whose", "refused")

    def __init__(
        self, limit: str, value: int, above: Rate | None = None, whose: str = "", *, seconds: int, per: int = 1
    ) -> None:
        """`value` is for as many seconds as `per` has."""
        self._limit = limit
        self._value = value
        self._above = above
        self._whose = whose
        self._per_second = value / per
        self._most = self._credit = int(value * seconds / per)
        self._renewed_at = time.monotonic()
        self.refused = 0
        """How often somebody was refused."""

    def __repr__(self) -> str:
        return f"<Rate {self._limit} credit={self._credit} of {self._most}>"

    def take(self, size: int = 1) -> None:
        """Do so much, now. Raises `LimitExceededError`."""
        if self._credit < size:
            self._renew()
            if self._credit < size:
                self.refused += 1
                text = f"{self._limit} ({self._value}{self._whose}) would be exceeded"
                raise LimitExceededError(text, limit=self._limit, value=self._value)
        if self._above is not None:
            self._above.take(size)
        self._credit -= size

    def _renew(self) -> None:
        now = time.monotonic()
        more = int((now - self._renewed_at) * self._per_second)
        if more:
            self._credit = min(self._most, self._credit + more)
            self._renewed_at = now
