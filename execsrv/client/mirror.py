"""The client's copy of one process's log: how it arrives over the connection.

Entries arrive from the connection and wait in the inbox. While there is no connection nothing arrives; the first answer
after it (`resumed`) brings what was printed meanwhile, with a gap for what the server does not retain any more.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from typing import Literal, Protocol

import trio
from msgspec import UNSET, UnsetType

from execsrv._log.entries import ENTRY_BYTES, Closed, Entry, Exited, Gap
from execsrv._setting_units import MIB
from execsrv.client.calls import Calls
from execsrv.client.inbox import Inbox, Part
from execsrv.client.pending import PendingCall
from execsrv.client.reader import Reader
from execsrv.client.text import TextMode
from execsrv.client.told import closed_entry, exited_entry
from execsrv.errors import ConnectionLostError, ProtocolError
from execsrv.protocol import Chunk, Failure, ProcessOutputRead, Stream
from execsrv.protocol.sandbox import Confined

_BEYOND_BYTES = 4 * MIB
"""So much may come beyond the window: what a killed command has left in its pipes is told whether or not it is read."""

Hearing = Literal["awaits its log", "live", "interrupted"]
"""The way in which entries come: one after the other, or only behind an answer that says where its log goes on.

One that awaits its log asks for it itself, once it has started, again where it is interrupted meanwhile; others are
asked for anew.
"""


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
        self.hearing: Hearing = "live"
        self.text: TextMode | None = None
        """The way in which its output is text for its user, None where it is bytes."""
        self.drops = False
        """True where output may be missing without an error."""
        self.sent_bytes = 0
        """The bytes of its input that are on their way, or were taken."""
        self.was_interrupted = False
        """True once an interpreter was interrupted by its key: a prompt may come that answers no line."""
        self.membership = ("", "")
        """The membership by which it is read, where it is of another connection."""
        self.taps: list[Tap] = []
        self.acknowledges = acknowledges
        self._inbox = Inbox(acknowledges)
        self.reader = Reader(id, self._inbox, calls, window_bytes, acknowledges)
        self._window: float = window_bytes
        self._most_bytes: float = self._window + _BEYOND_BYTES  # that may be unacknowledged
        self._early: list[Entry] = []  # told while it is not live
        self._early_bytes = 0
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
        closed = self._inbox.closed
        return self.acknowledges and closed is not None and not closed.remaining

    @property
    def was_refused(self) -> bool:
        """True where the server has said that it does not start."""
        return self.start is not None and isinstance(self.start.answer, Failure) and not self.started

    # -- for the block that started it --

    def abandon(self) -> None:
        """Note that nobody waits for its output any more: what comes has room."""
        self._abandoned = True
        self.reader.wake()

    def begin(self, after_seq: int, *, attached: bool = True) -> None:
        """Have the log of a process that was started before begin behind that entry. `resumed` must follow."""
        self.is_attached = attached
        self.hearing = "awaits its log"
        self._inbox.next_seq = after_seq + 1

    def set_window(self, window_bytes: int | None) -> None:
        """Note the window that was asked for when it was started, by another client. None: nobody knows, or none."""
        self._window = math.inf if window_bytes is None else window_bytes
        self._most_bytes = self._window + _BEYOND_BYTES
        if window_bytes is not None:
            self.reader.window_bytes = window_bytes

    def left(self) -> None:
        """Note that nobody reads any more."""
        self._abandoned = True
        self.reader.leave()

    def close_part(self, part: Part) -> None:
        """Let go of all of a stream, whether or not anybody reads the other one."""
        self.reader.discard(part)
        if not self._is_drained and self.reader.lost is None and not self.reader.is_ended:
            self._is_drained = True
            self._spawn(self._keep_draining)

    async def _keep_draining(self) -> None:
        try:
            await self.reader.wait_closed()
        except (ConnectionLostError, trio.ClosedResourceError):
            return

    # -- for the connection --

    @property
    def last_seq(self) -> int:
        """Number of the last entry that arrived, 0 before the first."""
        return self._inbox.next_seq - 1

    def arrived(self, entry: Entry) -> None:
        """Take in the next entry. Raises `ProtocolError` for another, and for more than the window."""
        if self.hearing != "live":
            self._keep_early(entry)
            return
        if entry.seq < self._inbox.next_seq:
            return  # `resumed` has brought it
        if self.acknowledges and self._inbox.unacknowledged_bytes > self._most_bytes:
            raise self._too_much()
        self._add(entry)
        self.reader.has_arrived()

    def _keep_early(self, entry: Entry) -> None:
        """Keep an entry for `resumed`, where that does not bring it. There is a gap in front of each at most."""
        if self._early_bytes > 2 * self._most_bytes:
            raise self._too_much()
        self._early.append(entry)
        self._early_bytes += ENTRY_BYTES + (len(entry.chunk) if isinstance(entry, Chunk) else 0)

    def _forget_early(self) -> None:
        self._early.clear()
        self._early_bytes = 0

    def _too_much(self) -> ProtocolError:
        return ProtocolError(f"process {self.id}: more output than the window of {self._window} bytes lets through")

    @property
    def has_room(self) -> bool:
        """True where more may arrive from a server that keeps to no window: not much is unread."""
        return bool(self._abandoned or self.reader.lost or self.reader.has_room)

    async def wait_room(self) -> None:
        """Wait until there is room."""
        while not self.has_room:
            await self.reader.wait_taken()

    def interrupted(self) -> None:
        """Note that the connection is gone and may come back. An entry from before `resumed` is not the next one."""
        if self.hearing == "live":
            # As long as its start may take, nothing could be read of it: that would hold up all others.
            is_starting = self.start is not None and self.start.answer is None
            self.hearing = "awaits its log" if is_starting else "interrupted"
        self._forget_early()

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
        self._forget_early()
        self.hearing = "live"
        # What has come so far may count as had for the server.
        self._most_bytes = self._inbox.unacknowledged_bytes + self._window + _BEYOND_BYTES
        self.reader.has_arrived()

    def not_there(self, why: str) -> None:
        """Note that the server does not know the process.

        Either its start has not arrived, and is asked again; or it is over and forgotten.
        """
        self.hearing = "live"
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
