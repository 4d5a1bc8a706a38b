"""Output that arrives as messages, on its way into the log of a session.

It holds what nobody has taken yet. Whoever sends is bound by credits, and small pieces are joined: so that is never
more than was credited.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

import trio

from execsrv.protocol import Stream

_JOINED_BYTES = 4096
"""Pieces are joined up to this."""


class Arrivals:
    """The outputs of one command, and how much of them its leader may have written."""

    def __init__(self, streams: Iterable[Stream], took: Callable[[Stream, int], None]) -> None:
        """`took` hears how many bytes of a stream were taken."""
        self._waiting: dict[Stream, deque[bytes]] = {stream: deque() for stream in streams}
        self._open = set(self._waiting)
        self._took = took
        self._news = trio.lowlevel.ParkingLot()
        self.of_leader: dict[Stream, int] | None = None
        """Bytes of each stream that waited when the leader had ended: what it wrote is among them."""
        self.is_last = False
        """True when nothing lives that could print: what waits, or is on its way, is all there is."""
        self.wake: Callable[[], None] = lambda: None
        """Called at the leader's end, and at the end of all."""

    def __repr__(self) -> str:
        return f"<Arrivals open={len(self._open)} waiting={self.waiting_bytes}>"

    @property
    def streams(self) -> tuple[Stream, ...]:
        """The outputs that there are, or have been."""
        return tuple(self._waiting)

    @property
    def waiting_bytes(self) -> int:
        """Bytes that nobody has taken."""
        return sum(len(piece) for pieces in self._waiting.values() for piece in pieces)

    @property
    def is_over(self) -> bool:
        """True when all streams are at their end, and everything was taken."""
        return not self._open and not self.has_some

    @property
    def has_some(self) -> bool:
        """True when something waits to be taken."""
        return any(self._waiting.values())

    # -- for whoever receives --

    def put(self, stream: Stream, data: bytes) -> None:
        """Add a piece that has arrived."""
        pieces = self._waiting[stream]
        if pieces and len(pieces[-1]) + len(data) <= _JOINED_BYTES:
            pieces[-1] += data
        else:
            pieces.append(data)
        self._news.unpark_all()

    def is_open(self, stream: Stream) -> bool:
        """Return whether more may come of a stream."""
        return stream in self._open

    def end(self, stream: Stream) -> None:
        """Note the end of a stream."""
        self._open.discard(stream)
        self._news.unpark_all()

    def leader_ended(self) -> None:
        """Note the leader's end, behind all that it wrote."""
        self.of_leader = {stream: sum(map(len, pieces)) for stream, pieces in self._waiting.items()}
        self._news.unpark_all()
        self.wake()

    def last(self) -> None:
        """Note that nothing lives any more."""
        self.is_last = True
        self.wake()

    # -- for the session --

    async def wait(self) -> None:
        """Wait for news. Cancelling loses nothing."""
        await self._news.park()

    def take(self) -> tuple[Stream, bytes] | None:
        """Take a piece, of each stream in turn, None where none waits."""
        for stream, pieces in self._waiting.items():
            if pieces:
                piece = pieces.popleft()
                self._waiting[stream] = self._waiting.pop(stream)  # the others come first now
                self._took(stream, len(piece))
                return stream, piece
        return None

    def discard(self) -> None:
        """Throw away what waits. Nothing is taken any more."""
        for pieces in self._waiting.values():
            pieces.clear()
