"""A command that runs on a server, from the side that asked for it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import trio
from msgspec import Struct

from execsrv._log.head_tail import HeadTail
from execsrv._log.log import Closed, Entry, Exited, Gap, OutputLog, entry_bytes
from execsrv._nursery import open_helpers
from execsrv.client.calls import Calls, PendingCall
from execsrv.errors import CommandFailedError, ConnectionLostError, ProtocolError, StdinClosedError, UnknownProcessError
from execsrv.limits import MIB
from execsrv.protocol import (
    Chunk,
    Failure,
    Grace,
    Graceful,
    Member,
    Nothing,
    ProcessAck,
    ProcessClosed,
    ProcessExited,
    ProcessId,
    ProcessOutputRead,
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
    Stream,
)

Event = Entry
"""What happens to a process, in order: output, a gap in it where that was asked for, the end of the leader, the end of
everything."""

MAX_COLLECTED_BYTES = 64 * MIB
_WRITE_BYTES = 256 * 1024


class Result(Struct, frozen=True, kw_only=True):
    """How a command ended and what it printed. A terminal's output is `stdout`.

    `exit_code` is 128+N after a death by signal N, whose name is in `signal`. `omitted_bytes` is how much of the middle
    of `stdout` and `stderr` was left out to stay within the bound. `totals` is what each stream carried, by the
    server's count; `remaining` are processes of it that lived on after the close.
    """

    exit_code: int
    signal: str | None
    reason: Reason
    stdout: bytes
    stderr: bytes
    omitted_bytes: int = 0
    totals: dict[Stream, int] = {}
    remaining: list[Member] = []

    def check(self) -> Result:
        """This result if the command succeeded. Raises `CommandFailedError` otherwise."""
        if self.exit_code == 0:
            return self
        how = f"died of {self.signal}" if self.signal else f"ended with exit code {self.exit_code}"
        raise CommandFailedError(f"command {how}", self.exit_code, self.stdout, self.stderr)


class Process:
    """A started command. Made by `Client.start`; ended, with everything below it, when that block is left.

    Its output is kept for one reader. While nobody reads, the command blocks once the window is full, as with any
    pipe; other commands go on.

    Every call raises `ConnectionLostError` when there is no way back to the server. Cancelling one stops waiting;
    whether the server still does what was asked is then unknown, unless the call says more.
    """

    def __init__(self, id: str, calls: Calls, window_bytes: int, acknowledges: bool) -> None:
        """With `acknowledges`, the server keeps to the window and counts on our word for what is read."""
        self.id = id
        self.start: PendingCall | None = None  # the request that starts it, once it was sent
        self.started = False  # although that was refused when it was asked again
        self._calls = calls
        self._window = window_bytes
        self._log = OutputLog(0, window_bytes)
        self._lost: ConnectionLostError | None = None
        self._resuming = False
        self._had: dict[Stream, int] = {}  # what arrived or was said to be missing
        self._arrived = trio.lowlevel.ParkingLot()
        self._taken = trio.lowlevel.ParkingLot()
        self._unacknowledged = 0
        self._acknowledges = acknowledges
        self._abandoned = False
        self._last_write = 0

    def __repr__(self) -> str:
        state = "closed" if self._log.closed else "exited" if self._log.exited else "running"
        return f"<Process {self.id} {state}>"

    @property
    def exit_code(self) -> int | None:
        """The leader's exit code (128+N after signal N), None while it runs."""
        return self._log.exited.exit_code if self._log.exited else None

    @property
    def closed(self) -> Closed | None:
        """The end of everything: how much each stream carried and what lives on. None before."""
        return self._log.closed

    # -- what happens to it --

    async def wait(self) -> Exited:
        """Wait for the end of the leader. Raises `ConnectionLostError`. Cancelling stops waiting, not the process.

        Somebody must read the output of a command that prints more than the window, or it blocks and never ends.
        """
        while self._log.exited is None:
            await self._park()
        return self._log.exited

    async def next_event(self) -> Event | None:
        """What happened next: output, exit and close, in order; None when all is over. For one reader at a time.

        Raises `ConnectionLostError` behind the last that arrived. Cancelling loses nothing.
        """
        await trio.lowlevel.checkpoint()
        await self._acknowledge()
        while not self._log.has_news:
            if self._log.closed:
                return None
            await self._park()
        entry = self._log.take()
        self._taken.unpark_all()
        self._unacknowledged += entry_bytes(entry)
        return entry

    def events(self) -> AsyncIterator[Event]:
        """Everything that happens, from here to the end. See `next_event`; a reader that stops may be followed by
        another, which goes on where it stopped."""
        return _Events(self)

    @property
    def output(self) -> AsyncIterator[bytes]:
        """All output as it comes, stdout and stderr alike, until both are at their end. See `events`."""
        return _Output(self)

    async def communicate(self, input: bytes | None = None, max_bytes: int = MAX_COLLECTED_BYTES) -> Result:
        """Write `input` and end the command's stdin, collect its output to the end; what came of it.

        Each stream is kept up to `max_bytes`, beginning and end. Raises `ConnectionLostError`, with what had arrived.
        Cancelling stops waiting, not the process; what was collected is lost.
        """
        return await Collected(max_bytes).communicate(self, input)

    # -- what one can do to it --

    async def write(self, data: bytes) -> None:
        """Give it input, and wait until the operating system took it. Raises `StdinClosedError`.

        Cancelling stops waiting; the input may still arrive.
        """
        if not isinstance(data, bytes | bytearray | memoryview):
            raise TypeError(f"input must be bytes, got {type(data).__name__}")
        self._last_write += 1
        params = ProcessWrite(self.id, bytes(data), str(self._last_write))
        written = await self._calls.call("process/write", params, ProcessWritten)
        if written.status != "accepted":
            raise StdinClosedError(f"stdin is closed for process {self.id}")

    async def close_stdin(self) -> None:
        """End its input, behind all that was written. A terminal gets its end-of-file character."""
        await self._calls.call("process/closeStdin", ProcessId(self.id), Nothing)

    async def signal(self, signal: str | int, target: SignalTarget = "group") -> int:
        """Send a signal, by name or number: to the started process ("leader"), its process group, the job in front of
        its terminal ("foreground"), or everything that descends from it ("tree"). How many processes were sent it.

        Raises `InvalidParamsError` for an unknown one, and `ConnectionLostError` when it is not known whether it
        arrived.
        """
        answer = await self._calls.call("process/signal", ProcessSignal(self.id, signal, target), ProcessSignaled)
        return answer.received

    async def interrupt(self) -> None:
        """SIGINT to its process group, as Ctrl-C does without job control."""
        await self.signal("interrupt")

    async def snapshot(self) -> ProcessSnapshot:
        """What the server retains of it: how it stands, and the beginning and the end of each stream."""
        return await self._calls.call("process/snapshot", ProcessId(self.id), ProcessSnapshot)

    async def resize(self, rows: int, cols: int) -> None:
        """Change the size of its terminal."""
        await self._calls.call("process/resize", ProcessResize(self.id, rows, cols), Nothing)

    async def terminate(self, grace: float = 0) -> bool:
        """End it and everything that descends from it; whether the leader was still running. Does not wait for the end.

        With a `grace` of so many seconds it is asked first, with SIGTERM, and what is left then is killed.
        """
        params = ProcessTerminate(self.id, Graceful(Grace(round(grace * 1000))) if grace > 0 else "force")
        return (await self._calls.call("process/terminate", params, Running)).running

    async def end(self) -> None:
        """Kill everything of it and wait until that is done; what it still printed is thrown away.

        While the connection is interrupted it does not wait, see `end_when_back`. After a cancel, call that.
        """
        self._abandoned = True
        self._taken.unpark_all()
        if self._resuming and self._lost is None:
            self.end_when_back()
            return
        try:
            await self.terminate()
            if self.start is not None and isinstance(self.start.answer, Failure) and not self.started:
                return  # it never started, so nothing will come
            async for _ in self.events():
                pass
        except ConnectionLostError:
            return  # the server ends it with the connection

    def end_when_back(self) -> None:
        """Have everything of it killed as soon as the server can be asked to."""
        self._calls.ask_when_back("process/terminate", ProcessTerminate(self.id))

    # -- for the client --

    async def arrived(self, entry: Entry) -> None:
        """The next entry of its log came in. Waits where the server has no window for it, and nobody reads."""
        if self._resuming or entry.seq < self._log.next_seq:
            return  # `resumed` brings it, or has brought it
        self._add(entry)
        self._arrived.unpark_all()
        while not (self._acknowledges or self._abandoned or self._lost or self._log.has_room):
            await self._taken.park()

    def _add(self, entry: Entry) -> None:
        try:
            self._log.add(entry)
        except ValueError as error:
            raise ProtocolError(f"process {self.id}: {error}") from None
        match entry:
            case Chunk():
                self._had[entry.stream] = self._had.get(entry.stream, 0) + len(entry.chunk)
            case Gap():
                for stream, count in entry.omitted.items():
                    self._had[stream] = self._had.get(stream, 0) + count

    def interrupted(self) -> None:
        """The connection is gone and may come back: what comes of it before `resumed` is not the next."""
        self._resuming = True

    @property
    def last_seq(self) -> int:
        """The number of the last entry that arrived, 0 before the first."""
        return self._log.next_seq - 1

    def resumed(self, read: ProcessOutputRead) -> None:
        """What the server retained while the connection was gone, from `last_seq` on."""
        entries: list[Entry] = list(read.chunks)
        if read.exit is not None and read.exit.seq > self.last_seq:
            entries.append(exited_entry(read.exit))
        if read.close is not None and read.close.seq > self.last_seq:
            entries.append(closed_entry(read.close))
        # All that is missing is counted in the first gap: behind it there is one more at most, around the exit.
        printed = read.gap.printed_before if read.gap is not None else {}
        missing = {stream: count - self._had.get(stream, 0) for stream, count in printed.items()}
        for entry in sorted(entries, key=lambda entry: entry.seq):
            missing = self._skip_to(entry.seq, missing)
            self._add(entry)
        self._skip_to(read.next_seq, missing)
        self._resuming = False
        self._arrived.unpark_all()

    def _skip_to(self, seq: int, missing: dict[Stream, int]) -> dict[Stream, int]:
        """Add the gap in front of the entry of that number, if there is one; what is still missing then."""
        if seq <= self._log.next_seq:
            return missing
        self._add(Gap(self._log.next_seq, seq - 1, missing))
        return {}

    def not_there(self, why: str) -> None:
        """The server does not know it: its start has not arrived, and is asked again; or it is over and forgotten."""
        self._resuming = False
        if self.start is not None and self.start.answer is not None:
            self.lose(ConnectionLostError(why))

    def lose(self, why: ConnectionLostError) -> None:
        """Nothing more will come."""
        self._lost = why
        self._arrived.unpark_all()
        self._taken.unpark_all()

    async def _park(self) -> None:
        if self._lost is not None:
            raise ConnectionLostError(*self._lost.args)
        await self._arrived.park()

    async def _acknowledge(self) -> None:
        """Tell the server how far we are, once in a while."""
        if self._acknowledges and self._unacknowledged > self._window // 4 and self._lost is None:
            await self._calls.post("process/ack", ProcessAck(self.id, self._log.last_taken))
            self._unacknowledged = 0


