"""The messages of a client of ours, followed by who passes them on: which is the last one? Pure: no I/O.

They are lines, and from the first that does not begin with a brace they are frames: that is `initialized`, whose length
is not the number of a brace.
"""

from __future__ import annotations

import msgspec

from execsrv._wire.framing import LENGTH_BYTES
from execsrv.protocol import Notification

LEAVING = Notification("$/leaving")
"""The last message of a client that leaves. A server passes it over."""

_LINE, _FRAME = msgspec.json.encode(LEAVING) + b"\n", msgspec.msgpack.encode(LEAVING)
_KEPT_BYTES = len(_LINE) + 1
"""So much of a message tells whether it is that one: a longer one is not."""


class Follower:
    """Hears all that a client says, in whatever pieces, and keeps the beginning of the last message."""

    def __init__(self) -> None:
        self._is_packed = False
        self._is_whole = True
        self._length = bytearray()
        self._left = 0  # of the frame that is coming
        self._message = bytearray()

    def feed(self, data: bytes) -> None:
        """Hear what the client says next."""
        at = 0
        while at < len(data):
            if self._is_whole:
                self._message.clear()
                self._is_packed = self._is_packed or data[at] != ord("{")
                self._is_whole = False
            at = self._hear_frame(data, at) if self._is_packed else self._hear_line(data, at)

    @property
    def is_leaving(self) -> bool:
        """True where the last message is whole and says that the client leaves."""
        return self._is_whole and self._message == (_FRAME if self._is_packed else _LINE)

    def _hear_line(self, data: bytes, at: int) -> int:
        end = data.find(b"\n", at) + 1
        self._is_whole = end > 0
        return self._keep(data, at, end or len(data))

    def _hear_frame(self, data: bytes, at: int) -> int:
        if len(self._length) < LENGTH_BYTES:
            start, at = at, at + LENGTH_BYTES - len(self._length)
            self._length += data[start:at]
            if len(self._length) < LENGTH_BYTES:
                return len(data)
            self._left = int.from_bytes(self._length, "little")
        end = min(len(data), at + self._left)
        self._left -= end - at
        self._is_whole = not self._left
        if self._is_whole:
            self._length.clear()
        return self._keep(data, at, end)

    def _keep(self, data: bytes, start: int, end: int) -> int:
        self._message += data[start : min(end, start + _KEPT_BYTES - len(self._message))]
        return end
