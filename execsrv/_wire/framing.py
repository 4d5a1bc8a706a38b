"""Messages out of a stream of bytes, whatever the pieces it comes in: lines of JSON, and frames of msgpack. Pure."""

from __future__ import annotations

import re

from execsrv._wire.bounds import LARGE_BYTES, MessageBound
from execsrv.errors import CutOffError

_BLANK = re.compile(rb"(?:[ \t\r\n]++|\xef\xbb\xbf)*+")
"""Nothing between two messages: what JSON calls white space, and byte order marks. It is passed over all at once, and
no line that has anything else is blank: to look at one after the other would hold up everybody."""


class _Buffer:
    """Bytes that were received, of which those up to `_start` are taken."""

    def __init__(self, bound: MessageBound, rest: bytes | bytearray = b"") -> None:
        """`rest` was received before."""
        self._bound = bound
        self._buffer = bytearray(rest)
        self._start = 0

    def __len__(self) -> int:
        """Return the bytes that are in here."""
        return len(self._buffer)

    @property
    def has_more(self) -> bool:
        """Return True while something was fed that no message has taken."""
        return self._start < len(self._buffer)

    def feed(self, data: bytes | bytearray) -> None:
        """Add what was received."""
        if self._start:
            self._cut()
        self._buffer += data

    def _cut(self) -> None:
        """Let go of what was taken."""
        del self._buffer[: self._start]
        self._start = 0

    def _hand_over(self, start: int, end: int, rest: int) -> bytearray:
        """Return what is in between. It is the buffer itself: to copy so much would hold up everybody."""
        taken, self._buffer = self._buffer, self._buffer[rest:]
        del taken[end:]
        del taken[:start]
        self._start = 0
        return taken


class LineBuffer(_Buffer):
    """Lines. Blank ones are passed over."""

    def __init__(self, bound: MessageBound) -> None:
        super().__init__(bound)
        self._searched = 0
        self.last_was_whole = True
        """False after a last line without its end."""

    def _cut(self) -> None:
        self._searched -= self._start
        super()._cut()

    def take_rest(self) -> bytearray:
        """Return what no line has taken, and forget it."""
        rest = self._buffer[self._start :]
        self._buffer.clear()
        self._start = self._searched = 0
        return rest

    def next_message(self, at_end: bool = False) -> bytes | bytearray | None:
        """Return the next whole line without its end, or None. With `at_end` the rest counts as a line.

        Raises `ProtocolError` for a line that is too long.
        """
        if self._start == self._searched:
            # All blank lines at once, however many there are.
            found = _BLANK.match(self._buffer, self._start)
            self._start = self._searched = found.end() if found else self._start
        end = self._buffer.find(b"\n", self._searched)
        if end < 0:
            self._searched = len(self._buffer)
            if at_end and self._start < len(self._buffer):
                end = len(self._buffer)
            elif len(self._buffer) - self._start > self._bound.max_bytes:
                raise self._bound.too_large()
            else:
                return None
        if end - self._start > self._bound.max_bytes:
            raise self._bound.too_large()
        self.last_was_whole = end < len(self._buffer)
        if end - self._start > LARGE_BYTES:
            self._searched = 0
            return self._hand_over(self._start, end, end + 1)
        line = bytes(memoryview(self._buffer)[self._start : end])
        self._start = self._searched = min(end + 1, len(self._buffer))
        if self._start > LARGE_BYTES or self._start == len(self._buffer):
            self._cut()  # not only when more comes: that may be never
        return line


LENGTH_BYTES = 4
"""In front of each frame of msgpack: the bytes that it has, as an unsigned number, the least significant byte first."""


class FrameBuffer(_Buffer):
    """Frames with their length in front."""

    def next_message(self, at_end: bool = False) -> bytes | bytearray | None:
        """Return the next whole frame without its length, or None.

        Raises `ProtocolError` for a frame that is too long, and `CutOffError`, which is one, for one that is `at_end`
        and not whole.
        """
        start = self._start + LENGTH_BYTES
        size = int.from_bytes(self._buffer[self._start : start], "little")
        if start <= len(self._buffer) and size > self._bound.max_bytes:
            raise self._bound.too_large()
        if start > len(self._buffer) or start + size > len(self._buffer):
            if at_end and self.has_more:
                raise CutOffError("malformed message: the end came in the middle of a frame")
            return None
        if size > LARGE_BYTES:
            return self._hand_over(start, start + size, start + size)
        frame = bytes(memoryview(self._buffer)[start : start + size])
        self._start = start + size
        if self._start == len(self._buffer):
            self._buffer, self._start = bytearray(), 0  # not only when more comes: that may be never
        return frame
