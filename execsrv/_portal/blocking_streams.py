"""The stdin, stdout and stderr of a process in plain code: files."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from threading import get_ident
from typing import TYPE_CHECKING, Any, TypeVar

from execsrv._portal.blocking import Facade
from execsrv._portal.facade import Hold, close_soon
from execsrv.client.streams import Input as TrioInput
from execsrv.client.streams import Output as TrioOutput

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

T = TypeVar("T")

_READ_BYTES = 128 * 1024


class Input(Facade, io.RawIOBase, of=TrioInput):
    """The stdin of a process, as a file that is written to."""

    def write(self, data: ReadableBuffer, /) -> int:
        """Write all of it, and wait until the operating system took it. Return how much it was.

        Raises `trio.BrokenResourceError` when the process does not read any more, or has no stdin, or the connection is
        lost (its cause tells which).
        """
        if isinstance(data, str):
            raise TypeError("stdin is a file of bytes, got str: `process.write` takes text")
        self._wait("send_all", data)
        return memoryview(data).nbytes

    def writelines(self, lines: Iterable[ReadableBuffer], /) -> None:
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
        super().close()

    def __del__(self) -> None:
        """Leave it open: it ends with the process."""


class Output(Facade, of=TrioOutput):
    """Gives the stdout or stderr of a process as a file: `io.BufferedReader`, as `subprocess` has it."""

    @classmethod
    def _of(cls, inner: TrioOutput, hold: Hold) -> io.BufferedReader:
        return _Buffered(cls._made(inner, hold))


class _Buffered(io.BufferedReader):
    """A reader of which an interrupt takes nothing away: it is raised behind a read, and the next has what that had."""

    def __init__(self, output: Output) -> None:
        self._source = _Raw(output)
        super().__init__(self._source, _READ_BYTES)

    def _whole(self, read: Callable[..., T], *args: Any, ahead: Callable[[T], bytes]) -> T:
        """Read, or raise what came in between: then what was read until then is `ahead`."""
        cuts, thread = self._source.cuts, get_ident()
        cuts[thread] = None
        value = read(*args)
        error = cuts.pop(thread)
        try:
            if error is not None:
                self._source.ahead = ahead(value) + self._source.ahead
                raise error
        finally:
            del error  # its traceback holds this frame
        return value

    def read(self, size: int | None = -1, /) -> bytes:
        return self._whole(super().read, size, ahead=_some)

    def read1(self, size: int = -1, /) -> bytes:
        return self._whole(super().read1, size, ahead=_some)

    def readline(self, size: int | None = -1, /) -> bytes:
        return self._whole(super().readline, size, ahead=_some)

    def peek(self, size: int = 0, /) -> bytes:
        return self._whole(super().peek, size, ahead=lambda _: b"")

    def readinto(self, buffer: Any, /) -> int:
        return self._whole(
            super().readinto, buffer, ahead=lambda size: bytes(memoryview(buffer).cast("B")[: size or 0])
        )

    def readinto1(self, buffer: Any, /) -> int:
        return self._whole(super().readinto1, buffer, ahead=lambda _: b"")


def _some(data: bytes | None) -> bytes:
    return data or b""


class _Raw(io.RawIOBase):
    def __init__(self, output: Output) -> None:
        self._output = output
        self.ahead = b""  # what is read again
        self.cuts: dict[int, BaseException | None] = {}
        """For each thread that reads through a buffer, which an error would empty: what it is to raise then."""

    def __repr__(self) -> str:
        return repr(self._output)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        try:
            data, self.ahead = self.ahead[: len(buffer)], self.ahead[len(buffer) :]
            data = data or self._output._take("receive_some", len(buffer))
        except BaseException as error:
            self._cut(error)
            return None
        buffer[: len(data)] = data
        return len(data)

    def readall(self) -> bytes:
        pieces = [self.ahead]
        self.ahead = b""
        try:
            while data := self._output._take("receive_some"):
                pieces.append(data)
        except BaseException as error:
            self._cut(error, b"".join(pieces))
        return b"".join(pieces)

    def _cut(self, error: BaseException, read: bytes = b"") -> None:
        """Keep an error for the buffer that reads, which is given what was `read`; raise it where there is none."""
        if get_ident() not in self.cuts:
            self.ahead = read + self.ahead
            raise error
        self.cuts[get_ident()] = error

    def close(self) -> None:
        if not self.closed:
            close_soon(self._output._hold.block, self._output._inner.aclose)
        super().close()
