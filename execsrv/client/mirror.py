"""The client's copy of one process's log: what has arrived, and where its one reader stands.

Entries arrive from the connection and are taken by the reader. While there is no connection nothing arrives; the first
answer after it (`resumed`) brings what was printed meanwhile, with a gap for what the server does not retain any more.
"""

from __future__ import annotations

from typing import Protocol

import trio

from execsrv._log.log import Closed, Entry, Exited, Gap, OutputLog, entry_bytes
from execsrv.client.calls import Calls, PendingCall
from execsrv.client.parameters import grace_milliseconds
from execsrv.errors import BadAnswerError, ConnectionLostError, ProtocolError, RequestError
from execsrv.protocol import (
    Chunk,
    Failure,
    Grace,
    Graceful,
    ProcessAck,
    ProcessClosed,
    ProcessExited,
    ProcessOutputRead,
    ProcessSignal,
    ProcessSignaled,
    ProcessTerminate,
    Running,
    Stream,
)

_ASK_AGAIN_SECONDS = 0.02


class Tap(Protocol):
    """Somebody who sees what passes between a client and a process, whoever reads it. No method may raise, or wait."""

    def arrived(self, entry: Entry) -> None:
        """See an entry of the log, in order, before any reader has it."""

    def wrote(self, data: bytes) -> None:
        """See input that the operating system has taken."""

    def resized(self, rows: int, cols: int) -> None:
        """See a new size of the terminal."""


