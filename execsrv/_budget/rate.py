"""A rate: so much may be done in a time, and what was not done is saved up to a bound. Pure: no I/O, plain ints."""

from __future__ import annotations

import time

from execsrv.errors import LimitExceededError


class Rate:
    """So much a second, named by its setting; at once, as much as `seconds` of it.

    The clock is looked at when the credit is used up: to do something costs a subtraction.
    """

    __slots__ = (
        "_above",
        "_credit",
        "_most",
        "_per",
        "_per_second",
        "_renewed_at",
        "_seconds",
        "_value",
        "_whose",
        "limit",
        "refused",
    )

    def __init__(
        self, limit: str, value: int, above: Rate | None = None, whose: str = "", *, seconds: int, per: int = 1
    ) -> None:
        """`value` is for as many seconds as `per` has."""
        self.limit = limit
        self._above = above
        self._whose = whose
        self._seconds = seconds
        self._per = per
        self.allow(value)
        self._credit = self._most
        self._renewed_at = time.monotonic()
        self.refused = 0
        """How often somebody was refused."""

    def __repr__(self) -> str:
        return f"<Rate {self.limit} credit={self._credit} of {self._most}>"

    @property
    def most(self) -> int:
        """So much may be done at once, when nothing was done for a while."""
        return self._most

    @property
    def taken(self) -> int:
        """So much less may be done at once now."""
        self._renew()
        return max(0, self._most - self._credit)

    def allow(self, value: int) -> None:
        """Allow so much from now on. What was saved up stays."""
        self._value = value
        self._per_second = value / self._per
        self._most = int(value * self._seconds / self._per)

    def take(self, size: int = 1) -> None:
        """Do so much, now. Raises `LimitExceededError`."""
        if self._credit < size:
            self._renew()
            if self._credit < size:
                self.refused += 1
                text = f"{self.limit} ({self._value}{self._whose}) would be exceeded"
                raise LimitExceededError(text, limit=self.limit, value=self._value)
        if self._above is not None:
            self._above.take(size)
        self._credit -= size

    def _renew(self) -> None:
        now = time.monotonic()
        more = int((now - self._renewed_at) * self._per_second)
        if more:
            self._credit = min(self._most, self._credit + more)
            self._renewed_at = now
