"""The result of a command that was run to its end, and the task of collecting it."""

from __future__ import annotations

import math
from contextlib import nullcontext
from io import BytesIO
from typing import TYPE_CHECKING, Any, Generic, Self

import trio
from msgspec import Struct

from execsrv._log.head_tail import HeadTail
from execsrv._log.log import Closed, Gap
from execsrv._nursery import open_helpers
from execsrv.client.ending import wait_alone
from execsrv.client.inbox import Part, part_of
from execsrv.client.parameters import Data, check_bound, flag
from execsrv.client.text import TextMode, decoded, split_lines
from execsrv.errors import (
    BadAnswerError,
    CommandFailedError,
    CommandTimeoutError,
    ConnectionLostError,
    OutputNotTextError,
    OutputTruncatedError,
    StdinClosedError,
    UnknownProcessError,
)
from execsrv.protocol import Chunk, Member, Reason, Stream
from execsrv.protocol.process_limits import ProcessUsage
from execsrv.protocol.sandbox import Denial

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    from execsrv.client.mirror import Mirror
    from execsrv.client.process import Process
    from execsrv.client.reading import Event

    Said = TypeVar("Said", bound=bytes | str, default=bytes, covariant=True)
else:
    from typing import TypeVar

    Said = TypeVar("Said", bound=bytes | str, covariant=True)

END_GRACE_SECONDS = 2.0
"""Time that what is to end with `run` has after SIGTERM, unless its user says otherwise."""

_QUIET_SECONDS = 0.5
"""Silence after which what others than the leader still hold of the streams is taken for nothing to wait for. The
server knows better, and sooner: this is for one that does not end what is left by itself."""

_LATEST_SECONDS = 5.0
"""Time from the end of the leader to the end of all, for those who are never silent."""


class Result(Struct, Generic[Said], frozen=True, kw_only=True):
    """End and output of the command `argv`: bytes, or strings where text was asked for. A terminal's is `stdout`.

    `exit_code` is 128+N after a death by signal N, whose name is in `signal`. `omitted_bytes` is how much of the middle
    of `stdout` and `stderr` was left out to stay within the bound. `totals` is what each stream carried, by the
    server's count; `remaining` are processes of it that lived on after the close, `ended` those that were ended because
    the command itself had. `denial` is why its failure is put down to its confinement, `usage` what it has used, if it
    had limits. `server` is the URL of the server, if a pool has chosen it.
    """

    argv: list[str]
    exit_code: int
    signal: str | None
    reason: Reason
    stdout: Said
    stderr: Said
    omitted_bytes: int = 0
    totals: dict[Stream, int] = {}
    remaining: list[Member] = []
    ended: list[Member] = []
    denial: Denial | None = None
    usage: ProcessUsage | None = None
    server: str | None = None

    @property
    def text(self) -> str:
        """`stdout` as text, whichever it is. Raises `UnicodeDecodeError` for bytes that are not UTF-8."""
        return self.stdout if isinstance(self.stdout, str) else decoded(bytes(self.stdout), TextMode(), "stdout")

    @property
    def lines(self) -> list[str]:
        """Lines of `stdout`, as text and without their ends."""
        return split_lines(self.text)

    def check(self) -> Result[Said]:
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


class _Kept:
    """One stream within a bound: all of it, or the beginning and the end of more."""

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._all = BytesIO()  # which gives what is in it without a copy
        self._ends: HeadTail | None = None

    def append(self, data: bytes) -> None:
        """Add what comes next."""
        if self._ends is None:
            if self._all.tell() + len(data) <= self._bound:
                self._all.write(data)
                return
            self._ends = HeadTail(self._bound)
            self._ends.append(self._all.getvalue())
            self._all = BytesIO()
        self._ends.append(data)

    @property
    def omitted_bytes(self) -> int:
        """The bytes that are missing in the middle."""
        return self._ends.omitted_bytes if self._ends else 0

    def __bytes__(self) -> bytes:
        return self._all.getvalue() if self._ends is None else bytes(self._ends)


