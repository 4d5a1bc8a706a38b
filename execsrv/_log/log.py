"""The log of one session: everything that it printed and how it ended, numbered in one order. Pure: no I/O.

One hand appends, so the order of the numbers is the order in which things happened. One attached reader takes entry
after entry (`attached_reader.py` knows where it stands); anybody may read what is still retained. The log never holds
more than it may retain plus what the attached reader has not had, or may miss when it comes back: its owner asks
`has_room` before it appends, and waits when there is none.

When the budget for what it retains is used up, it forgets what the reader has had, and lets nothing more wait than the
newest: so its owner can always go on, as fast as its reader reads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice

from msgspec import UNSET

from execsrv._budget.budget import STEP_BYTES, Budget, turns
from execsrv._log.attached_reader import AttachedReader
from execsrv._log.entries import ENTRY_BYTES, Closed, Entry, Exited, Gap, entry_bytes, first_seq
from execsrv._log.head_tail import HeadTail
from execsrv._log.retained import Retained
from execsrv._setting_units import KIB
from execsrv.protocol import AtMs, Chunk, Layer, Member, Reason, Stream
from execsrv.protocol.process_limits import ProcessUsage
from execsrv.protocol.sandbox import Denial

__all__ = ["ENTRY_BYTES", "Closed", "Entry", "Exited", "Gap", "OutputLog", "entry_bytes", "first_seq"]


_BYTES_AN_ENTRY = 20
"""For so many bytes that a log may retain, it may retain one entry: 52,000 for a MiB. Each is some 120 bytes of memory
beside its content."""

_JOINED_BYTES = 64 * KIB
"""Pieces that nobody has seen are joined up to this."""

_JOINED_MS = 1000
"""Those that have times, which are within so many milliseconds: what is joined has one time."""


class OutputLog(Retained):
    """The numbered entries that are retained, and the ends of each stream. Sizes are bytes, numbers start at 1."""

    def __init__(
        self,
        retained_bytes: int,
        window_bytes: int,
        *,
        streams: Iterable[Stream] = (),
        acknowledged: bool = False,
        drops: bool = False,
        clock: Callable[[], AtMs] = lambda: UNSET,
        budget: Budget | None = None,
        largest_piece: int = _JOINED_BYTES,
    ) -> None:
        """Retain `retained_bytes` of content; let the attached reader lag by `window_bytes`.

        `streams` are those whose beginning and end are kept besides: a quarter of that in all, and half as much again
        in memory (`HeadTail`). `acknowledged`: the reader says itself how far it is.
        `drops`: beyond the window, the oldest output is left out for it. `clock` tells the time of an entry.

        Of the budget, `first_bytes(largest_piece)` were taken for it already.
        """
        streams = tuple(streams)
        ends = {stream: HeadTail(retained_bytes // 4 // len(streams)) for stream in streams}
        super().__init__(ends, budget or Budget(), largest_piece)
        self._clock = clock
        self._max_retained = retained_bytes
        self._max_entries = retained_bytes // _BYTES_AN_ENTRY
        self._unseen_from: int | None = None  # the first entry that nobody can have seen, while the reader is away
        self.reader = AttachedReader(window_bytes, retained_bytes, acknowledges=acknowledged, drops=drops)
        self.exited: Exited | None = None

    def __repr__(self) -> str:
        state = "closed" if self.closed else "exited" if self.exited else "open"
        return f"<OutputLog {state} next_seq={self.next_seq} lag={self.reader.lag_bytes}>"

    # -- the hand that writes --

    @property
    def has_room(self) -> bool:
        """True when more may be appended: the attached reader is near enough, or goes without."""
        return self.reader.has_room

    @property
    def totals(self) -> dict[Stream, int]:
        """The bytes that each stream has carried."""
        return {stream: ends.total_bytes for stream, ends in self.streams.items()}

    def append(self, stream: Stream, chunk: bytes) -> None:
        """Number a piece of output. One that nobody can have seen becomes part of the last, where that is as unseen."""
        self._keep_ends(stream, chunk)
        if self._unseen_from is not None and self._join(stream, chunk):
            return
        self._append(Chunk(self.next_seq, stream, chunk, self._clock()), ENTRY_BYTES + len(chunk))

    def pass_by(self, stream: Stream, chunk: bytes) -> None:
        """Keep of a piece of output what belongs to the beginning or the end: its reader has it by another way."""
        self._keep_ends(stream, chunk)
        self.turn = next(turns)
        if self._held_bytes > self._paid_to:
            self._pay()

    def _keep_ends(self, stream: Stream, chunk: bytes) -> None:
        ends = self.streams[stream]
        self._held_bytes -= ends.kept_bytes
        ends.append(chunk)
        self._held_bytes += ends.kept_bytes

    def leave_out(self, stream: Stream, size: int) -> None:
        """Number a piece of output that there is no room for. A gap is told in its place."""
        ends = self.streams[stream]
        self._held_bytes -= ends.kept_bytes
        ends.skip(size)
        self._held_bytes += ends.kept_bytes
        self._append(Gap(self.next_seq, self.next_seq, {stream: size}), 0)

    def _join(self, stream: Stream, chunk: bytes) -> bool:
        """Make a piece a part of the last entry, if it can be. Return whether it is."""
        last = self._entries[-1] if self._entries else None
        if not isinstance(last, Chunk) or last.stream != stream or self._unseen_from is None:
            return False
        if last.seq < self._unseen_from or len(last.chunk) + len(chunk) > _JOINED_BYTES:
            return False
        if isinstance(last.at_ms, int) and isinstance(now := self._clock(), int) and now - last.at_ms >= _JOINED_MS:
            return False
        self._entries[-1] = Chunk(last.seq, stream, last.chunk + chunk, last.at_ms)
        self._kept_bytes += len(chunk)
        self._held_bytes += len(chunk)
        self.reader.grow_last(len(chunk))
        self._trim()
        if self._held_bytes > self._paid_to:
            self._pay()
        return True

    def append_exited(self, exit_code: int, signal: str | None, reason: Reason, denial: Denial | None = None) -> None:
        """Number the end of the leader."""
        self.add(Exited(self.next_seq, exit_code, signal, reason, self._clock(), denial))

    def append_closed(
        self,
        remaining: list[Member],
        tree_empty: Layer | None = None,
        ended: list[Member] | None = None,
        usage: ProcessUsage | None = None,
    ) -> None:
        """Number the end of everything."""
        self.add(Closed(self.next_seq, self.totals, remaining, tree_empty, ended or [], self._clock(), usage))

    def add(self, entry: Entry) -> None:
        """Append an entry that is numbered already. Raises `ValueError` unless it is the next."""
        if first_seq(entry) != self.next_seq:
            raise ValueError(f"expected entry {self.next_seq} of the log, got {first_seq(entry)}")
        last = self._entries[-1] if self._entries else None
        if isinstance(entry, Gap) and isinstance(last, Gap) and self.reader.waits_for(last):
            # Gaps weigh nothing, so they must not pile up: between two that wait there is always something else.
            self._entries[-1] = both = last.and_then(entry.seq, entry.omitted)
            self.reader.replace_last(both)
            self.next_seq = entry.seq + 1
            return
        if isinstance(entry, Exited):
            self.exited = entry
        elif isinstance(entry, Closed):
            self.closed = entry
        self._append(entry, entry_bytes(entry))

    def _append(self, entry: Entry, size: int) -> None:
        self.next_seq = entry.seq + 1
        self._entries.append(entry)
        if isinstance(entry, Chunk):
            self._kept_bytes += len(entry.chunk)
            self._held_bytes += size
        self.reader.add(entry, size)
        self.turn = next(turns)
        self._trim()
        if self._held_bytes > self._paid_to:
            self._pay()

    @property
    def _is_full(self) -> bool:
        return self._kept_bytes > self._max_retained or len(self._entries) > self._max_entries

    def _trim(self) -> None:
        """Forget the oldest entries beyond the bounds, but none that the attached reader has still to have."""
        if not self._is_full:
            return
        needed = self.reader.first_needed
        while self._is_full and (needed is None or self.oldest < needed):
            self._forget_one()
        if self._paid_to - self._held_bytes > 2 * STEP_BYTES:
            self._shrink()

    def _pay(self) -> None:
        """Have room for the next piece. Where there is none, keep nothing that can be forgotten."""
        if self._share.grow(self._held_bytes + self._largest_piece):
            self.reader.is_held_back = False
            self._paid_to = self._share.room - self._largest_piece
            return
        self.reader.hold_back()
        self._forget_ends()
        self._forget_entries(self._held_bytes)
        self._share.count(self._held_bytes)  # an end that waits for no reader may leave more than there is room for
        self._shrink()

    # -- the attached reader --

    @property
    def has_news(self) -> bool:
        """True when `take` has something."""
        return self.reader.has_news

    @property
    def last_taken(self) -> int:
        """The number of the entry that was taken last, 0 before the first."""
        return self.reader.last_taken

    def take(self) -> Entry:
        """Return the next entry that the attached reader has not taken. Raises `LookupError` when there is none."""
        entry = self.reader.take()
        self._trim()
        return entry

    def acknowledge(self, seq: int) -> None:
        """Count all entries up to `seq` as had by the attached reader, except those that it has not taken yet."""
        self.reader.acknowledge(seq)
        self._trim()

    def detach(self) -> None:
        """Be without a reader, until `go_on`. Nobody reads anything before `attach`.

        A reader that does not drop may miss anything when it comes back: all that is retained now is kept, and what is
        appended meanwhile, until there is no more room.
        """
        self._unseen_from = self.next_seq
        self.reader.leave()
        self._trim()

    def attach(self) -> None:
        """Have somebody who may `read`, and perhaps will take entries from `go_on` on: entries stay as they are."""
        self._unseen_from = None

    def go_on(self, seq: int) -> None:
        """Let the reader, which was away, take the entries from `seq` on: it has other ways to what came before."""
        self.reader.come_back(seq, islice(self._entries, max(0, seq - self.oldest), None))
        self._trim()

    def go_without_reader(self) -> None:
        """Wait for nobody from here on, whatever was asked for, unless the reader comes back with `go_on`."""
        self._unseen_from = None
        self.reader.go()
        self._trim()
