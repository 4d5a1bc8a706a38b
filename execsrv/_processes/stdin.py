"""The input of one command: handed over at once as far as the command takes it, and queued behind that.

The order of the writes is the order of the bytes. It owns the way to the command's stdin, what waits for the command to
read, and the ids of the last writes, so that a write which is sent again is done once; it pays for these from a budget.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

import trio

from execsrv._budget.budget import Budget
from execsrv.errors import LimitExceededError, StdinClosedError

if TYPE_CHECKING:
    from execsrv._processes.contract import Input

_REMEMBERED_WRITES = 256
"""Ids of writes that a session remembers, so that a write which is sent again is done once."""

_ID_BYTES = 512
"""The cost of one of them, which has up to 256 letters."""

_WRITE_BYTES = 512
"""The cost of a write that waits, beside its data, so that many small ones are bounded as well as a few large ones."""


class Write:
    """Input on its way to a command. It is `settled` once it was handed over, or cannot be any more."""

    __slots__ = ("data", "error", "id", "settled", "size")

    def __init__(self, data: bytes, id: str | None = None) -> None:
        self.data = memoryview(data)
        self.size = _WRITE_BYTES + len(data)
        self.id = id
        self.settled = trio.Event()
        self.error: StdinClosedError | None = None

    async def wait(self) -> None:
        """Wait until it is settled. Raises `StdinClosedError`. Cancelling stops waiting, not the write."""
        await self.settled.wait()
        if self.error is not None:
            raise self.error


_DONE = Write(b"")
"""The memory of any write that was done."""
_DONE.settled.set()


class Stdin:
    """The writing end of a command's stdin, or none: then every write is refused."""

    def __init__(
        self,
        id: str,
        input: Input | None,
        stir: Callable[[], None] | None,
        *,
        is_terminal: bool,
        max_queued_bytes: int,
        budget: Budget | None = None,
    ) -> None:
        """Take ownership of the way in: `end` must follow, and `forget`.

        `stir` is called with each write and whenever the command reads.
        """
        self.was_open = input is not None
        self._id = id
        self._input = input
        self._stir = stir
        self._budget = budget or Budget()
        self._is_terminal = is_terminal
        self._max_queued = max_queued_bytes
        self._queue: deque[Write | None] | tuple[()] = ()  # a deque once something waits; None: close it
        self._queued_bytes = 0
        self._is_closing = False  # behind what is queued
        self._queued: trio.lowlevel.ParkingLot | None = None
        self._last_typed = b""
        self._remembered: dict[str, Write] = {}

    def __repr__(self) -> str:
        state = f"open queued={self._queued_bytes}" if self.is_open else "closed"
        return f"<Stdin {self._id} {state}>"

    @property
    def is_open(self) -> bool:
        """True while the command can be given more."""
        return self._input is not None

    @property
    def is_waiting(self) -> bool:
        """True while input waits for the command to read."""
        return bool(self._queue)

    def write(self, data: bytes, write_id: str | None = None) -> Write:
        """Give input to the command, behind all input given before.

        What the system takes at once is settled at once. A `write_id` that was seen before gives that earlier write.
        Raises `StdinClosedError`, and `LimitExceededError` when the command reads too slowly for what is queued.
        """
        if write_id is not None and write_id in self._remembered:
            return self._remembered[write_id]
        if self._stir is not None:
            self._stir()
        if self._input is None or (self._is_closing and not self._is_terminal):
            raise self._closed()
        queued = self._queued_bytes + _WRITE_BYTES * len(self._queue)
        if queued and queued + len(data) > self._max_queued:
            message = f"{self._id} does not read its input: queued_stdin_bytes ({self._max_queued}) would be exceeded"
            raise LimitExceededError(message, limit="queued_stdin_bytes", value=self._max_queued)
        write = Write(data, write_id)
        self._budget.take(write.size)
        self._last_typed = data[-1:] or self._last_typed
        if write_id is not None:
            self._remember(write_id, write)
        if not self._queue and self._write_now(write, self._input):
            return write
        self._queued_bytes += len(write.data)
        self._put(write)
        return write

    def _remember(self, id: str, write: Write) -> None:
        self._remembered[id] = write
        if len(self._remembered) > _REMEMBERED_WRITES:
            del self._remembered[next(iter(self._remembered))]
        else:
            self._budget.add(_ID_BYTES)

    def forget(self) -> None:
        """Forget the ids: nobody asks for this session any more."""
        self._budget.give(_ID_BYTES * len(self._remembered))
        self._remembered.clear()

    def _put(self, write: Write | None) -> None:
        if not isinstance(self._queue, deque):
            self._queue = deque()
        self._queue.append(write)
        if self._queued is not None:
            self._queued.unpark()

    def close(self, write_id: str | None = None) -> None:
        """End the input, behind all that was written. A terminal gets its end-of-file character and stays open.

        Closing a pipe again does no harm, and a terminal under a `write_id` that was seen before. Raises
        `StdinClosedError` for a command that never had any.
        """
        if not self.was_open:
            raise self._closed()
        if self._input is None or (write_id is not None and write_id in self._remembered):
            return
        if self._is_terminal and (keys := self._input.end_line(self._last_typed)) is not None:
            self.write(keys, write_id)
        elif not self._is_closing:
            self._is_closing = True
            self._put(None)
            if self._is_terminal and write_id is not None:
                self._remember(write_id, _DONE)

    async def feed(self) -> None:
        """Hand over what could not be written at once, in order, as the command reads. Returns when it is closed."""
        self._queued = trio.lowlevel.ParkingLot()
        while self._input is not None:
            while not self._queue:
                await self._queued.park()
            write = self._queue[0]
            if write is None:
                if not self._is_terminal:
                    self.end()
                    return
                self._input.close()
                self._is_closing = False
                del self._queue[0]
                continue
            size = len(write.data)
            settled = self._write_now(write, self._input)
            self._queued_bytes -= size - len(write.data)
            if len(write.data) < size and self._stir is not None:
                self._stir()
            if settled:
                del self._queue[0]
            else:
                try:
                    await self._input.wait_writable()
                except trio.ClosedResourceError:
                    return  # `end` was called meanwhile

    @property
    def queued_bytes(self) -> int:
        """Bytes that the command has not taken."""
        return self._queued_bytes

    def end(self) -> None:
        """Close our end now, and tell those who wait to write."""
        input, self._input = self._input, None
        if input is not None:
            input.close()
        for write in self._queue:
            if write is not None:
                write.error = self._closed()
                self._settle(write)
        self._queue = ()
        self._queued_bytes = 0

    def _write_now(self, write: Write, input: Input) -> bool:
        """Hand over what the system takes without waiting. Return whether the write is settled."""
        try:
            count = input.write(write.data) if write.data else 0
        except BlockingIOError:
            return False
        except OSError:  # EPIPE, EIO: nobody reads this any more
            write.error = self._closed()
            write.data = write.data[len(write.data) :]
        else:
            write.data = write.data[count:]
        if write.data:
            return False
        self._settle(write)
        return True

    def _settle(self, write: Write) -> None:
        write.data = memoryview(b"")  # an empty slice would keep all of it in memory
        self._budget.give(write.size)
        write.settled.set()
        if write.error is None and write.id is not None and self._remembered.get(write.id) is write:
            self._remembered[write.id] = _DONE

    def _closed(self) -> StdinClosedError:
        return StdinClosedError(f"stdin is closed for session {self._id}")
