"""The last word of a client that leaves, for who passes its bytes on, wherever a message was cut. Pure: no I/O.

The client makes it up and tells it first, so that nothing which it passes on can look like it. A server passes over
both messages.
"""

from __future__ import annotations

import os
import re

from execsrv.protocol import Notification

_WORD_BYTES = 16
_TOLD = re.compile(rb'\{"method":"\$/leavesWith","params":\{"word":"([0-9a-f]{32})"\}\}\n')
_MOST_BYTES = 256
"""More than the first message has, and more than there is of the last one."""


def first_and_last() -> tuple[Notification, Notification]:
    """Return what a client says first, as JSON, and what it says last, in whatever encoding."""
    word = {"word": os.urandom(_WORD_BYTES).hex()}
    return Notification("$/leavesWith", word), Notification("$/leaving", word)


class Follower:
    """Hears all that a client says, in whatever pieces, and keeps its beginning and its end."""

    def __init__(self) -> None:
        self._first = b""
        self._last = b""

    def feed(self, data: bytes) -> None:
        """Hear what the client says next."""
        if len(self._first) < _MOST_BYTES:
            self._first += data[: _MOST_BYTES - len(self._first)]
        self._last = (self._last + data)[-_MOST_BYTES:]

    @property
    def is_leaving(self) -> bool:
        """True where the word that was told first has come once more, at the end."""
        told = _TOLD.match(self._first)
        return told is not None and self._last.removeprefix(told[0]).rstrip(b'"}\n').endswith(told[1])
