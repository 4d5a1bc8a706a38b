"""The beginning and the end of a stream, which may be of any length. Pure: no I/O."""

from __future__ import annotations

from collections import deque
from typing import Any

_JOINED_BYTES = 512
"""Pieces of a stream's end are joined up to this."""


class HeadTail:
    """The beginning and the end of a stream within a bound, and how much is missing between them.

    What is given is kept by reference; its memory may be half as much again as the bound.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_head = max_bytes // 2
        self._max_tail = max_bytes - self._max_head
        self._head = bytearray()
        self._tail: deque[bytes | memoryview] | None = None  # most streams end within their beginning
        self._tail_bytes = 0
        self.kept_bytes = 0
        self.total_bytes = 0

    def append(self, data: bytes) -> None:
        """Add what comes next."""
        self.total_bytes += len(data)
        room = self._max_head - len(self._head)
        if room > 0:
            self._head += data[:room]
            data = data[room:]
            self.kept_bytes = len(self._head)
        if data:
            # Small pieces are joined, or each would cost more than it holds.
            if self._tail is None:
                self._tail = deque()
            if self._tail and len(self._tail[-1]) + len(data) <= _JOINED_BYTES:
                self._tail[-1] = bytes(self._tail[-1]) + data
            else:
                self._tail.append(data)
            self._tail_bytes += len(data)
            while self._tail_bytes > self._max_tail:
                oldest = self._tail.popleft()
                self._tail_bytes -= len(oldest)
                if self._tail_bytes < self._max_tail:
                    kept = self._cut(oldest, self._max_tail - self._tail_bytes)
                    self._tail.appendleft(kept)
                    self._tail_bytes += len(kept)
            self.kept_bytes = len(self._head) + self._tail_bytes

    def skip(self, size: int) -> None:
        """Count so many bytes that come next and are not there. What is between them and the beginning goes too."""
        self.total_bytes += size
        self._max_head = self.kept_bytes = len(self._head)
        self._tail, self._tail_bytes = None, 0

    def forget(self) -> None:
        """Let go of all of it. From here on only the end is kept."""
        self._max_head = self._tail_bytes = self.kept_bytes = 0
        self._head = bytearray()
        self._tail = None

    @staticmethod
    def _cut(piece: bytes | memoryview, size: int) -> bytes | memoryview:
        """Return the end of a piece, as a copy where the piece would hold more than twice the memory."""
        end = memoryview(piece)[-size:]
        whole: Any = end.obj
        return end if len(whole) <= 2 * size else bytes(end)

    @property
    def head(self) -> bytes:
        """The beginning."""
        return bytes(self._head)

    @property
    def tail(self) -> bytes:
        """The end, as far as it is not the beginning too."""
        return b"".join(self._tail or ())

    @property
    def omitted_bytes(self) -> int:
        """The number of bytes that are missing in the middle."""
        return self.total_bytes - len(self._head) - self._tail_bytes

    def __bytes__(self) -> bytes:
        return b"".join([self._head, *(self._tail or ())])
