"""The client's copy of one process's log: how it arrives over the connection, and how the process is ended.

Entries arrive from the connection and wait in the inbox. While there is no connection nothing arrives; the first answer
after it (`resumed`) brings what was printed meanwhile, with a gap for what the server does not retain any more.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import trio
from msgspec import UNSET, UnsetType

from execsrv._log.entries import Closed, Entry, Exited, Gap
from execsrv.client.calls import Calls, PendingCall
from execsrv.client.inbox import Inbox, Part
from execsrv.client.parameters import grace_milliseconds
from execsrv.client.reader import Reader
from execsrv.errors import BadAnswerError, ConnectionLostError, ProtocolError, RequestError
from execsrv.protocol import (
    Chunk,
    Failure,
    Grace,
    Graceful,
    ProcessClosed,
    ProcessExited,
    ProcessOutputRead,
    ProcessSignal,
    ProcessSignaled,
    ProcessTerminate,
    Running,
    Stream,
)
from execsrv.protocol.sandbox import Confined

_ASK_AGAIN_SECONDS = 0.02


class Tap(Protocol):
    """Somebody who sees what passes between a client and a process, whoever reads it. No method may raise, or wait."""

    def arrived(self, entry: Entry) -> None:
        """Take note of an entry of the log, in order, before any reader has it."""

    def wrote(self, data: bytes) -> None:
        """Take note of input on its way, before what it brings about."""

    def resized(self, rows: int, cols: int) -> None:
        """Take note of a new size of the terminal."""

    def leaving(self) -> None:
        """Take note that the process, which may still run, is about to be ended with its block."""


class Mirror:
    """A client's knowledge of one process. With `acknowledges`, the server keeps to the window and is told of reads."""

    def __init__(
        self,
        id: str,
        calls: Calls,
        window_bytes: int,
        acknowledges: bool,
        spawn: Callable[[Callable[[], Awaitable[None]]], object],
    ) -> None:
        """`spawn` has something done as long as the client is there."""
        self.id = id
        self.calls = calls
        self.start: PendingCall | None = None
        """The request that starts the process, once it was sent."""
        self.started = False
        """True once the process is known to run."""
        self.is_unsure = False
        """True when the answer to its start told nothing: it may run or not, and may never tell of an end."""
        self.confined: Confined | None = None
        """The confinement that it has, where its start has asked for one."""
        self.passed: Sequence[str] | UnsetType = UNSET
        """The names of the streams that came with the answer to its start."""
        self.is_left = False
        """True where it goes on when its block is left."""
        self.is_attached = False
        """True where it was started before, here or by somebody else."""
        self.awaits_log = False
        """True until an answer has told where its log begins here. It is asked for again, if need be."""
        self.membership = ("", "")
        """The membership by which it is read, where it is of another connection."""
        self.taps: list[Tap] = []
        self._acknowledges = acknowledges
        self._inbox = Inbox(acknowledges)
        self.reader = Reader(id, self._inbox, calls, window_bytes, acknowledges)
        self._resuming = False
        self._early: list[Entry] = []  # told while it resumes
        self._abandoned = False
        self._is_drained = False
        self._spawn = spawn
        self._had: dict[Stream, int] = {}  # what arrived or was said to be missing

    @property
    def exited(self) -> Exited | None:
        """End of the leader, None before."""
        return self._inbox.exited

    @property
    def closed(self) -> Closed | None:
        """End of everything, None before."""
        return self._inbox.closed

    @property
    def is_over(self) -> bool:
        """True where the server has told that nothing is left of it."""
        return self._acknowledges and self.closed is not None and not self.closed.remaining

    # -- for the block that started it --

    async def end(self, grace: float) -> None:
        """End everything of the process and wait until that is done. What it still prints is thrown away.

        It is asked first, and killed when `grace` seconds are over. While the connection is interrupted nothing is
        waited for. After a cancel, call `end_when_back`.
        """
        self._abandoned = True
        self.reader.wake()
        if self._resuming and self.reader.lost is None:
            self.end_when_back()
            return
        if self.is_over:
            return
        try:
            await self.calls.call("process/terminate", termination(self.id, grace), Running)
            if self.is_unsure or (self.start and isinstance(self.start.answer, Failure) and not self.started):
                return  # it never started, so nothing will come
            await self.reader.drain()
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

    def begin(self, after_seq: int, *, attached: bool = True) -> None:
        """Have the log of a process that was started before begin behind that entry. `resumed` must follow."""
        self.is_attached = attached
        self.awaits_log = self._resuming = True
        self._inbox.next_seq = after_seq + 1

    def left(self) -> None:
        """Note that nobody reads any more."""
        self._abandoned = True
        self.reader.leave()

    def close_part(self, part: Part) -> None:
        """Let go of all of a stream, whether or not anybody reads the other one."""
        self.reader.discard(part)
        if not self._is_drained:
            self._is_drained = True
            self._spawn(self._keep_draining)

    async def _keep_draining(self) -> None:
        try:
            await self.reader.wait_closed()
        except ConnectionLostError:
            return

    def end_when_back(self) -> None:
        """Have everything of the process killed as soon as the server can be asked to, on this channel or the next."""
        self.calls.ask_overdue("process/terminate", ProcessTerminate(self.id))

    # -- for the connection --

    @property
    def last_seq(self) -> int:
        """Number of the last entry that arrived, 0 before the first."""
        return self._inbox.next_seq - 1

    def arrived(self, entry: Entry) -> None:
        """Take in the next entry. Raises `ProtocolError` for another."""
        if self._resuming:
            self._early.append(entry)  # for `resumed`, where it does not bring it
            return
        if entry.seq < self._inbox.next_seq:
            return  # `resumed` has brought it
        self._add(entry)
        self.reader.has_arrived()

    @property
    def has_room(self) -> bool:
        """True where more may arrive: the server keeps to a window, or not much is unread."""
        return bool(self._acknowledges or self._abandoned or self.reader.lost or self.reader.has_room)

    async def wait_room(self) -> None:
        """Wait until there is room."""
        while not self.has_room:
            await self.reader.wait_taken()

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
        if self.is_attached and not self._had and self.last_seq:
            missing = {}  # nobody knows how much was printed before it begins
        for entry in sorted(entries, key=lambda entry: entry.seq):
            missing = self._skip_to(entry.seq, missing)
            self._add(entry)
        self._skip_to(read.next_seq, missing)
        for entry in self._early:
            if entry.seq >= self._inbox.next_seq:
                self._add(entry)
        self._early.clear()
        self.awaits_log = self._resuming = False
        self.reader.has_arrived()

    def not_there(self, why: str) -> None:
        """Note that the server does not know the process.

        Either its start has not arrived, and is asked again; or it is over and forgotten.
        """
        self._resuming = False
        if self.is_attached or (self.start is not None and self.start.answer is not None):
            self.lose(ConnectionLostError(why))

    def lose(self, why: ConnectionLostError) -> None:
        """Note that nothing more will come."""
        self.reader.lost = why
        self.reader.has_arrived()
        self.reader.wake()

    def _skip_to(self, seq: int, missing: dict[Stream, int]) -> dict[Stream, int]:
        """Add the gap in front of the entry of that number, if there is one. Return what is still missing then."""
        if seq <= self._inbox.next_seq:
            return missing
        self._add(Gap(self._inbox.next_seq, seq - 1, missing))
        return {}

    def _add(self, entry: Entry) -> None:
        try:
            self._inbox.add(entry)
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
    """Return SIGCONT: a stopped process needs it to end when asked to, and one that runs does not notice."""
    return ProcessSignal(id, "SIGCONT", "tree")


def exited_entry(told: ProcessExited) -> Exited:
    """Return the end of the leader as an entry of the log."""
    return Exited(told.seq, told.exit_code, told.signal, told.reason, told.at_ms, told.denial or None)


def closed_entry(told: ProcessClosed) -> Closed:
    """Return the end of everything as an entry of the log."""
    return Closed(told.seq, told.totals, told.remaining, told.tree_empty, told.ended, told.at_ms, told.usage or None)
