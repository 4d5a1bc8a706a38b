"""The entries that a log retains, for whoever reads them, and what they cost. Pure: no I/O.

It holds the entries from `oldest` on, and of each stream the beginning and the end, and pays for them from a budget.
Some bytes are paid for from the start, so that a log can always take one more piece. When the budget is used up, logs
forget what nobody waits for, the one that was silent for longest first (`Keeper`). The gap is told to who reads later.
"""

from __future__ import annotations

from collections import deque
from itertools import islice

from execsrv._budget.budget import STEP_BYTES, Budget, Share
from execsrv._log.attached_reader import AttachedReader
from execsrv._log.entries import ENTRY_BYTES, Closed, Entry, Gap, add_printed, first_seq
from execsrv._log.head_tail import HeadTail
from execsrv._setting_units import KIB, MIB
from execsrv.protocol import Chunk, ReadGap, Stream

FREE_BYTES = 8 * KIB
"""A log holds so much beside the next piece of output without paying for more than it was given: most end with less."""

PAGE_BYTES = 4 * MIB
"""The most content of one `read`. In JSON, with as many entries as there can be, it stays below 9 MiB."""


def first_bytes(largest_piece: int) -> int:
    """Return the bytes that a log with such pieces has from the beginning, so that it can always go on."""
    return largest_piece + ENTRY_BYTES + FREE_BYTES


class Retained:
    """The entries of a log, up to number `next_seq`, and the ends of each stream. `let_go` must follow."""

    reader: AttachedReader

    def __init__(self, streams: dict[Stream, HeadTail], budget: Budget, largest_piece: int) -> None:
        self.streams = streams
        self.next_seq = 1
        self.closed: Closed | None = None
        self.turn = 0
        self._forgotten: dict[Stream, int] = dict.fromkeys(streams, 0)
        self._entries: deque[Entry] = deque()
        self._kept_bytes = 0
        self._held_bytes = 0
        self._largest_piece = largest_piece
        self._budget = budget
        self._share = Share(budget, first_bytes(largest_piece))
        self._paid_to = FREE_BYTES  # beyond it there may be no room for the next piece
        budget.keep(self)

    @property
    def kept_bytes(self) -> int:
        """Bytes of output that it keeps."""
        return self._kept_bytes

    @property
    def held_bytes(self) -> int:
        """Bytes that it holds: entries with what each costs beside its content, and the ends of each stream."""
        return self._held_bytes

    @property
    def oldest(self) -> int:
        """The number of the oldest retained entry, or of the next one where none is."""
        return first_seq(self._entries[0]) if self._entries else self.next_seq

    def entry(self, seq: int) -> Entry:
        """Return the entry of that number, in a log without gaps. Raises `LookupError` unless it is retained."""
        if not 0 <= (place := seq - self.oldest) < len(self._entries):
            raise LookupError(f"entry {seq} is not retained")
        return self._entries[place]

    def gap_behind(self, after_seq: int) -> ReadGap | None:
        """Return what is not retained any more of the entries behind number `after_seq`, None where all are."""
        if after_seq + 1 >= self.oldest:
            return None
        return ReadGap(after_seq + 1, self.oldest - 1, dict(self._forgotten))

    def gap_of(self, left_out: Gap) -> ReadGap:
        """Return a gap among the entries as one of those who read them."""
        return ReadGap(left_out.from_seq, left_out.seq, self.printed_before(left_out.seq + 1))

    def printed_before(self, seq: int) -> dict[Stream, int]:
        """Return how much of each stream was printed before entry `seq`, which is retained or the next."""
        if seq >= self.next_seq:
            return {stream: ends.total_bytes for stream, ends in self.streams.items()}
        printed = dict(self._forgotten)
        for entry in islice(self._entries, max(0, seq - self.oldest)):
            add_printed(printed, entry)
        return printed

    def read(self, after_seq: int, max_bytes: int | None) -> tuple[ReadGap | None, list[Chunk], int]:
        """Return a gap, the retained chunks numbered above `after_seq` behind it, and the number to go on from.

        Whole chunks only, at least one if there is any, at most `max_bytes` and `PAGE_BYTES` of content otherwise.
        They end in front of the next gap.
        """
        oldest = self.oldest
        gap = self.gap_behind(after_seq)
        chunks: list[Chunk] = []
        room = PAGE_BYTES if max_bytes is None else min(max_bytes, PAGE_BYTES)
        for entry in islice(self._entries, max(0, after_seq + 1 - oldest), None):
            if isinstance(entry, Gap):
                if chunks:
                    return gap, chunks, entry.from_seq
                found = self.gap_of(entry)
                gap = found if gap is None else ReadGap(gap.from_seq, found.seq, found.printed_before)
            if not isinstance(entry, Chunk):
                continue
            room -= len(entry.chunk)
            if room < 0 and chunks:
                return gap, chunks, chunks[-1].seq + 1
            chunks.append(entry)
        return gap, chunks, self.next_seq

    # -- the budget --

    def forget(self, size: int) -> int:
        """Give back at least so many bytes, or all that its reader has had, and return how many. The gap is told."""
        if self.closed is not None:
            self._forget_ends()
        self._forget_entries(size + STEP_BYTES)
        return self._shrink()

    def _forget_entries(self, size: int) -> None:
        untold, enough = self.reader.first_untold, self._held_bytes - size
        # An end weighs nothing, and stays: those who have no claim on anything wait for it all the same.
        while self._kept_bytes and self._held_bytes > enough and (untold is None or self.oldest < untold):
            self._forget_one()

    def _forget_ends(self) -> None:
        for ends in self.streams.values():
            self._held_bytes -= ends.kept_bytes
            ends.forget()

    def _shrink(self) -> int:
        given = self._share.shrink(self._held_bytes + self._largest_piece)
        self._paid_to = self._share.room - self._largest_piece
        return given

    def let_go(self) -> None:
        """Give back all that it has of the budget: it is about to go. Nothing is appended any more."""
        self._budget.leave(self)
        self._share.close()

    def draw_on(self, budget: Budget) -> None:
        """Be paid for from another budget, of somebody who still reads it. Nothing is appended, nobody attached."""
        self.let_go()
        self.reader.go()
        self._largest_piece = 0
        self._budget, self._share = budget, Share(budget)
        self._share.count(-(-self._held_bytes // STEP_BYTES) * STEP_BYTES)
        budget.keep(self)

    def _forget_one(self) -> None:
        entry = self._entries.popleft()
        if isinstance(entry, Chunk):
            self._kept_bytes -= len(entry.chunk)
            self._held_bytes -= ENTRY_BYTES + len(entry.chunk)
            if entry.stream in self._forgotten:
                self._forgotten[entry.stream] += len(entry.chunk)
        elif isinstance(entry, Gap):
            for stream, size in entry.omitted.items():
                self._forgotten[stream] = self._forgotten.get(stream, 0) + size
