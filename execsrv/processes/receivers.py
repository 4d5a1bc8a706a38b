"""Output of a spawned process on its way to its reader: one bounded queue a stream, numbered as it arrives.

Nothing is lost: while a queue is full its pump reads no more, and the process waits, as with any pipe.
"""

from __future__ import annotations

from collections import deque
from itertools import count

import trio

from execsrv.limits import MIB

WINDOW_BYTES = MIB
"""So much of a stream may wait to be received. One chunk more is taken, then its process waits."""

_arrivals = count()
"""Numbers every chunk, so that streams can be joined in the order in which they came."""


class Output:
    """One stream between its pump and its receiver."""

    def __init__(self) -> None:
        self.chunks: deque[tuple[int, bytes]] = deque()
        self.has_ended = False
        self.is_dropped = False
        """True when nobody will receive it: what comes is thrown away, and holds up nobody."""
        self.news = trio.lowlevel.ParkingLot()
        self._bytes = 0
        self._taken = trio.lowlevel.ParkingLot()

    async def wait_room(self) -> None:
        """Wait until another chunk may come."""
        while self._bytes >= WINDOW_BYTES and not self.is_dropped:
            await self._taken.park()

    def put(self, chunk: bytes) -> None:
        """Add what has arrived, unless nothing more may."""
        if not self.is_dropped and not self.has_ended:
            self.chunks.append((next(_arrivals), chunk))
            self._bytes += len(chunk)
            self.news.unpark_all()

    def take(self) -> bytes:
        """Take the oldest chunk."""
        _, chunk = self.chunks.popleft()
        self._bytes -= len(chunk)
        self._taken.unpark_all()
        return chunk

    def end(self) -> None:
        """Let nothing more come. What has arrived can still be received."""
        self.has_ended = True
        self.news.unpark_all()

    def drop(self) -> None:
        """Throw away what waits and what will come."""
        self.is_dropped = True
        self.chunks.clear()
        self._bytes = 0
        self._taken.unpark_all()


class OutputReceiver(trio.abc.ReceiveChannel[bytes]):
    """Chunks of one stream, or of several in the order in which they arrived.

    It ends when all of its streams have. Closing it throws the rest away; the process goes on. Only one task may
    receive at a time.
    """

    def __init__(self, outputs: tuple[Output, ...]) -> None:
        self._outputs = outputs
        self._is_open = True
        self._is_read = False

    def __repr__(self) -> str:
        waiting = sum(len(output.chunks) for output in self._outputs)
        return f"<OutputReceiver {'open' if self._is_open else 'closed'} chunks={waiting}>"

    async def receive(self) -> bytes:
        """Return the next chunk. Cancelling loses nothing.

        Raises `trio.EndOfChannel` at the end, `trio.ClosedResourceError` once it is closed or was combined, and
        `trio.BusyResourceError` while another task receives.
        """
        await trio.lowlevel.checkpoint()
        if self._is_read:
            raise trio.BusyResourceError("another task receives this output already")
        self._is_read = True
        try:
            while True:
                try:
                    return self.receive_nowait()
                except trio.WouldBlock:
                    await self._outputs[0].news.park()
        finally:
            self._is_read = False

    def receive_nowait(self) -> bytes:
        """Return the next chunk if it is there. Raises `trio.WouldBlock` where `receive` would wait."""
        if not self._is_open:
            raise trio.ClosedResourceError("this output was closed, or combined with another")
        waiting = [output for output in self._outputs if output.chunks]
        if waiting:
            return min(waiting, key=lambda output: output.chunks[0][0]).take()
        if all(output.has_ended for output in self._outputs):
            raise trio.EndOfChannel
        raise trio.WouldBlock

    def close(self) -> None:
        """Receive nothing any more. The process never waits for this receiver from now on."""
        if self._is_open:
            self._is_open = False
            for output in self._outputs:
                output.drop()
            self._outputs[0].news.unpark_all()

    async def aclose(self) -> None:
        """Close it, as `close` does."""
        self.close()
        await trio.lowlevel.checkpoint()

    @classmethod
    def _combined(cls, first: OutputReceiver, second: OutputReceiver) -> OutputReceiver:
        first._check_free()
        second._check_free()
        first._is_open = second._is_open = False
        outputs = first._outputs + second._outputs
        for output in outputs:
            output.news = outputs[0].news
        return cls(outputs)

    def _check_free(self) -> None:
        """Raise where it cannot be combined."""
        if self._is_read:
            raise trio.BusyResourceError("cannot combine an output that a task receives")
        if not self._is_open:
            raise trio.ClosedResourceError("cannot combine an output that was closed, or combined with another")


def combine_output_receivers(stdout_rx: OutputReceiver, stderr_rx: OutputReceiver) -> OutputReceiver:
    """Return one receiver for two, in the order of arrival. It takes the place of both, and loses nothing.

    Raises `trio.BusyResourceError` while a task receives one of them, and `trio.ClosedResourceError` for a closed one.
    """
    if stdout_rx is stderr_rx:
        raise ValueError("stdout_rx and stderr_rx must be two receivers")
    return OutputReceiver._combined(stdout_rx, stderr_rx)  # noqa: SLF001  # this function is its public word
