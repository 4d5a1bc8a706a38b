"""A process's stdin, stdout and stderr as streams of trio, with trio's own errors."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial

import trio

from execsrv._log.entries import Gap
from execsrv.client.inbox import Part
from execsrv.client.late import undo_if_late
from execsrv.client.parameters import Data
from execsrv.client.reader import Reader
from execsrv.errors import ConnectionLostError, InvalidParamsError, StdinClosedError, UnknownProcessError
from execsrv.protocol import Chunk

_MOST_BYTES = 2**31

Receive = Callable[[int | None, Callable[[], None]], Awaitable[bytes]]
"""Returns what a stream has next, up to so many bytes. The function raises where the stream was closed meanwhile."""


def receive_told(reader: Reader, part: Part, missed: Callable[[Gap], None]) -> Receive:
    """Return what receives the output that a server tells. `missed` hears what is missing of it, and may raise."""

    async def receive(max_bytes: int | None, check_open: Callable[[], None]) -> bytes:
        def take() -> bytes | Gap | None:
            check_open()
            first = next(iter(reader.inbox.queues[part].entries), None)
            taken = reader.inbox.take_bytes(part, _MOST_BYTES if max_bytes is None else max_bytes)
            if isinstance(first, Chunk) and isinstance(taken, bytes):
                first = Chunk(first.seq, first.stream, taken, first.at_ms)
            if first is not None:
                undo_if_late(partial(reader.give_back, first))
            return taken

        while True:
            taken: bytes | Gap | None = await reader.read(part, take)
            if not isinstance(taken, Gap):
                return taken or b""
            missed(taken)

    return receive


class Input(trio.abc.SendStream):
    """The stdin of a process. For one task at a time.

    Its errors are trio's: `trio.BrokenResourceError` when the process does not read any more, or has no stdin, or the
    connection is lost (its cause tells which), and `trio.ClosedResourceError` after `aclose`.
    """

    def __init__(self, id: str, write: Callable[[Data], Awaitable[None]], close: Callable[[], Awaitable[None]]) -> None:
        self._id = id
        self._write = write
        self._close = close
        self._is_closed = False
        self._is_busy = False

    def __repr__(self) -> str:
        return f"<stdin of process {self._id}{' closed' if self._is_closed else ''}>"

    @contextmanager
    def _turn(self) -> Iterator[None]:
        if self._is_closed:
            raise trio.ClosedResourceError(f"stdin of process {self._id} was closed here")
        if self._is_busy:
            raise trio.BusyResourceError(f"another task is writing to stdin of process {self._id}")
        self._is_busy = True
        try:
            yield
        except (StdinClosedError, UnknownProcessError, ConnectionLostError) as error:
            raise trio.BrokenResourceError(str(error)) from error
        finally:
            self._is_busy = False

    async def send_all(self, data: Data) -> None:
        """Write all of it, and wait until the operating system took it. After a cancel, a part may have arrived."""
        with self._turn():
            await trio.lowlevel.checkpoint()
            if not isinstance(data, bytes) or data:
                await self._write(data)

    async def wait_send_all_might_not_block(self) -> None:
        """Return at once: how much a process would take now is not known here."""
        with self._turn():
            await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        """End the process's input, after all that was written. A terminal gets its end-of-file character."""
        if self._is_closed:
            await trio.lowlevel.checkpoint()
            return
        self._is_closed = True
        try:
            await self._close()
        except (StdinClosedError, UnknownProcessError, ConnectionLostError):
            await trio.lowlevel.checkpoint()


class Output(trio.abc.ReceiveStream):
    """One stream of a process's output, as bytes. For one task at a time, and one after the other.

    Its errors are trio's: `trio.BusyResourceError`, `trio.ClosedResourceError` after `aclose`, and
    `trio.BrokenResourceError` when the connection is lost.
    """

    def __init__(self, id: str, part: Part, receive: Receive, close: Callable[[], None]) -> None:
        """`receive` gives what comes next, and `close` has all that still comes let go."""
        self._id = id
        self._part = part
        self._receive = receive
        self._close = close
        self._is_closed = False

    def __repr__(self) -> str:
        return f"<{self._part} of process {self._id}{' closed' if self._is_closed else ''}>"

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Return what comes next, up to `max_bytes`; nothing at the end of the process. Cancelling loses nothing.

        Raises `OutputTruncatedError`, once, where output is missing that nobody had given up.
        """
        if max_bytes is not None and (not isinstance(max_bytes, int) or max_bytes < 1):
            raise InvalidParamsError(f"max_bytes must be a number above 0, got {max_bytes!r}", field="max_bytes")
        try:
            return await self._receive(max_bytes, self._check_open)
        except ConnectionLostError as error:
            raise trio.BrokenResourceError(str(error)) from error

    def _check_open(self) -> None:
        if self._is_closed:
            raise trio.ClosedResourceError(f"{self._part} of process {self._id} was closed here")

    async def aclose(self) -> None:
        """Let go of all that is unread and all that comes. The command is not told, and never waits for a reader.

        A process whose streams were passed notices, as with any pipe: writing more is an error, which by default ends
        it.
        """
        self._is_closed = True
        self._close()
        await trio.lowlevel.checkpoint()
