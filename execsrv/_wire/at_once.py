"""Sending without a turn of the loop: to a plain socket or a pipe, as much as the system takes at once."""

from __future__ import annotations

import os

import trio


class AtOnce:
    """The way past the loop to a socket or a pipe, where a stream is one. What the system does not take is the `rest`.

    Whoever sends next, in whatever way, takes the rest first.
    """

    def __init__(self, stream: trio.abc.SendStream) -> None:
        file = stream.socket if isinstance(stream, trio.SocketStream) else stream
        self._file = file if isinstance(file, trio.socket.SocketType | trio.lowlevel.FdStream) else None
        self._rest = b""

    @property
    def has_room(self) -> bool:
        """True where there is such a way, and nothing is left to be sent first."""
        return self._file is not None and not self._rest

    @property
    def has_rest(self) -> bool:
        """True where something is left to be sent first."""
        return bool(self._rest)

    def send(self, data: memoryview | bytearray) -> bool:
        """Send what is taken at once, and return whether that was all. An error is for who sends the rest."""
        assert self._file is not None
        try:
            count = os.write(self._file.fileno(), data)
        except OSError:
            count = 0
        self._rest = bytes(data[count:])
        return not self._rest

    def take_rest(self) -> bytes:
        """Return what is left, and forget it."""
        rest, self._rest = self._rest, b""
        return rest
