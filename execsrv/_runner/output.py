"""One stream of a command's output, on its way into frames, as far as it has credit."""

from __future__ import annotations

from collections.abc import Callable

import trio

from execsrv._processes import streams
from execsrv._processes.spawn import widen
from execsrv._runner.outgoing import Outgoing

PIPE_BYTES = 1024 * 1024
"""The width asked for a pipe that is busy."""


class OutputStream:
    """A stream, from its start to its end. The descriptor stays the caller's, and is not blocking."""

    def __init__(
        self,
        descriptor: int,
        outgoing: Outgoing,
        frame: Callable[[bytes], bytes],
        *,
        is_terminal: bool,
        most: int,
        credit: float,
    ) -> None:
        """Send pieces of at most so many bytes, as `frame` makes them, and no more bytes than there is credit for."""
        self.credit = credit
        self.is_at_end = False
        self._descriptor = descriptor
        self._outgoing = outgoing
        self._frame = frame
        self._is_terminal = is_terminal
        self._most = most
        self._is_wide = is_terminal
        self._sent = 0
        self._drained_at: float | None = None  # once its leader has ended
        self._is_drained = False
        self._is_queued = False
        self._news = trio.lowlevel.ParkingLot()
        self._drained = trio.lowlevel.ParkingLot()

    def __repr__(self) -> str:
        return f"<OutputStream sent={self._sent} credit={self.credit}{' at its end' if self.is_at_end else ''}>"

    def give(self, count: int) -> None:
        """Let so many bytes more be sent."""
        self.credit += count
        self._news.unpark_all()
        self._drained.unpark_all()

    async def run(self) -> None:
        """Send all of it. Cancelling leaves the rest unread."""
        while not self.is_at_end:
            if self._is_queued or self.credit <= 0:
                await self._news.park()
                continue
            await trio.lowlevel.wait_readable(self._descriptor)
            self._queue()

    async def wait_drained(self) -> None:
        """Wait until all is sent that the leader, which has ended, has written."""
        self._drained_at = self._sent + streams.bytes_left(self._descriptor, self._is_terminal)
        while not (self.is_at_end or self._is_drained or self._sent >= self._drained_at):
            if self.credit > 0:
                self._queue()
            await self._drained.park()

    def _queue(self) -> None:
        if not (self._is_queued or self.is_at_end):
            self._is_queued = True
            self._outgoing.ready(self)

    def take(self) -> bytes | None:
        """Return the next frame, None where there is nothing now."""
        self._is_queued = False
        chunk = None
        if self.credit > 0 and not self.is_at_end:
            most = int(min(self._most, self.credit))
            chunk = streams.read(self._descriptor, self._is_terminal, most)
            if chunk is None:
                self._is_drained = self._drained_at is not None
            else:
                self._sent += len(chunk)
                self.credit -= len(chunk)
                self.is_at_end = not chunk
                if len(chunk) == most:
                    self._is_busy()
        if not self._is_queued:
            self._news.unpark_all()
        if self._drained_at is not None:
            self._drained.unpark_all()
        return self._frame(chunk) if chunk else None

    def _is_busy(self) -> None:
        """Go on without waiting: there is more, as a rule."""
        if self.credit > 0:
            self._queue()
        if not self._is_wide:
            self._is_wide = True
            widen(self._descriptor, PIPE_BYTES)
