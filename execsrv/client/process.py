"""A command that runs on a server, in the hand of a user."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Generic, TypeVar

from execsrv._log.log import Closed, Entry, Exited
from execsrv.client.mirror import Mirror
from execsrv.client.parameters import Data, check_input, seconds, text
from execsrv.client.result import MAX_COLLECTED_BYTES, Collected, Result
from execsrv.errors import InvalidParamsError, StdinClosedError
from execsrv.protocol import (
    Chunk,
    Grace,
    Graceful,
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

_LONGEST_GRACE_MILLISECONDS = 2**53


class Process:
    """A started command. Made by `Client.start`; ended, with everything below it, when that block is left.

    Its output is kept for one reader. While nobody reads, the command blocks once the window is full, as with any
    pipe; other commands go on.

    Every call raises `ConnectionLostError` when there is no way back to the server. Cancelling one stops waiting;
    whether the server still does what was asked is then unknown, unless the call says more.
    """

    _mirror: Mirror
    _argv: list[str]
    _pid: int | None
    _writes: int

    def __init__(self) -> None:
        raise TypeError("a Process is made by `async with client.start(argv) as process`")

    @classmethod
    def _made(cls, mirror: Mirror, argv: list[str], pid: int | None) -> Process:
        process = cls.__new__(cls)
        process._mirror, process._argv, process._pid, process._writes = mirror, argv, pid, 0
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
        """Return the next event: output, exit and close, in order; None when all is over. For one reader at a time.

        Raises `ConnectionLostError` behind the last that arrived. Cancelling loses nothing.
        """
        return await self._mirror.next()

    def events(self) -> AsyncIterator[Event]:
        """Iterate over all events, from here to the end. Cancelling loses nothing.

        A reader that stops may be followed by another, which goes on where it stopped.
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

    async def communicate(self, input: Data | None = None, max_bytes: int = MAX_COLLECTED_BYTES) -> Result:
        """Write `input` and end the command's stdin, collect its output to the end, and return the result.

        Each stream is kept up to `max_bytes`, beginning and end. Raises `ConnectionLostError`, with what had arrived.
        Cancelling stops waiting, not the process; what was collected is lost.
        """
        return await Collected(max_bytes).communicate(self, input)

    # -- what one can do to it --

    async def write(self, data: Data) -> None:
        """Write to its stdin, and wait until the operating system took it. Raises `StdinClosedError`.

        Cancelling stops waiting; the input may still arrive.
        """
        if data is None:
            raise TypeError("input must be bytes, got None")
        check_input(data)
        self._writes += 1
        params = ProcessWrite(self.id, bytes(data), str(self._writes))
        written = await self._mirror.calls.call("process/write", params, ProcessWritten)
        if written.status != "accepted":
            raise StdinClosedError(f"stdin is closed for process {self.id}")

    async def close_stdin(self) -> None:
        """End its input, behind all that was written. A terminal gets its end-of-file character."""
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
        time = seconds("grace", grace, zero=True)
        if time == 0:
            return await self.kill()
        milliseconds = _LONGEST_GRACE_MILLISECONDS if time == math.inf else max(1, round(time * 1000))
        return await self._end(ProcessTerminate(self.id, Graceful(Grace(milliseconds))))

    async def kill(self) -> bool:
        """End it and everything that descends from it by force.

        Return whether the leader was still running, without waiting for its end.
        """
        return await self._end(ProcessTerminate(self.id))

    async def _end(self, params: ProcessTerminate) -> bool:
        return (await self._mirror.calls.call("process/terminate", params, Running)).running

    async def resize(self, rows: int, cols: int) -> None:
        """Change the size of its terminal."""
        await self._mirror.calls.call("process/resize", ProcessResize(self.id, rows, cols), Nothing)

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
