"""Descriptors that go along with answers over a unix socket (`SCM_RIGHTS`): those that wait, and those that came.

All that go with one answer go with its first byte: they have come when it has, and the kernel gives those of two
answers in two pieces. So the answers alone tell whose they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from execsrv._lent import Lent
from execsrv.protocol import Message, Response

_MOST_UNREAD = 64
"""Answers that may wait here with their descriptors: those of a start count against no other bound once it is over."""


class Along(NamedTuple):
    """Descriptors that go along with the answer that has this `result`, or `otherwise` where none can go."""

    result: Any
    lent: Sequence[Lent]
    otherwise: Any


class Passing:
    """The descriptors that wait to go along over one channel, and those that have come and that no answer has named.

    They are closed with it.
    """

    def __init__(self) -> None:
        self._lent: list[Along] = []
        self._came: list[list[Lent]] = []
        self._expected = 0
        self._is_over = False

    def __repr__(self) -> str:
        return f"<Passing lent={len(self._lent)} came={len(self._came)} expected={self._expected}>"

    def close(self) -> None:
        """Close all that wait, and all that still are to go along."""
        self._is_over = True
        self._lent.clear()
        self._came.clear()

    # -- for who answers --

    @property
    def has_some(self) -> bool:
        """True where descriptors wait for their answer to be sent."""
        return bool(self._lent)

    @property
    def is_full(self) -> bool:
        """True where the peer leaves so many answers unread that no more are to wait."""
        return len(self._lent) >= _MOST_UNREAD

    def lend(self, result: Any, lent: Sequence[Lent], otherwise: Any) -> None:
        """Have them go along with the answer that has this very result, which must be put next.

        Where the machine lets none go along, that answer has the result `otherwise`.
        """
        if lent and not self._is_over:
            self._lent.append(Along(result, lent, otherwise))

    def along_with(self, message: Message) -> Along | None:
        """Return what goes along with a message, which is to be sent now."""
        if isinstance(message, Response):
            for index, along in enumerate(self._lent):
                if along.result is message.result:
                    return self._lent.pop(index)
        return None

    # -- for who asks --

    def expect(self) -> None:
        """Take what comes along with one more answer."""
        self._expected += 1

    def came(self, descriptors: list[Lent]) -> None:
        """Take what has come with one answer. Nobody has asked for more than are expected: they are closed."""
        if len(self._came) < self._expected:
            self._came.append(descriptors)

    def answered(self, *, names_some: bool) -> list[Lent]:
        """Return those of an answer that was expected, and has come. They may be fewer than it names."""
        self._expected -= 1
        return self._came.pop(0) if names_some and self._came else []
