"""The stdin, stdout and stderr of a process under asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Self

from execsrv._portal.awaiting import Facade
from execsrv._portal.facade import Hold, close_soon
from execsrv.client.streams import Input as TrioInput
from execsrv.client.streams import Output as TrioOutput

_MAX_LINE_BYTES = 64 * 1024 * 1024


class Input(Facade, of=TrioInput):
    """The stdin of a process."""

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        """Write all of it, and wait until the operating system took it. After a cancel, a part may have arrived.

        Raises `trio.BrokenResourceError` when the process does not read any more, or has no stdin, or the connection is
        lost (its cause tells which).
        """
        await self._wait("send_all", data)

    async def writelines(self, lines: Iterable[bytes | bytearray | memoryview]) -> None:
        """Write one after the other."""
        for line in lines:
            await self.write(line)

    async def close(self) -> None:
        """End the process's input, behind all that was written. A terminal gets its end-of-file character."""
        await self._wait("aclose")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()


class Output(Facade, of=TrioOutput):
    """The stdout or stderr of a process, with the words of `asyncio.StreamReader`. For one task at a time.

    It reads ahead: what it has is not seen by other ways to read the process.
    """

    _buffer: bytearray
    _is_at_end: bool

    @classmethod
    def _of(cls, inner: TrioOutput, hold: Hold) -> Output:
        output = cls._made(inner, hold)
        output._buffer, output._is_at_end = bytearray(), False
        return output

    async def _fill(self) -> bool:
        """Read what comes next. Return False at the end."""
        if not self._is_at_end:
            data = await self._take("receive_some")
            self._buffer += data
            self._is_at_end = not data
        return not self._is_at_end

    def _cut(self, size: int) -> bytes:
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data

    async def read(self, size: int = -1) -> bytes:
        """Return up to `size` bytes, as soon as there are any, or all to the end. Nothing at the end."""
        if size < 0:
            while await self._fill():
                pass
            return self._cut(len(self._buffer))
        if not self._buffer and size:
            await self._fill()
        return self._cut(size)

    async def readexactly(self, size: int) -> bytes:
        """Return so many bytes. Raises `asyncio.IncompleteReadError` with what there is at the end."""
        if size < 0:
            raise ValueError(f"size must not be negative, got {size}")
        while len(self._buffer) < size:
            if not await self._fill():
                raise asyncio.IncompleteReadError(self._cut(len(self._buffer)), size)
        return self._cut(size)

    async def readuntil(self, separator: bytes = b"\n") -> bytes:
        """Return what comes up to and with a separator.

        Raises `asyncio.IncompleteReadError` with what there is at the end, and `asyncio.LimitOverrunError` where 64 MiB
        have none.
        """
        if not separator:
            raise ValueError("separator must not be empty")
        start = 0
        while (found := self._buffer.find(separator, start)) < 0:
            start = max(0, len(self._buffer) - len(separator) + 1)
            if len(self._buffer) > _MAX_LINE_BYTES:
                raise asyncio.LimitOverrunError("no separator in 64 MiB", len(self._buffer))
            if not await self._fill():
                raise asyncio.IncompleteReadError(self._cut(len(self._buffer)), None)
        return self._cut(found + len(separator))

    async def readline(self) -> bytes:
        """Return the next line with its end; the last one may have none. Nothing at the end."""
        try:
            return await self.readuntil(b"\n")
        except asyncio.IncompleteReadError as error:
            return error.partial

    def at_eof(self) -> bool:
        """Return True when all is read."""
        return self._is_at_end and not self._buffer

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if not (line := await self.readline()):
            raise StopAsyncIteration
        return line

    def close(self) -> None:
        """Let go of all that is unread and all that comes. The command is not told, and never waits for a reader."""
        self._buffer.clear()
        close_soon(self._hold.block, self._inner.aclose)
