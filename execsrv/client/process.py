"""A command that runs on a server, in the hand of a user."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from functools import partial

import trio

from execsrv._log.entries import Entry, Exited, Gap
from execsrv.client.calls import PendingCall
from execsrv.client.dialogue import Dialogue
from execsrv.client.inbox import PARTS, Part
from execsrv.client.iteration import Iteration
from execsrv.client.mirror import Mirror, termination
from execsrv.client.parameters import WRITE_BYTES, Data, check_input, pieces, seconds, text
from execsrv.client.reader import Reader
from execsrv.client.result import Collected, Result
from execsrv.client.streams import Input, Output
from execsrv.client.text import MAX_LINE_BYTES, LineTaker, TextMode, TextTaker, text_mode
from execsrv.errors import InvalidParamsError, OutputTruncatedError, StdinClosedError
from execsrv.protocol import (
    Chunk,
    Nothing,
    ProcessId,
    ProcessResize,
    ProcessSignal,
    ProcessSignaled,
    ProcessSnapshot,
    ProcessTerminate,
    ProcessWrite,
    ProcessWritten,
    Running,
    SignalTarget,
)

Event = Entry
"""One thing that happens to a process: output, a gap in it where that was asked for, the end of the leader, or the end
of everything."""

DEFAULT_GRACE_SECONDS = 5.0
"""Time for a command that was asked to end, unless its user says otherwise: enough to save a file or to tell its own
children, and not so long that anybody gives up waiting."""


class Process(Dialogue):
    """A started command. Made by `Client.start`; ended, with everything below it, when that block is left.

    Each stream of its output is read once, in order: by one task at a time, which goes on where the last one stopped.
    While nobody reads, the command blocks once the window is full, as with any pipe; other commands go on.

    Every call raises `ConnectionLostError` when there is no way back to the server. Cancelling one stops waiting;
    whether the server still does what was asked is then unknown, unless the call says more.
    """

    _writes: int
    _writing: PendingCall | None
    _input_turn: trio.Lock
    _drops: bool
    _text: TextMode | None
    stdin: Input
    """Its input, a `trio.abc.SendStream`."""
    stdout: Output
    """Its output, or all that its terminal shows: a `trio.abc.ReceiveStream`."""
    stderr: Output
    """Its errors, a `trio.abc.ReceiveStream`. Nothing comes where they have no pipe of their own."""

    def __init__(self) -> None:
        raise TypeError("a Process is made by `async with client.start(argv) as process`")

    @classmethod
    def _made(
        cls, mirror: Mirror, argv: list[str], pid: int | None, drops: bool, text: TextMode | None = None
    ) -> Process:
        process = cls.__new__(cls)
        process._drops, process._text = drops, text
        process.stdin = Input(mirror.id, process.write, process.close_stdin)
        process.stdout, process.stderr = (
            Output(mirror.reader, part, process._missed, partial(mirror.close_part, part)) for part in PARTS
        )
        process._mirror, process._argv, process._pid = mirror, argv, pid
        process._writes, process._writing, process._input_turn = 0, None, trio.Lock()
        return process

    # -- what happens to it --

    async def wait(self) -> Exited:
        """Wait for the end of the leader. Cancelling stops waiting, not the process.

        While no other task reads its output, the oldest of what exceeds the window is let go, so that it can end. Who
        reads later is told: by a `Gap` among the events, otherwise by an `OutputTruncatedError`. A task that has read
        before, and still runs, is waited for.
        """
        return await self._reader.wait_exited()

    async def next_event(self) -> Event | None:
        """Return the next event: output, exit and close, in order; None when all is over. Cancelling loses nothing.

        Raises `ConnectionLostError` behind the last that arrived, `trio.BusyResourceError` while another task is
        reading, and `trio.ClosedResourceError` behind the block of `start`.
        """
        return await self._reader.next()

    def events(self) -> AsyncIterator[Event]:
        """Iterate over all events, from here to the end. Cancelling loses nothing.

        A reader that stops may be followed by another, which goes on where it stopped. While one reads, another is
        `trio.BusyResourceError`.
        """
        return Iteration(self.next_event)

    @property
    def output(self) -> AsyncIterator[bytes]:
        """Iterator over all output as it comes, stdout and stderr alike, until both are at their end."""
        return Iteration(self._next_output)

    async def _next_output(self) -> bytes | None:
        while (event := await self.next_event()) is not None:
            if isinstance(event, Chunk):
                return event.chunk
            if isinstance(event, Gap):
                self._missed(event)
        return None

    def lines(
        self,
        stream: Part | None = None,
        *,
        encoding: str | None = None,
        errors: str | None = None,
        max_bytes: int = MAX_LINE_BYTES,
    ) -> AsyncIterator[str]:
        r"""Iterate over the lines of a stream, "stdout" or "stderr", or of both as they come, each in one piece.

        A line comes without its end, which is "\n", "\r\n" or "\r"; the last one needs none. `encoding` and `errors`
        are those of the start, by default UTF-8 and "strict". Cancelling loses nothing.

        Raises `UnicodeDecodeError`, and `LimitExceededError` for a line of more than `max_bytes`: the line can still be
        read in another way. Raises `OutputTruncatedError` where output is missing that nobody had given up.
        """
        taker = LineTaker(self._reader.inbox, _part(stream), self._mode(encoding, errors), max_bytes, self.id)

        def take() -> str | Gap | None:
            if (taken := taker.take()) is None and self._reader.is_full:
                taker.make_room()
            return taken

        return Iteration(partial(self._next_text, _part(stream), take))

    def text(
        self, stream: Part | None = None, *, encoding: str | None = None, errors: str | None = None
    ) -> AsyncIterator[str]:
        """Iterate over the characters of a stream, or of both, in pieces as they come. Line ends stay as they are.

        It raises as `lines` does. Cancelling loses nothing.
        """
        taker = TextTaker(self._reader.inbox, _part(stream), self._mode(encoding, errors), self.id)
        return Iteration(partial(self._next_text, _part(stream), taker.take))

    async def _next_text(self, part: Part | None, take: Callable[[], str | Gap | None]) -> str | None:
        while True:
            taken: str | Gap | None = await self._reader.read(part, take)
            if not isinstance(taken, Gap):
                return taken
            self._missed(taken)

    def _mode(self, encoding: str | None, errors: str | None) -> TextMode:
        """Return the way to text that a call asks for, or else that of the start."""
        default = self._text or TextMode()
        return text_mode(True, encoding or default.encoding, errors or default.errors) or default

    def _missed(self, gap: Gap) -> None:
        """Raise `OutputTruncatedError` for output that is missing, unless the process was started to drop some."""
        if not self._drops:
            missing = " and ".join(f"{count} bytes of {stream}" for stream, count in gap.omitted.items())
            how = f"is missing {missing or 'output'} here, which nobody read in time"
            raise OutputTruncatedError(self.argv, how, exit_code=self.exit_code, signal=self.signal, reason=self.reason)

    @property
    def _reader(self) -> Reader:
        return self._mirror.reader

    async def communicate(self, input: Data | None = None, max_bytes: int | None = None) -> Result:
        """Write `input` and end the command's stdin, collect its output to the end, and return the result.

        Each stream is kept up to `max_bytes`, beginning and end. Raises `OutputTruncatedError` for more than 64 MiB of
        a stream without such a bound, and `ConnectionLostError`; both have what had arrived.

        Cancelling stops waiting, not the process; what was collected is lost.
        """
        return await Collected(self, max_bytes).communicate(input)

    # -- what one can do to it --

    async def write(self, data: Data) -> None:
        """Write to its stdin, and wait until the operating system took it. Raises `StdinClosedError`.

        As much as there is: it goes piece by piece, as the command reads. Another `write` waits until this one is done.
        Cancelling stops waiting; a part of the input may still arrive.
        """
        if data is None:
            raise TypeError("input must be bytes, got None")
        check_input(data)
        async with self._input_turn:
            for piece in pieces(data, WRITE_BYTES):
                await self._write(piece)

    async def _write(self, piece: bytes) -> None:
        """Write a piece, once the one before has been taken: so there is never more under way than one."""
        calls = self._mirror.calls
        if self._writing is not None:
            await self._writing.answered.wait()  # whoever wrote it was cancelled
        self._writes += 1
        params = ProcessWrite(self.id, piece, str(self._writes))
        self._writing = await calls.post("process/write", params)
        written = await calls.answer_to(self._writing, ProcessWritten)
        self._writing = None
        if written.status != "accepted":
            raise StdinClosedError(f"stdin is closed for process {self.id}")
        for tap in self._mirror.taps:
            tap.wrote(piece)

    async def close_stdin(self) -> None:
        """End its input, behind all that was written. A terminal gets its end-of-file character."""
        async with self._input_turn:
            await self._mirror.calls.call("process/closeStdin", ProcessId(self.id), Nothing)

    async def send_signal(self, signal: str | int, target: SignalTarget = "group") -> int:
        """Send a signal, by name or number, and return how many processes were sent it.

        `target` is the started process ("leader"), its process group, the job in front of its terminal ("foreground"),
        or everything that descends from it ("tree").

        Raises `InvalidParamsError` for an unknown signal, and `ConnectionLostError` when it is not known whether it
        arrived.
        """
        if isinstance(signal, str):
            text("signal", signal)
        elif isinstance(signal, int) and not -(2**31) < signal < 2**31:
            raise InvalidParamsError(f"unknown signal {signal}", field="signal")
        params = ProcessSignal(self.id, signal, target)
        return (await self._mirror.calls.call("process/signal", params, ProcessSignaled)).received

    async def interrupt(self) -> None:
        """Send SIGINT to its process group, as Ctrl-C does without job control."""
        await self.send_signal("interrupt")

    async def terminate(self, grace: float = DEFAULT_GRACE_SECONDS) -> bool:
        """Send SIGTERM to it and all that descends from it, and kill what is left after `grace` seconds.

        Return whether the leader was still running, without waiting for its end. A grace of 0 is `kill`.
        """
        return await self._end(termination(self.id, seconds("grace", grace, zero=True)))

    async def kill(self) -> bool:
        """End it and everything that descends from it by force.

        Return whether the leader was still running, without waiting for its end.
        """
        return await self._end(ProcessTerminate(self.id))

    async def _end(self, params: ProcessTerminate) -> bool:
        return (await self._mirror.calls.call("process/terminate", params, Running)).running

    async def resize(self, rows: int, cols: int, xpixel: int = 0, ypixel: int = 0) -> None:
        """Change the size of its terminal, in characters and, where that is known, in pixels."""
        await self._mirror.calls.call("process/resize", ProcessResize(self.id, rows, cols, xpixel, ypixel), Nothing)
        for tap in self._mirror.taps:
            tap.resized(rows, cols)

    async def snapshot(self) -> ProcessSnapshot:
        """Return what the server retains: how the process stands, and the beginning and the end of each stream."""
        return await self._mirror.calls.call("process/snapshot", ProcessId(self.id), ProcessSnapshot)


def _part(stream: object) -> Part | None:
    """Return the name of a stream that is one, or None. Raises `InvalidParamsError`."""
    if stream is None or stream == "stdout" or stream == "stderr":
        return stream
    raise InvalidParamsError(f'stream must be "stdout", "stderr" or None, got {stream!r}', field="stream")
