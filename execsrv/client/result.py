"""The result of a command that was run to its end, and the task of collecting it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from execsrv._log.head_tail import HeadTail
from execsrv._log.log import Gap
from execsrv._nursery import open_helpers
from execsrv.client.parameters import Data, check_input
from execsrv.errors import (
    CommandFailedError,
    ConnectionLostError,
    InvalidParamsError,
    StdinClosedError,
    UnknownProcessError,
)
from execsrv.limits import MIB
from execsrv.protocol import Chunk, Member, Reason, Stream

if TYPE_CHECKING:
    from execsrv.client.process import Process

MAX_COLLECTED_BYTES = 64 * MIB
_WRITE_BYTES = 256 * 1024


class Result(Struct, frozen=True, kw_only=True):
    """End and output of the command `argv`. A terminal's output is `stdout`.

    `exit_code` is 128+N after a death by signal N, whose name is in `signal`. `omitted_bytes` is how much of the middle
    of `stdout` and `stderr` was left out to stay within the bound. `totals` is what each stream carried, by the
    server's count; `remaining` are processes of it that lived on after the close.
    """

    argv: list[str]
    exit_code: int
    signal: str | None
    reason: Reason
    stdout: bytes
    stderr: bytes
    omitted_bytes: int = 0
    totals: dict[Stream, int] = {}
    remaining: list[Member] = []

    def check(self) -> Result:
        """Return this result if the command succeeded. Raises `CommandFailedError` otherwise."""
        if self.exit_code == 0:
            return self
        raise CommandFailedError(
            self.argv,
            exit_code=self.exit_code,
            signal=self.signal,
            reason=self.reason,
            stdout=self.stdout,
            stderr=self.stderr,
        )


class Collected:
    """The output of a command so far, each stream within a bound."""

    def __init__(self, max_bytes: int) -> None:
        if not isinstance(max_bytes, int) or max_bytes < 0:
            raise InvalidParamsError(f"max_bytes must be a number of bytes, got {max_bytes!r}", field="max_bytes")
        self._streams = {"stdout": HeadTail(max_bytes), "stderr": HeadTail(max_bytes)}
        self._left_out = 0

    async def communicate(self, process: Process, input: Data | None) -> Result:
        """Write the input, collect the output to its end and return the result. Cancelling leaves here what came."""
        check_input(input)
        try:
            async with open_helpers() as nursery:
                if input is not None:
                    nursery.start_soon(_feed, process, input)
                async for event in process.events():
                    if isinstance(event, Chunk):
                        self._streams["stderr" if event.stream == "stderr" else "stdout"].append(event.chunk)
                    elif isinstance(event, Gap):
                        self._left_out += sum(event.omitted.values())
        except ConnectionLostError as lost:
            lost.stdout, lost.stderr = self.stdout, self.stderr
            raise
        exited, closed = await process.wait(), process.closed
        return Result(
            argv=process.argv,
            exit_code=exited.exit_code,
            signal=exited.signal,
            reason=exited.reason,
            stdout=self.stdout,
            stderr=self.stderr,
            omitted_bytes=sum(stream.omitted_bytes for stream in self._streams.values()) + self._left_out,
            totals=closed.totals if closed else {},
            remaining=closed.remaining if closed else [],
        )

    @property
    def stdout(self) -> bytes:
        """Standard output so far, or a terminal's."""
        return bytes(self._streams["stdout"])

    @property
    def stderr(self) -> bytes:
        """Standard error so far."""
        return bytes(self._streams["stderr"])


async def _feed(process: Process, input: Data) -> None:
    """Write all there is, then the end. A command need not read it."""
    try:
        view = memoryview(input)
        for start in range(0, len(view), _WRITE_BYTES):
            await process.write(view[start : start + _WRITE_BYTES])
        await process.close_stdin()
    except (StdinClosedError, UnknownProcessError, ConnectionLostError):
        return  # whoever reads the output hears of it too
