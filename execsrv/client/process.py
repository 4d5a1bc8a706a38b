"""A command that runs on a server, in the hand of a user."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Generic, TypeVar

import trio

from execsrv._log.log import Closed, Entry, Exited
from execsrv.client.calls import PendingCall
from execsrv.client.mirror import Mirror, termination
from execsrv.client.parameters import WRITE_BYTES, Data, check_input, pieces, seconds, text
from execsrv.client.result import Collected, Result
from execsrv.errors import InvalidParamsError, StdinClosedError
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
    Reason,
    Running,
    SignalTarget,
)

T = TypeVar("T")

Event = Entry
"""One thing that happens to a process: output, a gap in it where that was asked for, the end of the leader, or the end
of everything."""

DEFAULT_GRACE_SECONDS = 5.0
"""Time for a command that was asked to end, unless its user says otherwise: enough to save a file or to tell its own
children, and not so long that anybody gives up waiting."""


class Process:
    """A started command. Made by `Client.start`; ended, with everything below it, when that block is left.

    Its output is for one reader at a time. While nobody reads, the command blocks once the window is full, as with any
    pipe; other commands go on.

    Every call raises `ConnectionLostError` when there is no way back to the server. Cancelling one stops waiting;
    whether the server still does what was asked is then unknown, unless the call says more.
    """

    _mirror: Mirror
    _argv: list[str]
    _pid: int | None
    _writes: int
    _writing: PendingCall | None
    _input_turn: trio.Lock
    _drops: bool

    def __init__(self) -> None:
        raise TypeError("a Process is made by `async with client.start(argv) as process`")

    @classmethod
    def _made(cls, mirror: Mirror, argv: list[str], pid: int | None, drops: bool) -> Process:
        process = cls.__new__(cls)
        process._drops = drops
        process._mirror, process._argv, process._pid = mirror, argv, pid
        process._writes, process._writing, process._input_turn = 0, None, trio.Lock()
        return process

    def __repr__(self) -> str:
        state = "closed" if self.closed else "exited" if self._mirror.exited else "running"
        return f"<Process {self.id} {state} pid={self.pid}>"

    # -- facts --

    @property
    def id(self) -> str:
        """Name of the process in `process/*`."""
        return self._mirror.id

    @property
    def argv(self) -> list[str]:
        """Command as it was started."""
        return list(self._argv)

    @property
    def pid(self) -> int | None:
        """Pid of the leader, on the server's machine. None where the server does not tell it."""
        return self._pid

    @property
    def exit_code(self) -> int | None:
        """Exit code of the leader, 128+N after its death by signal N. None while it runs."""
        return self._mirror.exited.exit_code if self._mirror.exited else None

    @property
    def returncode(self) -> int | None:
        """Exit code of the leader as `subprocess` has it: -N after its death by signal N. None while it runs."""
        exited = self._mirror.exited
        return None if exited is None else 128 - exited.exit_code if exited.signal else exited.exit_code

    @property
    def signal(self) -> str | None:
        """Name of the signal that the leader died of, such as "SIGKILL". None while it runs, and otherwise."""
        return self._mirror.exited.signal if self._mirror.exited else None

    @property
    def reason(self) -> Reason | None:
        """Cause of the leader's end: "exited", "signaled", or why the server ended it. None while it runs."""
        return self._mirror.exited.reason if self._mirror.exited else None

    @property
    def closed(self) -> Closed | None:
        """End of everything: how much each stream carried and what lives on. None before."""
        return self._mirror.closed

    # -- what happens to it --

    async def wait(self) -> Exited:
        """Wait for the end of the leader. Cancelling stops waiting, not the process.

        Somebody must read the output of a command that prints more than the window, or it blocks and never ends.
        """
        return await self._mirror.wait_exited()

    async def next_event(self) -> Event | None:
        """Return the next event: output, exit and close, in order; None when all is over. Cancelling loses nothing.

        Raises `ConnectionLostError` behind the last that arrived, and `trio.BusyResourceError` while another task is
        reading.
        """
        return await self._mirror.next()

    def events(self) -> AsyncIterator[Event]:
        """Iterate over all events, from here to the end. Cancelling loses nothing.

        A reader that stops may be followed by another, which goes on where it stopped. While one reads, another is
        `trio.BusyResourceError`.
        """
        return _Iterator(self.next_event)

    @property
    def output(self) -> AsyncIterator[bytes]:
        """Iterator over all output as it comes, stdout and stderr alike, until both are at their end."""
        return _Iterator(self._next_output)

    async def _next_output(self) -> bytes | None:
        while (event := await self.next_event()) is not None:
            if isinstance(event, Chunk):
                return event.chunk
        return None

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


class _Iterator(Generic[T]):
    """Iteration by a function that returns None at the end.

    No generator: leaving the loop early leaves nothing behind that wants to be closed.
    """

    def __init__(self, take: Callable[[], Awaitable[T | None]]) -> None:
        self._take = take

    def __aiter__(self) -> _Iterator[T]:
        return self

    async def __anext__(self) -> T:
        if (value := await self._take()) is None:
            raise StopAsyncIteration
        return value
