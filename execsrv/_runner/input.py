"""The input of one command: taken in as it comes, and handed over as the command reads.

Behind the first MiB it waits in a file that has no name. Version 1 has no credits: who wants to hear `terminate` behind
input that nobody reads has to take all of it in.
"""

from __future__ import annotations

import os
import tempfile
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import IO

import trio

from execsrv._processes.own_streams import OwnInput

MEMORY_BYTES = 1024 * 1024
MOST_BYTES = 4 * 1024**3
"""No more than this waits for a command that does not read."""

_PIECE_BYTES = 64 * 1024


class Input:
    """The input of a command, which it owns. `feed` is its task."""

    def __init__(self, its: OwnInput, taken: Callable[[int], None], *, is_terminal: bool) -> None:
        """`taken` hears how many bytes the command has taken, each time, and 0 once it takes none any more."""
        self.is_closed = False
        self.waiting_bytes = 0
        self._its = its
        self._taken = taken
        self._is_terminal = is_terminal
        self._is_ending = False
        self._memory: deque[bytes] = deque()
        self._memory_bytes = 0
        self._file: IO[bytes] | None = None
        self._file_start = self._file_end = 0
        self._last_typed = b""
        self._keys = 0  # bytes that are ours: the end-of-file characters of a terminal
        self._wanted = trio.lowlevel.ParkingLot()
        self._room = trio.lowlevel.ParkingLot()
        self._stack = ExitStack()

    def __repr__(self) -> str:
        return f"<Input {'closed' if self.is_closed else 'open'} waiting={self.waiting_bytes}>"

    def put(self, data: bytes) -> None:
        """Give it to the command, behind what was given before. It goes nowhere where nobody reads any more.

        Raises `OSError` where there is no room on the disk.
        """
        if self.is_closed or self._is_ending or not data:
            return
        self._last_typed = data[-1:]
        if self._file_start < self._file_end or self._memory_bytes + len(data) > MEMORY_BYTES + self._keys:
            self._spool(data)
        else:
            self._memory.append(data)
            self._memory_bytes += len(data)
        self.waiting_bytes += len(data)
        self._wanted.unpark()

    def end(self) -> None:
        """End it, behind all that was given. A terminal gets its end-of-file character, and stays open."""
        if self.is_closed or self._is_ending:
            return
        if self._is_terminal:
            keys = self._its.end_line(self._last_typed)
            self._keys += len(keys)
            self.put(keys)
        else:
            self._is_ending = True
            self._wanted.unpark()

    @property
    def given_bytes(self) -> int:
        """Bytes that wait and were given: all but the keys that are ours, which count as the last."""
        return max(0, self.waiting_bytes - self._keys)

    async def wait_room(self) -> None:
        """Wait until less waits than ever may."""
        while self.waiting_bytes > MOST_BYTES:
            await self._room.park()

    async def feed(self) -> None:
        """Hand it over, to its end."""
        while not self.is_closed:
            if not self._memory:
                self._unspool()
            if self._memory:
                await self._write()
            elif self._is_ending:
                self.close()
            else:
                await self._wanted.park()

    async def _write(self) -> None:
        data = self._memory[0]
        try:
            count = self._its.write(memoryview(data))
        except BlockingIOError:
            with suppress(trio.ClosedResourceError):  # `close` was called meanwhile
                await self._its.wait_writable()
            return
        except OSError:  # EPIPE, EIO: nobody reads it any more
            self.close()
            self._taken(0)
            return
        if count == len(data):
            self._memory.popleft()
        else:
            self._memory[0] = data[count:]
        self._memory_bytes -= count
        self.waiting_bytes -= count
        self._room.unpark_all()
        ours = max(0, self._keys - self.waiting_bytes) if self._keys else 0
        self._keys -= ours
        if count > ours:
            self._taken(count - ours)
        await trio.lowlevel.checkpoint()

    def _spool(self, data: bytes) -> None:
        if self._file is None:
            self._file = self._stack.enter_context(tempfile.TemporaryFile(buffering=0))  # noqa: SIM115
        left = memoryview(data)
        while left:
            count = os.pwrite(self._file.fileno(), left, self._file_end)
            self._file_end += count
            left = left[count:]

    def _unspool(self) -> None:
        if self._file is None or self._file_start == self._file_end:
            return
        data = os.pread(self._file.fileno(), min(_PIECE_BYTES, self._file_end - self._file_start), self._file_start)
        self._file_start += len(data)
        if self._file_start == self._file_end:
            self._file.truncate(0)
            self._file_start = self._file_end = 0
        self._memory.append(data)
        self._memory_bytes += len(data)

    def close(self) -> None:
        """Close it now. What was not handed over is lost. It may be called again."""
        if not self.is_closed:
            self.is_closed = True
            self._its.close()
            self._memory.clear()
            self._memory_bytes = self.waiting_bytes = 0
            self._stack.close()
            self._room.unpark_all()
            self._wanted.unpark_all()
