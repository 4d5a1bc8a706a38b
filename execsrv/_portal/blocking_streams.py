"""The stdin, stdout and stderr of a process in plain code: files."""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import Any, Self

from execsrv._portal.blocking import Facade
from execsrv._portal.facade import Hold, close_soon
from execsrv.client.streams import Input as TrioInput
from execsrv.client.streams import Output as TrioOutput

_READ_BYTES = 128 * 1024


class Input(Facade, of=TrioInput):
    """The stdin of a process, as a file that is written to."""

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Write all of it, and wait until the operating system took it. Return how much it was.

        Raises `trio.BrokenResourceError` when the process does not read any more, or has no stdin, or the connection is
        lost (its cause tells which).
        """
        self._wait("send_all", data)
        return memoryview(data).nbytes

    def writelines(self, lines: Iterable[bytes | bytearray | memoryview]) -> None:
        """Write one after the other."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Do nothing: what is written is on its way."""

    def writable(self) -> bool:
        """Return True."""
        return True

    def close(self) -> None:
        """End the process's input, behind all that was written. A terminal gets its end-of-file character."""
        self._wait("aclose")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class Output(Facade, of=TrioOutput):
    """Gives the stdout or stderr of a process as a file: `io.BufferedReader`, as `subprocess` has it."""

    @classmethod
    def _of(cls, inner: TrioOutput, hold: Hold) -> io.BufferedReader:
        return io.BufferedReader(_Raw(cls._made(inner, hold)), _READ_BYTES)


class _Raw(io.RawIOBase):
    def __init__(self, output: Output) -> None:
        self._output = output
        self._ahead = b""  # what was read on the way to the end, when that was interrupted

    def __repr__(self) -> str:
        return repr(self._output)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data, self._ahead = self._ahead[: len(buffer)], self._ahead[len(buffer) :]
        data = data or self._output._take("receive_some", len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def readall(self) -> bytes:
        pieces = [self._ahead]
        try:
            while data := self._output._take("receive_some"):
                pieces.append(data)
        except BaseException:
            self._ahead = b"".join(pieces)
            raise
        self._ahead = b""
        return b"".join(pieces)

    def close(self) -> None:
        if not self.closed:
            close_soon(self._output._hold.block, self._output._inner.aclose)
        super().close()