class Mirror:
    """A client's knowledge of one process. With `acknowledges`, the server keeps to the window and is told of reads."""

    def __init__(self, id: str, calls: Calls, window_bytes: int, acknowledges: bool) -> None:
        self.id = id
        self.calls = calls
        self.start: PendingCall | None = None
        """The request that starts the process, once it was sent."""
        self.started = False
        """True once the process is known to run."""
        self.is_unsure = False
        """True when the answer to its start told nothing: it may run or not, and may never tell of an end."""
        self.taps: list[Tap] = []
        self._window = window_bytes
        self._acknowledges = acknowledges
        self._log = OutputLog(0, window_bytes)
        self._lost: ConnectionLostError | None = None
        self._resuming = False
        self._early: list[Entry] = []  # told while it resumes
        self._abandoned = False
        self._is_read = False
        self._had: dict[Stream, int] = {}  # what arrived or was said to be missing
        self._arrived = trio.lowlevel.ParkingLot()
        self._taken = trio.lowlevel.ParkingLot()
        self._unacknowledged = 0

    # -- for the reader --

    @property
    def exited(self) -> Exited | None:
        """End of the leader, None before."""
        return self._log.exited

    @property
    def closed(self) -> Closed | None:
        """End of everything, None before."""
        return self._log.closed

    async def wait_exited(self) -> Exited:
        """Wait for the end of the leader. Raises `ConnectionLostError`."""
        while self._log.exited is None:
            await self._park()
        return self._log.exited

    async def next(self) -> Entry | None:
        """Take the next entry, None when all is over.

        Raises `ConnectionLostError` behind the last that arrived, and `trio.BusyResourceError` while another task is
        here.
        """
        if self._is_read:
            raise trio.BusyResourceError(f"another task is reading the output of process {self.id}")
        self._is_read = True
        try:
            return await self._next()
        finally:
            self._is_read = False

    async def _next(self) -> Entry | None:
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

    async def _park(self) -> None:
        if self._lost is not None:
            raise ConnectionLostError(*self._lost.args)
        await self._arrived.park()

    async def _acknowledge(self) -> None:
        """Tell the server how far the reader is, once in a while."""
        if self._acknowledges and self._unacknowledged > self._window // 4 and self._lost is None:
            await self.calls.post("process/ack", ProcessAck(self.id, self._log.last_taken))
            self._unacknowledged = 0

    # -- for the block that started it --

    async def end(self, grace: float) -> None:
        """End everything of the process and wait until that is done. What it still prints is thrown away.

        It is asked first, and killed when `grace` seconds are over. While the connection is interrupted nothing is
        waited for. After a cancel, call `end_when_back`.
        """
        self._abandoned = True
        self._taken.unpark_all()
        if self._resuming and self._lost is None:
            self.end_when_back()
            return
        if self._acknowledges and self.closed and not self.closed.remaining:
            return  # nothing is left
        try:
            await self.calls.call("process/terminate", termination(self.id, grace), Running)
            if self.is_unsure or (self.start and isinstance(self.start.answer, Failure) and not self.started):
                return  # it never started, so nothing will come
            while await self._next() is not None:
                pass
            await self.wait_alone()
        except (ConnectionLostError, BadAnswerError):
            return  # the server ends it with the connection

    async def wait_alone(self) -> None:
        """Wait until nothing lives of what had lived on after the close. A server that cannot tell is not asked again.

        Nothing is told after the close, so it is asked for how many there are to be woken.
        """
        living = len(self.closed.remaining) if self.closed else 0
        while living:
            try:
                living = (await self.calls.call("process/signal", _anybody(self.id), ProcessSignaled)).received
            except RequestError:
                return
            if living:
                await trio.sleep(_ASK_AGAIN_SECONDS)

    def end_when_back(self) -> None:
        """Have everything of the process killed as soon as the server can be asked to."""
        self.calls.ask_when_back("process/terminate", ProcessTerminate(self.id))

    # -- for the connection --

    @property
    def last_seq(self) -> int:
        """Number of the last entry that arrived, 0 before the first."""
        return self._log.next_seq - 1

    async def arrived(self, entry: Entry) -> None:
        """Take in the next entry. Waits where the server has no window for the process, and nobody reads."""
        if self._resuming:
            self._early.append(entry)  # for `resumed`, where it does not bring it
            return
        if entry.seq < self._log.next_seq:
            return  # `resumed` has brought it
        self._add(entry)
        self._arrived.unpark_all()
        while not (self._acknowledges or self._abandoned or self._lost or self._log.has_room):
            await self._taken.park()

    def interrupted(self) -> None:
        """Note that the connection is gone and may come back. An entry from before `resumed` is not the next one."""
        self._resuming = True
        self._early.clear()

    def resumed(self, read: ProcessOutputRead) -> None:
        """Take in what the server retained while the connection was gone, from `last_seq` on."""
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
        for entry in self._early:
            if entry.seq >= self._log.next_seq:
                self._add(entry)
        self._early.clear()
        self._resuming = False
        self._arrived.unpark_all()

    def not_there(self, why: str) -> None:
        """Note that the server does not know the process.

        Either its start has not arrived, and is asked again; or it is over and forgotten.
        """
        self._resuming = False
        if self.start is not None and self.start.answer is not None:
            self.lose(ConnectionLostError(why))

    def lose(self, why: ConnectionLostError) -> None:
        """Note that nothing more will come."""
        self._lost = why
        self._arrived.unpark_all()
        self._taken.unpark_all()

    def _skip_to(self, seq: int, missing: dict[Stream, int]) -> dict[Stream, int]:
        """Add the gap in front of the entry of that number, if there is one. Return what is still missing then."""
        if seq <= self._log.next_seq:
            return missing
        self._add(Gap(self._log.next_seq, seq - 1, missing))
        return {}

    def _add(self, entry: Entry) -> None:
        try:
            self._log.add(entry)
        except ValueError as error:
            raise ProtocolError(f"process {self.id}: {error}") from None
        for tap in self.taps:
            tap.arrived(entry)
        match entry:
            case Chunk():
                self._had[entry.stream] = self._had.get(entry.stream, 0) + len(entry.chunk)
            case Gap():
                for stream, count in entry.omitted.items():
                    self._had[stream] = self._had.get(stream, 0) + count


def termination(id: str, grace: float) -> ProcessTerminate:
    """Return the order to end everything of a process: politely with a grace, in seconds, else by force."""
    if grace == 0:
        return ProcessTerminate(id)
    return ProcessTerminate(id, Graceful(Grace(grace_milliseconds(grace))))


def _anybody(id: str) -> ProcessSignal:
    """Return the signal that a process which runs does not notice, and one that was asked to end needs."""
    return ProcessSignal(id, "SIGCONT", "tree")


def exited_entry(told: ProcessExited) -> Exited:
    """Return the end of the leader as an entry of the log."""
    return Exited(told.seq, told.exit_code, told.signal, told.reason)


def closed_entry(told: ProcessClosed) -> Closed:
    """Return the end of everything as an entry of the log."""
    return Closed(told.seq, told.totals, told.remaining, told.tree_empty, told.ended)
