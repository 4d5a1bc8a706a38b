"""The sessions that an agent knows: their numbers, how many there may be, and what became of those it forgot."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import TYPE_CHECKING

import trio

from execsrv.agents.answers import Facts
from execsrv.errors import ExecsrvError, LimitExceededError

if TYPE_CHECKING:
    from execsrv.agents.session import Session

_NAMED = 20
"""Sessions that an error names."""


class UnknownSessionError(ExecsrvError):
    """There is no session of that number, or none any more; the text says which are there, or how it ended."""


class Book:
    """At most `most` sessions, the oldest that has ended going first, and the ends of `remembered` that went."""

    def __init__(self, most: int, remembered: int) -> None:
        self.sessions: dict[int, Session] = {}
        self._most = most
        self._remembered = remembered
        self._ends: dict[int, Facts] = {}
        self._numbers = count(1)
        self._starting: set[int] = set()
        self._is_closed = False

    def close(self) -> None:
        """Take no other session from now on."""
        self._is_closed = True

    @contextmanager
    def room(self) -> Iterator[int]:
        """Give the number of another session, for which there is room in this block.

        Raises `LimitExceededError`, and `trio.ClosedResourceError` where it takes no other.
        """
        if self._is_closed:
            raise trio.ClosedResourceError("the block of the tools was left")
        if len(self._starting | self.sessions.keys()) >= self._most and not self._forget_one():
            message = f"cannot start another command: {self._most} go on, as many as max_sessions allows; end one first"
            raise LimitExceededError(message, limit="max_sessions", value=self._most)
        self._starting.add(number := next(self._numbers))
        try:
            yield number
        finally:
            self._starting.discard(number)

    def _forget_one(self) -> bool:
        oldest = next((session for session in self.sessions.values() if session.state == "ended"), None)
        if oldest is None:
            return False
        self._ends[oldest.number] = Facts(**oldest.facts())
        del self.sessions[oldest.number]
        if len(self._ends) > self._remembered:
            del self._ends[next(iter(self._ends))]
        return True

    def session(self, number: int) -> Session:
        """Return a session. Raises `UnknownSessionError`."""
        if (session := self.sessions.get(number)) is not None:
            return session
        if (end := self._ends.get(number)) is not None:
            raise UnknownSessionError(f"session ID {number} is no longer known. {end.ending}")
        known = ", ".join(map(str, list(self.sessions)[-_NAMED:]))
        raise UnknownSessionError(
            f"there is no session ID {number!r}" + (f"; known are {known}" if known else ", nor any other")
        )
