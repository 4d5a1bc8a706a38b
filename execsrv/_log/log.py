"""The log of one session: everything that it printed and how it ended, numbered in one order. Pure: no I/O.

One hand appends, so the order of the numbers is the order in which things happened. One attached reader takes entry
after entry and sees each once, or is told of a `Gap`; anybody may read what is still retained. The log never holds more
than it may retain plus what the attached reader has not had: its owner asks `has_room` before it appends, and waits
when there is none. A reader has had an entry when it took it or, where it promised to, when it acknowledged it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from itertools import islice

from msgspec import Struct

from execsrv._log.head_tail import HeadTail
from execsrv.protocol import Chunk, Layer, Member, ReadGap, Reason, Stream

ENTRY_BYTES = 256
"""What an entry costs beside its content, so that many small ones are bounded as well as a few large ones."""


class Gap(Struct, frozen=True):
    """Entries `from_seq` to `seq` were left out for a slow reader: so many bytes of each stream."""

    from_seq: int
    seq: int
    omitted: dict[Stream, int]

    def and_then(self, seq: int, omitted: dict[Stream, int]) -> Gap:
        """This gap with what was left out behind it, up to entry `seq`."""
        total = {stream: self.omitted.get(stream, 0) + omitted.get(stream, 0) for stream in self.omitted | omitted}
        return Gap(self.from_seq, seq, total)


class Exited(Struct, frozen=True):
    """The leader ended. `exit_code` is 128+N after a death by signal N, whose name is in `signal`."""

    seq: int
    exit_code: int
    signal: str | None
    reason: Reason


class Closed(Struct, frozen=True):
    """Nothing more will come. `totals` is what each stream carried, `remaining` what descends from it and lives on.

    `tree_empty`, once its end was forced: by which layer the server knows that nothing does.
    """

    seq: int
    totals: dict[Stream, int] = {}
    remaining: list[Member] = []
    tree_empty: Layer | None = None


Entry = Chunk | Gap | Exited | Closed


class OutputLog:
    """See the module. Sizes are bytes, numbers start at 1."""

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
        kept = dict.fromkeys(streams, retained_bytes // 4)
        self.streams = {stream: HeadTail(size // len(kept)) for stream, size in kept.items()}
        # The ends of a stream may hold half as much again: see `HeadTail`.
        self._max_retained = retained_bytes * 5 // 8
        self._window = window_bytes
        self._acknowledged = acknowledged
        self._drops = drops
        self._attached = True
        self._entries: deque[Entry] = deque()
        self._kept_bytes = 0
        self._forgotten: dict[Stream, int] = dict.fromkeys(kept, 0)
        self._untaken = 0  # how many entries at the end the attached reader has not taken
        self._overdue: deque[Entry] = deque()  # what it gets before those
        self._unacknowledged: deque[Entry] = deque()
        self._lag_bytes = 0
        self._taken_bytes = 0  # the part of the lag that was taken, and not acknowledged
        self.last_taken = 0
        """The number of the entry that was taken last, 0 before the first."""
        self.next_seq = 1
        self.exited: Exited | None = None
        self.closed: Closed | None = None

    def __repr__(self) -> str:
        state = "closed" if self.closed else "exited" if self.exited else "open"
        return f"<OutputLog {state} next_seq={self.next_seq} lag={self._lag_bytes}>"

    # -- the hand that writes --

    @property
    def has_room(self) -> bool:
        """Whether more may be appended: the attached reader is near enough, or goes without."""
        return self._lag_bytes < self._window or self._drops

    @property
    def totals(self) -> dict[Stream, int]:
        """What each stream has carried."""
        return {stream: ends.total_bytes for stream, ends in self.streams.items()}

    def append(self, stream: Stream, chunk: bytes) -> None:
        """Number a piece of output."""
        self.streams[stream].append(chunk)
        self.add(Chunk(self.next_seq, stream, chunk))

    def append_exited(self, exit_code: int, signal: str | None, reason: Reason) -> None:
        """Number the end of the leader."""
        self.add(Exited(self.next_seq, exit_code, signal, reason))

    def append_closed(self, remaining: list[Member], tree_empty: Layer | None = None) -> None:
        """Number the end of everything."""
        self.add(Closed(self.next_seq, self.totals, remaining, tree_empty))

    def add(self, entry: Entry) -> None:
        """Append an entry that is numbered already. Raises `ValueError` unless it is the next."""
        if first_seq(entry) != self.next_seq:
            raise ValueError(f"expected entry {self.next_seq} of the log, got {first_seq(entry)}")
        self.next_seq = entry.seq + 1
        if isinstance(entry, Gap) and self._untaken and isinstance(last := self._entries[-1], Gap):
            # Gaps weigh nothing, so they must not pile up: between two that wait there is always something else.
            self._entries[-1] = last.and_then(entry.seq, entry.omitted)
            return
        self._entries.append(entry)
        size = entry_bytes(entry)
        self._kept_bytes += size
        if self._attached:
            self._untaken += 1
            self._lag_bytes += size
        match entry:
            case Exited():
                self.exited = entry
            case Closed():
                self.closed = entry
            case _:
                if self._drops and self._lag_bytes > self._window:
                    self._leave_out()
                self._trim()

    def _leave_out(self) -> None:
        """Pass over the oldest output that the attached reader has not taken, until it is within its window."""
        while self._untaken > 1 and self._lag_bytes > self._window:
            entry = self._entries[-self._untaken]
            self._untaken -= 1
            self._lag_bytes -= entry_bytes(entry)
            last = self._overdue[-1] if self._overdue else None
            if not isinstance(entry, Chunk):
                self._overdue.append(entry)
            elif isinstance(last, Gap):
                self._overdue[-1] = last.and_then(entry.seq, {entry.stream: len(entry.chunk)})
            else:
                self._overdue.append(Gap(entry.seq, entry.seq, {entry.stream: len(entry.chunk)}))

    def _trim(self) -> None:
        """Forget the oldest entries beyond the bound, but none that the attached reader has still to have.

        Where it is passed over when it lags, what it has not acknowledged does not hold anything either: it could
        hold all that was printed since.
        """
        if self._kept_bytes <= self._max_retained:
            return
        held = self._unacknowledged and not self._drops
        not_had = first_seq(self._unacknowledged[0]) if held else self._next_untaken
        while self._kept_bytes > self._max_retained and self._oldest < not_had:
            entry = self._entries.popleft()
            self._kept_bytes -= entry_bytes(entry)
            if isinstance(entry, Chunk) and entry.stream in self._forgotten:
                self._forgotten[entry.stream] += len(entry.chunk)

    @property
    def _oldest(self) -> int:
        return first_seq(self._entries[0]) if self._entries else self.next_seq

    @property
    def _next_untaken(self) -> int:
        return first_seq(self._entries[-self._untaken]) if self._untaken else self.next_seq

    # -- the attached reader --

    @property
    def has_news(self) -> bool:
        """Whether `take` has something."""
        return (self._untaken > 0 or bool(self._overdue)) and not self._withheld

    @property
    def _withheld(self) -> bool:
        """Whether the reader, which is passed over when it lags, has to acknowledge first: it gets no more than its
        window, then a gap and the newest. An end is not kept from it."""
        if not self._drops or self._taken_bytes < self._window:
            return False
        end = self.closed or self.exited
        return end is None or end.seq <= self.last_taken

    def take(self) -> Entry:
        """The next entry that the attached reader has not taken. Raises `LookupError` when there is none."""
        if not self.has_news:
            raise LookupError("nothing new in the log")
        entry = self._overdue.popleft() if self._overdue else self._pass_untaken()
        if isinstance(entry, Gap):
            # What follows is not left out any more, or a reader could get one gap after the other and nothing else.
            if not self._overdue and self._untaken:
                self._overdue.append(self._pass_untaken())
        elif self._acknowledged:
            self._unacknowledged.append(entry)
            self._taken_bytes += entry_bytes(entry)
        else:
            self._lag_bytes -= entry_bytes(entry)
        self.last_taken = entry.seq
        self._trim()
        return entry

    def _pass_untaken(self) -> Entry:
        entry = self._entries[-self._untaken]
        self._untaken -= 1
        return entry

    def acknowledge(self, seq: int) -> None:
        """The attached reader is done with all entries up to `seq`; what it has not taken yet does not count."""
        while self._unacknowledged and self._unacknowledged[0].seq <= seq:
            size = entry_bytes(self._unacknowledged.popleft())
            self._lag_bytes -= size
            self._taken_bytes -= size
        self._trim()

    def detach(self) -> None:
        """The attached reader has gone. What it had not acknowledged stays for its return, where it promised to."""
        self._attached = self._acknowledged
        if not self._acknowledged:
            self._untaken = self._lag_bytes = 0
            self._trim()

    def attach(self) -> None:
        """A reader has come, and will `read` what there is: it takes what is appended from here on."""
        self._attached = True
        self._overdue.clear()
        if self._acknowledged:
            self._unacknowledged.extend(islice(self._entries, len(self._entries) - self._untaken, None))
            self._lag_bytes = self._taken_bytes = sum(map(entry_bytes, self._unacknowledged))
        else:
            self._lag_bytes = 0
        self._untaken = 0
        self.last_taken = self.next_seq - 1
        self._trim()

    # -- everybody else --

    def read(self, after_seq: int, max_bytes: int | None) -> tuple[ReadGap | None, list[Chunk], int]:
        """Retained chunks numbered above `after_seq`, what is missing in front of them, and the number to go on from.

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


def entry_bytes(entry: Entry) -> int:
    """What an entry counts against a bound or a window."""
    return ENTRY_BYTES + len(entry.chunk) if isinstance(entry, Chunk) else 0


def first_seq(entry: Entry) -> int:
    """The number of an entry, the first one of a gap."""
    return entry.from_seq if isinstance(entry, Gap) else entry.seq
