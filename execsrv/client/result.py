"""The result of a command that was run to its end, and the task of collecting it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio
from msgspec import Struct

from execsrv._log.head_tail import HeadTail
from execsrv._log.log import Exited, Gap
from execsrv._nursery import open_helpers
from execsrv.client.parameters import Data, check_input
from execsrv.errors import (
    CommandFailedError,
    CommandTimeoutError,
    ConnectionLostError,
    InvalidParamsError,
    OutputTruncatedError,
    StdinClosedError,
    UnknownProcessError,
)
from execsrv.limits import MIB
from execsrv.protocol import Chunk, Member, Reason, Stream

if TYPE_CHECKING:
    from execsrv.client.process import Event, Process

MAX_COLLECTED_BYTES = 64 * MIB
"""The most of a stream that is kept, unless its user says otherwise."""

END_GRACE_SECONDS = 2.0
"""Time that what is to end with `run` has after SIGTERM, unless its user says otherwise."""

_QUIET_SECONDS = 0.5
"""Silence after which what others than the leader still hold of the streams is taken for nothing to wait for. The
server knows better, and sooner: this is for one that does not end what is left by itself."""

_LATEST_SECONDS = 5.0
"""Time from the end of the leader to the end of all, for those who are never silent."""


class Result(Struct, frozen=True, kw_only=True):
    """End and output of the command `argv`. A terminal's output is `stdout`.

    `exit_code` is 128+N after a death by signal N, whose name is in `signal`. `omitted_bytes` is how much of the middle
    of `stdout` and `stderr` was left out to stay within the bound. `totals` is what each stream carried, by the
    server's count; `remaining` are processes of it that lived on after the close, `ended` those that were ended
    because the command itself had.
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
    ended: list[Member] = []

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
    """The output of a command so far, each stream within a bound.

    Without a bound of the user's, more than `MAX_COLLECTED_BYTES` is an error, and so is a gap that nobody asked for.
    """

    def __init__(self, process: Process, max_bytes: int | None) -> None:
        self._process = process
        self._may_cut = max_bytes is not None
        bound = check_bound(max_bytes)
        self._streams = {"stdout": HeadTail(bound), "stderr": HeadTail(bound)}
        self._left_out = 0

    async def communicate(self, input: Data | None) -> Result:
        """Write the input, collect the output to its end and return the result. Cancelling leaves here what came."""
        check_input(input)
        async with open_helpers() as nursery:
            if input is not None:
                nursery.start_soon(_feed, self._process, input)
            while (event := await self._next()) is not None:
                self._take(event)
        return self._result()

    async def run(self, input: Data | None, patience: float, grace: float, leave_timeout: float) -> Result:
        """Write the input, collect the output to the end of the leader, end what is left, and return the result.

        What others print is collected until they are silent. Raises `CommandTimeoutError` with the last words of a
        command that was ended because its time was over.
        """
        with trio.move_on_after(patience):
            async with open_helpers() as nursery:
                if input is not None:
                    nursery.start_soon(_feed, self._process, input)
                while (event := await self._next()) is not None and not isinstance(event, Exited):
                    self._take(event)
        if in_time := self._process.exit_code is not None:
            with trio.move_on_after(_LATEST_SECONDS):
                await self._collect_until_quiet()
        closed = self._process.closed
        if closed is None or closed.remaining:
            self._may_cut = self._may_cut or not in_time  # that it took too long is the greater news
            with trio.move_on_after(grace + leave_timeout):
                await self._process.terminate(grace)
                while (event := await self._next()) is not None:
                    self._take(event)
                await self._process._mirror.wait_alone()
        if not in_time:
            raise self._late(patience)
        return self._result(closed.remaining if closed else [])

    async def _collect_until_quiet(self) -> None:
        while True:
            with trio.move_on_after(_QUIET_SECONDS) as silence:
                if (event := await self._next()) is None:
                    return
                self._take(event)
            if silence.cancelled_caught:
                return

    async def _next(self) -> Event | None:
        try:
            return await self._process.next_event()
        except ConnectionLostError as lost:
            lost.stdout, lost.stderr = self.stdout, self.stderr
            raise

    def _take(self, event: Event) -> None:
        if isinstance(event, Chunk):
            stream = self._streams["stderr" if event.stream == "stderr" else "stdout"]
            stream.append(event.chunk)
            if stream.omitted_bytes and not self._may_cut:
                raise self._truncated(f"printed more than {MAX_COLLECTED_BYTES} bytes, and no max_bytes was given")
        elif isinstance(event, Gap):
            self._left_out += sum(event.omitted.values())

    def _result(self, also_ended: list[Member] | None = None) -> Result:
        process, closed = self._process, self._process.closed
        assert process.exit_code is not None
        assert process.reason is not None
        if self._left_out and not process._drops and not self._may_cut:
            raise self._truncated(f"lost {self._left_out} bytes of output while the connection was interrupted")
        return Result(
            argv=process.argv,
            exit_code=process.exit_code,
            signal=process.signal,
            reason=process.reason,
            stdout=self.stdout,
            stderr=self.stderr,
            omitted_bytes=sum(stream.omitted_bytes for stream in self._streams.values()) + self._left_out,
            totals=closed.totals if closed else {},
            remaining=closed.remaining if closed and not also_ended else [],
            ended=(closed.ended if closed else []) + (also_ended or []),
        )

    def _late(self, patience: float) -> CommandTimeoutError:
        process = self._process
        return CommandTimeoutError(
            process.argv,
            timeout=patience,
            exit_code=process.exit_code,
            signal=process.signal,
            reason=process.reason,
            stdout=self.stdout,
            stderr=self.stderr,
        )

    def _truncated(self, how: str) -> OutputTruncatedError:
        process = self._process
        return OutputTruncatedError(
            process.argv,
            how,
            exit_code=process.exit_code,
            signal=process.signal,
            reason=process.reason,
            stdout=self.stdout,
            stderr=self.stderr,
        )

    @property
    def stdout(self) -> bytes:
        """Standard output so far, or a terminal's."""
        return bytes(self._streams["stdout"])

    @property
    def stderr(self) -> bytes:
        """Standard error so far."""
        return bytes(self._streams["stderr"])


def check_bound(max_bytes: int | None) -> int:
    """Return a bound on collected output, the default one for None. Raises `InvalidParamsError` for no number."""
    if max_bytes is None:
        return MAX_COLLECTED_BYTES
    if not isinstance(max_bytes, int) or isinstance(max_bytes, bool) or max_bytes < 0:
        raise InvalidParamsError(f"max_bytes must be a number of bytes, got {max_bytes!r}", field="max_bytes")
    return max_bytes


async def _feed(process: Process, input: Data) -> None:
    """Write all there is, then the end. A command need not read it."""
    try:
        if input:
            await process.write(input)
        await process.close_stdin()
    except (StdinClosedError, UnknownProcessError, ConnectionLostError):
        return  # whoever reads the output hears of it too