def exited_entry(told: ProcessExited) -> Exited:
    """The end of the leader as an entry of the log."""
    return Exited(told.seq, told.exit_code, told.signal, told.reason)


def closed_entry(told: ProcessClosed) -> Closed:
    """The end of everything as an entry of the log."""
    return Closed(told.seq, told.totals, told.remaining, told.tree_empty)


class _Events:
    """See `Process.events`."""

    def __init__(self, process: Process) -> None:
        self._process = process

    def __aiter__(self) -> _Events:
        return self

    async def __anext__(self) -> Event:
        event = await self._process.next_event()
        if event is None:
            raise StopAsyncIteration
        return event


class _Output:
    """See `Process.output`."""

    def __init__(self, process: Process) -> None:
        self._process = process

    def __aiter__(self) -> _Output:
        return self

    async def __anext__(self) -> bytes:
        while (event := await self._process.next_event()) is not None:
            if isinstance(event, Chunk):
                return event.chunk
        raise StopAsyncIteration


class Collected:
    """The output of a command, each stream within a bound."""

    def __init__(self, max_bytes: int) -> None:
        self._streams = {"stdout": HeadTail(max_bytes), "stderr": HeadTail(max_bytes)}
        self._left_out = 0

    async def communicate(self, process: Process, input: bytes | None) -> Result:
        """See `Process.communicate`. What was collected stays here when this is cancelled."""
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
        return bytes(self._streams["stdout"])

    @property
    def stderr(self) -> bytes:
        return bytes(self._streams["stderr"])


async def _feed(process: Process, input: bytes) -> None:
    """Write all there is, then the end. A command need not read it."""
    try:
        view = memoryview(input)
        for start in range(0, len(view), _WRITE_BYTES):
            await process.write(bytes(view[start : start + _WRITE_BYTES]))
        await process.close_stdin()
    except (StdinClosedError, UnknownProcessError, ConnectionLostError):
        return  # whoever reads the output hears of it too
