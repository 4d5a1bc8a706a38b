"""A command that runs on a server, in the hand of a user."""

from __future__ import annotations

import secrets
from functools import cached_property
from typing import TYPE_CHECKING, Any

import trio

from execsrv._nursery import happened
from execsrv.client.dialogue import Dialogue
from execsrv.client.ending import termination
from execsrv.client.given import Given
from execsrv.client.inside import mirror_of
from execsrv.client.mirror import Mirror
from execsrv.client.parameters import WRITE_BYTES, Data, pieces, seconds, string
from execsrv.client.pending import PendingCall
from execsrv.client.reading import Reading
from execsrv.client.result import Collected, Result
from execsrv.client.streams import Input
from execsrv.client.text import TextMode, as_bytes, text_mode
from execsrv.errors import InvalidParamsError, StdinClosedError
from execsrv.protocol import (
    Nothing,
    ProcessCloseStdin,
    ProcessId,
    ProcessResize,
    ProcessSignal,
    ProcessSignaled,
    ProcessSnapshot,
    ProcessStart,
    ProcessTerminate,
    ProcessWrite,
    ProcessWritten,
    Running,
    SignalTarget,
)
from execsrv.protocol.sandbox import Confined

if TYPE_CHECKING:
    from execsrv.client.passed import PassedStreams

DEFAULT_GRACE_SECONDS = 5.0
"""Time for a command that was asked to end, unless its user says otherwise: enough to save a file or to tell its own
children, and not so long that anybody gives up waiting."""