class Collected:
    """The output of a command so far, each stream within a bound, `MAX_COLLECTED_BYTES` where there is none.

    More is an error unless it may `truncate`, and so is a gap that nobody asked for. A `ConnectionLostError`, or a
    `BadAnswerError`, that leaves its block tells what had arrived, and that it is about this command, whatever was
    asked of the server last.
    """

    def __init__(
        self, process: Process, mirror: Mirror, mode: TextMode | None, max_bytes: int | None, truncate: bool
    ) -> None:
        self._process = process
        self._mirror = mirror
        self._mode = mode
        self._may_cut = flag("truncate", truncate)
        self._bound = check_bound(max_bytes)
        self._streams: dict[Part, _Kept] = {"stdout": _Kept(self._bound), "stderr": _Kept(self._bound)}
        self._left_out = 0
        self._is_over = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, ConnectionLostError | BadAnswerError):
            error.stdout, error.stderr = self._so_far("stdout"), self._so_far("stderr")
            error.process = self._process.id

    async def communicate(self, input: Data | None) -> Result[Any]:
        """Write the input, collect the output to its end and return the result. Cancelling leaves here what came."""
        async with open_helpers() as nursery:
            if input is not None:
                nursery.start_soon(feed, self._process, input)
            while (event := await self._process.next_event()) is not None:
                self._take(event)
        return self._result()

    async def run(self, input: Data | None, patience: float, grace: float, leave_timeout: float) -> Result[Any]:
        """Write the input, collect the output to the end of the leader, end what is left, and return the result.

        What others print is collected until they are silent. Raises `CommandTimeoutError` with the last words of a
        command that was ended because its time was over.
        """
        # Scopes and nurseries are opened where they are needed: they are a large part of what a short command costs.
        with trio.move_on_after(patience) if patience < math.inf else nullcontext():
            if input is None:
                await self._collect_until_exit()
            else:
                async with open_helpers() as nursery:
                    nursery.start_soon(feed, self._process, input)
                    await self._collect_until_exit()
        in_time = self._process.exit_code is not None
        if in_time and not self._is_over:
            await self._collect_until_quiet()
        closed = self._process.closed
        if closed is None or closed.remaining:
            self._may_cut = self._may_cut or not in_time  # that it took too long is the greater news
            with trio.move_on_after(grace + leave_timeout):
                await self._process.terminate(grace)
                while not self._is_over:
                    await self._collect()
                await wait_alone(self._mirror)
        if not in_time:
            raise self._late(patience)
        return self._result(closed.remaining if closed else [])

    async def _collect_until_exit(self) -> None:
        while self._process.exit_code is None and not self._is_over:
            await self._collect()

    async def _collect_until_quiet(self) -> None:
        latest = trio.current_time() + _LATEST_SECONDS
        with trio.move_on_after(_QUIET_SECONDS) as silence:
            while not self._is_over:
                await self._collect()
                silence.deadline = min(latest, trio.current_time() + _QUIET_SECONDS)

    async def _collect(self) -> None:
        """Take all that has come, or else what comes next."""
        events = await self._mirror.reader.next_all() or []
        for event in events:
            self._take(event)
        self._is_over = not events or isinstance(events[-1], Closed)

    def _take(self, event: Event) -> None:
        if isinstance(event, Chunk):
            stream = self._streams[part_of(event.stream)]
            stream.append(event.chunk)
            if stream.omitted_bytes and not self._may_cut:
                raise self._truncated(f"printed more than {self._bound} bytes, and truncate=True was not given")
        elif isinstance(event, Gap):
            self._left_out += sum(event.omitted.values())

    def _result(self, also_ended: list[Member] | None = None) -> Result[Any]:
        closed, exited = self._process.closed, self._mirror.exited
        assert exited is not None
        if self._left_out and not self._mirror.drops and not self._may_cut:
            raise self._truncated(f"lost {self._left_out} bytes of output, which were not read in time")
        return Result(
            argv=self._process.argv,
            exit_code=exited.exit_code,
            signal=exited.signal,
            reason=exited.reason,
            denial=exited.denial,
            stdout=self._whole("stdout"),
            stderr=self._whole("stderr"),
            omitted_bytes=sum(stream.omitted_bytes for stream in self._streams.values()) + self._left_out,
            totals=closed.totals if closed else {},
            remaining=closed.remaining if closed and not also_ended else [],
            ended=(closed.ended if closed else []) + (also_ended or []),
            usage=closed.usage if closed else None,
        )

    def _late(self, patience: float) -> CommandTimeoutError:
        known = self._known()
        if known["reason"] == "terminated":  # which was our doing: the server knows nothing of this clock
            known["reason"] = "timeout"
        return CommandTimeoutError(self._process.argv, timeout=patience, **known)

    def _truncated(self, how: str) -> OutputTruncatedError:
        return OutputTruncatedError(self._process.argv, how, **self._known())

    def _known(self) -> dict[str, Any]:
        """Return what is known of the command, for an error."""
        return {
            "exit_code": self._process.exit_code,
            "signal": self._process.signal,
            "reason": self._process.reason,
            "stdout": self._so_far("stdout"),
            "stderr": self._so_far("stderr"),
        }

    def _whole(self, part: Part) -> bytes | str:
        """Return a stream in the form that was asked for. What is cut may be cut within a character."""
        stream = self._streams[part]
        if self._mode is None:
            return bytes(stream)
        mode = self._mode if not stream.omitted_bytes else self._mode.forgiving()
        try:
            return decoded(bytes(stream), mode, part)
        except UnicodeDecodeError as error:
            known = self._known()
            how = f"ended with exit code {known['exit_code']}, and its output is no text: {error}"
            raise OutputNotTextError(self._process.argv, how, **known) from error

    def _so_far(self, part: Part) -> bytes | str:
        """Return what came of a stream, for an error, which must not become another."""
        data = bytes(self._streams[part])
        return data if self._mode is None else decoded(data, self._mode.forgiving(), part)


async def feed(process: Process, input: Data) -> None:
    """Write all there is, then the end. A command need not read it."""
    try:
        if input:
            await process.write(input)
        await process.close_stdin()
    except (StdinClosedError, UnknownProcessError, ConnectionLostError):
        return  # whoever reads the output hears of it too
