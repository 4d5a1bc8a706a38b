"""The log of one session: everything that it printed and how it ended, numbered in one order. Pure: no I/O.

One hand appends, so the order of the numbers is the order in which things happened. One attached reader takes entry
after entry (`reader.py` knows where it stands); anybody may read what is still retained. The log never holds more than
it may retain plus what the attached reader has not had: its owner asks `has_room` before it appends, and waits when
there is none.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from itertools import islice

from execsrv._log.entries import ENTRY_BYTES, Closed, Entry, Exited, Gap, entry_bytes, first_seq
from execsrv._log.head_tail import HeadTail
from execsrv._log.reader import AttachedReader
from execsrv.protocol import Chunk, Layer, Member, ReadGap, Reason, Stream

__all__ = ["ENTRY_BYTES", "Closed", "Entry", "Exited", "Gap", "OutputLog", "entry_bytes", "first_seq"]


class OutputLog:
    """The numbered entries that are retained, and the ends of each stream. Sizes are bytes, numbers start at 1."""

    def __init__(
        self,
        retained_bytes: int,
        window_bytes: int,
        *,
        streams: Iterable[Stream] = (),
        acknowledged: bool = False,
        drops: bool = False,
    ) -> None:
        """Retain `retained_bytes` in all; let the attached reader lag by `window_bytes`.

        `streams` are those whose beginning and end are kept. `acknowledged`: the reader says itself how far it is.
        `drops`: beyond the window, the oldest output is left out for it.
        """
        self._forgotten: dict[Stream, int] = dict.fromkeys(streams, 0)
        self.streams: dict[Stream, HeadTail] = {}
        for stream in self._forgotten:
            self.streams[stream] = HeadTail(retained_bytes // 4 // len(self._forgotten))
        # The ends of a stream may hold half as much again: see `HeadTail`.
        self._max_retained = retained_bytes * 5 // 8
        self._entries: deque[Entry] = deque()
        self._kept_bytes = 0
        self.reader = AttachedReader(window_bytes, acknowledges=acknowledged, drops=drops)
        self.next_seq = 1
        self.exited: Exited | None = None
        self.closed: Closed | None = None

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
        """Number a piece of output."""
        self.streams[stream].append(chunk)
        self._append(Chunk(self.next_seq, stream, chunk), ENTRY_BYTES + len(chunk))

    def append_exited(self, exit_code: int, signal: str | None, reason: Reason) -> None:
        """Number the end of the leader."""
        self.add(Exited(self.next_seq, exit_code, signal, reason))

    def append_closed(
        self, remaining: list[Member], tree_empty: Layer | None = None, ended: list[Member] | None = None
    ) -> None:
        """Number the end of everything."""
        self.add(Closed(self.next_seq, self.totals, remaining, tree_empty, ended or []))

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
        self._kept_bytes += size
        self.reader.add(entry, size)
        if self._kept_bytes > self._max_retained:
            self._trim()

    def _trim(self) -> None:
        """Forget the oldest entries beyond the bound, but none that the attached reader has still to have."""
        needed = self.reader.first_needed
        while self._kept_bytes > self._max_retained and (needed is None or self._oldest < needed):
            entry = self._entries.popleft()
            self._kept_bytes -= entry_bytes(entry)
            if isinstance(entry, Chunk) and entry.stream in self._forgotten:
                self._forgotten[entry.stream] += len(entry.chunk)

    @property
    def _oldest(self) -> int:
        return first_seq(self._entries[0]) if self._entries else self.next_seq

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
        if self._kept_bytes > self._max_retained:
            self._trim()
        return entry

    def acknowledge(self, seq: int) -> None:
        """Count all entries up to `seq` as had by the attached reader, except those that it has not taken yet."""
        self.reader.acknowledge(seq)
        self._trim()

    def detach(self) -> None:
        """Go on without a reader. What it had not acknowledged stays for its return, where it promised to."""
        self.reader.detach()
        self._trim()

    def attach(self) -> None:
        """Begin anew with a reader, which will `read` what there is and takes what is appended from here on."""
        self.reader.attach(self.next_seq - 1)
        self._trim()

    def go_without_reader(self) -> None:
        """Wait for nobody from here on, whatever was asked for."""
        self.reader.go()
        self._trim()

    # -- everybody else --

    def read(self, after_seq: int, max_bytes: int | None) -> tuple[ReadGap | None, list[Chunk], int]:
        """Return a gap, the retained chunks numbered above `after_seq` behind it, and the number to go on from.

        Whole chunks only, at least one if there is any, at most `max_bytes` of content otherwise.
        """
        oldest = self._oldest
        gap = ReadGap(after_seq + 1, oldest - 1, dict(self._forgotten)) if after_seq + 1 < oldest else None
        chunks: list[Chunk] = []
        room = max_bytes
        for entry in islice(self._entries, max(0, after_seq + 1 - oldest), None):
            if not isinstance(entry, Chunk):
                continue
            if room is not None:
                room -= len(entry.chunk)
                if room < 0 and chunks:
                    return gap, chunks, chunks[-1].seq + 1
            chunks.append(entry)
        return gap, chunks, self.next_seq
