"""The log of one session: everything that it printed and how it ended, numbered in one order. Pure: no I/O.

One hand appends, so the order of the numbers is the order in which things happened. One attached reader takes entry
after entry and sees each once; anybody may read what is still retained. The log never holds more than it may retain
plus what the attached reader has not had: its owner asks `has_room` before it appends, and waits when there is none.
A reader has had an entry when it took it or, where it promised to, when it acknowledged it.
"""

from __future__ import annotations

from collections import deque
from itertools import islice

from msgspec import Struct

from execsrv.protocol import Chunk, Reason, Stream

ENTRY_BYTES = 256
"""What an entry costs beside its content, so that many small ones are bounded as well as a few large ones."""


class Exited(Struct, frozen=True):
    """The leader ended. `exit_code` is 128+N after a death by signal N, whose name is in `signal`."""

    seq: int
    exit_code: int
    signal: str | None
    reason: Reason


class Closed(Struct, frozen=True):
    """Nothing more will come."""

    seq: int


Entry = Chunk | Exited | Closed


class OutputLog:
    """See the module. Sizes are bytes, numbers start at 1."""

    def __init__(self, retained_bytes: int, window_bytes: int, acknowledged: bool = False) -> None:
        """Retain `retained_bytes`; let the attached reader lag by `window_bytes`, by its own word if `acknowledged`."""
        self._max_retained = retained_bytes
        self._window = window_bytes
        self._acknowledged = acknowledged
        self._entries: deque[Entry] = deque()
        self._kept_bytes = 0
        self._lag_bytes = 0
        self._next_taken = 1
        self._next_had = 1
        self.next_seq = 1
        self.exited: Exited | None = None
        self.closed = False

    def __repr__(self) -> str:
        state = "closed" if self.closed else "exited" if self.exited else "open"
        return f"<OutputLog {state} next_seq={self.next_seq} lag={self._lag_bytes}>"

    # -- the hand that writes --

    @property
    def has_room(self) -> bool:
        """Whether the attached reader is near enough that more may be appended."""
        return self._lag_bytes < self._window

    def append(self, stream: Stream, chunk: bytes) -> None:
        """Number a piece of output."""
        self.add(Chunk(self.next_seq, stream, chunk))

    def append_exited(self, exit_code: int, signal: str | None, reason: Reason) -> None:
        """Number the end of the leader."""
        self.add(Exited(self.next_seq, exit_code, signal, reason))

    def append_closed(self) -> None:
        """Number the end of everything."""
        self.add(Closed(self.next_seq))

    def add(self, entry: Entry) -> None:
        """Append an entry that is numbered already. Raises `ValueError` unless it is the next."""
        if entry.seq != self.next_seq:
            raise ValueError(f"expected entry {self.next_seq} of the log, got {entry.seq}")
        self.next_seq += 1
        self._entries.append(entry)
        size = entry_bytes(entry)
        self._lag_bytes += size
        self._kept_bytes += size
        match entry:
            case Exited():
                self.exited = entry
            case Closed():
                self.closed = True
            case _:
                self._trim()

    def _trim(self) -> None:
        """Forget the oldest entries beyond the bound, but none that the attached reader has still to have."""
        while self._kept_bytes > self._max_retained and self._oldest < self._next_had:
            self._kept_bytes -= entry_bytes(self._entries.popleft())

    @property
    def _oldest(self) -> int:
        return self.next_seq - len(self._entries)

    # -- the attached reader --

    @property
    def has_news(self) -> bool:
        """Whether `take` has something."""
        return self._next_taken < self.next_seq

    @property
    def last_taken(self) -> int:
        """The number of the entry that was taken last, 0 before the first."""
        return self._next_taken - 1

    def take(self) -> Entry:
        """The next entry that the attached reader has not taken. Raises `LookupError` when there is none."""
        if not self.has_news:
            raise LookupError("nothing new in the log")
        entry = self._entries[self._next_taken - self.next_seq]
        self._next_taken += 1
        if not self._acknowledged:
            self._release(entry.seq)
        return entry

    def acknowledge(self, seq: int) -> None:
        """The attached reader is done with all entries up to `seq`; what it has not taken yet does not count."""
        self._release(min(seq, self._next_taken - 1))

    def _release(self, seq: int) -> None:
        while self._next_had <= seq:
            self._lag_bytes -= entry_bytes(self._entries[self._next_had - self.next_seq])
            self._next_had += 1
        self._trim()

    # -- everybody else --

    def read(self, after_seq: int, max_bytes: int | None) -> tuple[list[Chunk], int]:
        """Retained chunks numbered above `after_seq`, and the number to go on from.

        Whole chunks only, at least one if there is any, at most `max_bytes` of content otherwise.
        """
        chunks: list[Chunk] = []
        room = max_bytes
        for entry in islice(self._entries, max(0, after_seq + 1 - self._oldest), None):
            if not isinstance(entry, Chunk):
                continue
            if room is not None:
                room -= len(entry.chunk)
                if room < 0 and chunks:
                    return chunks, chunks[-1].seq + 1
            chunks.append(entry)
        return chunks, self.next_seq


def entry_bytes(entry: Entry) -> int:
    """What an entry counts against a bound or a window."""
    return ENTRY_BYTES + len(entry.chunk) if isinstance(entry, Chunk) else 0


class HeadTail:
    """The beginning and the end of a stream within a bound, and how much is missing between them."""

    def __init__(self, max_bytes: int) -> None:
        self._max_head = max_bytes // 2
        self._max_tail = max_bytes - self._max_head
        self._head = bytearray()
        self._tail: deque[bytes] = deque()
        self._tail_bytes = 0
        self.total_bytes = 0

    def append(self, data: bytes) -> None:
        """Add what comes next."""
        self.total_bytes += len(data)
        room = self._max_head - len(self._head)
        if room > 0:
            self._head += data[:room]
            data = data[room:]
        if data:
            self._tail.append(data)
            self._tail_bytes += len(data)
        while self._tail_bytes > self._max_tail:
            oldest = self._tail.popleft()
            self._tail_bytes -= len(oldest)
            if self._tail_bytes < self._max_tail:
                kept = oldest[self._tail_bytes - self._max_tail :]
                self._tail.appendleft(kept)
                self._tail_bytes += len(kept)

    @property
    def omitted_bytes(self) -> int:
        """How much is missing in the middle."""
        return self.total_bytes - len(self._head) - self._tail_bytes

    def __bytes__(self) -> bytes:
        return b"".join([self._head, *self._tail])