class Process(Dialogue, Reading, metaclass=Given):
    """A started command. Made by `Client.start`; ended, with everything below it, when that block is left.

    Each stream of its output is read once, in order: by one task at a time, which goes on where the last one stopped.
    While nobody reads, the command blocks once the window is full, as with any pipe; other commands go on.

    Every call raises `ConnectionLostError` when there is no way back to the server. Cancelling a call stops waiting;
    whether the server still does what was asked is then unknown, unless the call's documentation says more.
    """

    _made_by = "a Process is made by `async with client.start(argv) as process`"

    def __init__(
        self,
        mirror: Mirror,
        params: ProcessStart,
        pid: int | None,
        text: TextMode | None = None,
        passed: PassedStreams | None = None,
    ) -> None:
        super().__init__(mirror, params.argv, pid, passed)
        mirror.text, mirror.drops = text, params.overflow == "drop"
        self._has_pipe = params.pipe_stdin
        self._is_started_here = not mirror.is_attached and params.key is None
        self._writes = 0
        self._writing: PendingCall | None = None
        self._input_turn = trio.Lock()

    @property
    def confined(self) -> Confined | None:
        """The confinement that it has: its layers, and what its policy names but could not get. None without one."""
        return self._mirror.confined

    @cached_property
    def _write_name(self) -> str:
        """Beginning of the names of its writes: none where nobody else can have counted from 1."""
        return "" if self._is_started_here else f"{secrets.token_hex(4)}-"

    @cached_property
    def stdin(self) -> Input:
        """Its input, a `trio.abc.SendStream`."""
        return Input(self.id, self.write, self.close_stdin)

    # -- what one can do to it --

    async def communicate(
        self,
        input: Data | str | None = None,
        *,
        text: bool | None = None,
        encoding: str | None = None,
        errors: str | None = None,
        max_bytes: int | None = None,
        truncate: bool = False,
    ) -> Result[Any]:
        """Write `input` and end the command's stdin, collect its output to the end, and return the result.

        A pipe is ended without an input too; a terminal, where nothing ends by itself, only with one.

        Each stream is kept up to `max_bytes` (64 MiB). More is an `OutputTruncatedError`, unless it may `truncate`:
        then the beginning and the end are kept. What is no text, where that is asked for, is an `OutputNotTextError`.
        Both errors, and `ConnectionLostError`, have what had arrived.

        Without `text`, `encoding` and `errors`, those of the start apply. Cancelling stops waiting, not the process;
        what was collected is lost.
        """
        is_said = (text, encoding, errors) != (None, None, None)
        mode = text_mode(text, encoding, errors) if is_said else self._mirror.text
        data = as_bytes(input, mode)
        if data is None and self._has_pipe:
            data = b""
        with collected(self, mode, max_bytes, truncate) as output:
            return await output.communicate(data)

    async def write(self, data: Data | str) -> None:
        """Write to its stdin, and wait until the operating system took it. Raises `StdinClosedError`.

        Text is for a process that was started for it. Input may be of any size: it goes piece by piece, as the command
        reads. Another `write` waits until this one is done. Cancelling stops waiting; a part of the input may still
        arrive.
        """
        if (given := as_bytes(data, self._mirror.text, "data")) is None:
            raise TypeError("data must be bytes, got None")
        async with self._input_turn:
            if self._passed is not None:
                await self._passed.write(given)
                return
            for piece in pieces(given, WRITE_BYTES):
                await self._write(piece)

    async def _write(self, piece: bytes) -> None:
        """Write a piece, once the one before has been taken: so there is never more under way than one."""
        calls = self._mirror.calls
        if self._writing is not None:
            await happened(self._writing.answered)  # whoever wrote it was cancelled
        for tap in self._mirror.taps:
            tap.wrote(piece)
        params = ProcessWrite(self.id, piece, f"{self._write_name}{self._writes + 1}")
        self._writing = await calls.post("process/write", params)
        self._writes += 1
        self._mirror.sent_bytes += len(piece)
        written = await calls.answer_to(self._writing, ProcessWritten)
        self._writing = None
        if written.status != "accepted":
            raise StdinClosedError(f"stdin is closed for process {self.id}")

    async def close_stdin(self) -> None:
        """End its input, after all that was written. A terminal gets its end-of-file character.

        Raises `StdinClosedError` for a process that was started without an input.
        """
        async with self._input_turn:
            if self._passed is not None:
                await self._passed.close_stdin()
                return
            self._writes += 1
            params = ProcessCloseStdin(self.id, f"{self._write_name}{self._writes}")
            await self._mirror.calls.call("process/closeStdin", params, Nothing)

    async def send_signal(self, signal: str | int, target: SignalTarget = "group") -> int:
        """Send a signal, by name or number, and return how many processes it was sent to.

        `target` is the started process ("leader"), its process group, the job in front of its terminal ("foreground"),
        or everything that descends from it ("tree").

        Raises `InvalidParamsError` for an unknown signal, and `ConnectionLostError` when it is not known whether it
        arrived.
        """
        if isinstance(signal, str):
            string("signal", signal)
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
        calls, ran = self._mirror.calls, self._mirror.exited is None
        asked = await calls.post("process/terminate", params)
        ended = await calls.answer_to(asked, Running)
        return ended.running or (asked.repeated and ran)  # the first one, whose answer was lost, may have ended it

    def leave_running(self) -> None:
        """Let it go on when its block is left, until its connection ends. This is for a connection that is kept.

        Its output then waits for nobody. `Client.attach` comes back to it. Raises `InvalidParamsError` if its streams
        were passed: they end with the block.
        """
        if self._passed is not None:
            message = f"process {self.id} was started with pass_streams: its streams end with its block"
            raise InvalidParamsError(message, field="pass_streams")
        self._mirror.is_left = True

    async def resize(self, rows: int, cols: int, xpixel: int = 0, ypixel: int = 0) -> None:
        """Change the size of its terminal, in characters and, if that is known, in pixels.

        Raises `InvalidParamsError` for a process that has no terminal, and for an invalid size.
        """
        await self._mirror.calls.call("process/resize", ProcessResize(self.id, rows, cols, xpixel, ypixel), Nothing)
        for tap in self._mirror.taps:
            tap.resized(rows, cols)
        if self._drawing is not None:
            self._drawing.resized()

    async def snapshot(self) -> ProcessSnapshot:
        """Return what the server retains: how the process stands, and the beginning and the end of each stream."""
        return await self._mirror.calls.call("process/snapshot", ProcessId(self.id), ProcessSnapshot)


def collected(process: Process, mode: TextMode | None, max_bytes: int | None, truncate: bool) -> Collected:
    """Return what collects the output of a process."""
    mirror = mirror_of(process)
    if not mirror.reader.is_passed:
        return Collected(process, mirror, mode, max_bytes, truncate)
    from execsrv.client.passed_result import PassedCollected

    return PassedCollected(process, mirror, mode, max_bytes, truncate)
