"""Output of one process that has arrived at the client and was not read yet, a queue for each stream. Pure: no I/O.

Each stream is read once and in order, alone or with the other, and in whatever portions: entries, bytes, lines. The
bytes that were read are what the server is told of, along the order in which they arrived: so what is unread here
is what counts against the window, whichever stream it is of.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Literal

from execsrv._log.entries import Closed, Entry, Exited, Gap, entry_bytes, first_seq
from execsrv.client.lines import end_of_line
from execsrv.protocol import Chunk, Stream

Part = Literal["stdout", "stderr"]
"""The name of a stream for its readers. A terminal's output is "stdout"."""

PARTS: tuple[Part, Part] = ("stdout", "stderr")


def part_of(stream: Stream) -> Part:
    """Return the name under which a stream is read."""
    return "stderr" if stream == "stderr" else "stdout"


class Queue:
    """The unread entries of one stream: chunks, and never two gaps after another."""

    def __init__(self) -> None:
        self.entries: deque[Chunk | Gap] = deque()
        self.offset = 0
        """The bytes of the first entry that were read."""
        self.searched = 0
        """The entries in which no line ends."""
        self.searched_bytes = 0
        self.unread_bytes = 0
        """The bytes of it that count against the window."""
        self.credited = 0
        """Unread bytes that do not count against the window any more."""
        self.is_wanted = True

    @property
    def first(self) -> int | None:
        """The number of the first entry."""
        return first_seq(self.entries[0]) if self.entries else None


class Inbox:
    """Output that arrived and is unread. With `acknowledges`, the server is told of what was read."""

    def __init__(self, acknowledges: bool) -> None:
        self.queues: dict[Part, Queue] = {part: Queue() for part in PARTS}
        self._ends: deque[Entry] = deque()  # of the leader and of everything, and gaps of nobody knows what
        self._acknowledges = acknowledges
        self._sizes: deque[tuple[int, int]] = deque()  # of what arrived and was not acknowledged
        self.unacknowledged_bytes = 0
        self.read_bytes = 0
        """The bytes that were read and not acknowledged."""
        self.next_seq = 1
        self.exited: Exited | None = None
        self.closed: Closed | None = None

    # -- it arrives --

    def add(self, entry: Entry) -> None:
        """Take in the next entry. Raises `ValueError` for another."""
        if first_seq(entry) != self.next_seq:
            raise ValueError(f"expected entry {self.next_seq} of the log, got {first_seq(entry)}")
        self.next_seq = entry.seq + 1
        match entry:
            case Chunk():
                self._add_chunk(entry)
            case Gap():
                for queue, gap in self._by_queue(entry):
                    self._add_gap(queue.entries, gap)
                if not entry.omitted:
                    self._add_gap(self._ends, entry)
            case Exited() if self.exited is None:
                self.exited = entry
                self._ends.append(entry)
            case Closed() if self.closed is None:
                self.closed = entry
                self._ends.append(entry)

    def _add_chunk(self, chunk: Chunk) -> None:
        size = entry_bytes(chunk)
        if self._acknowledges:
            self._sizes.append((chunk.seq, size))
            self.unacknowledged_bytes += size
        queue = self.queues[part_of(chunk.stream)]
        if queue.is_wanted:
            queue.entries.append(chunk)
            queue.unread_bytes += size
        else:
            self._was_read(size)

    def _by_queue(self, gap: Gap) -> Iterator[tuple[Queue, Gap]]:
        """Yield each queue that a gap is in, with its own share of it."""
        for part, queue in self.queues.items():
            omitted = {stream: count for stream, count in gap.omitted.items() if part_of(stream) == part}
            if omitted and queue.is_wanted:
                yield queue, Gap(gap.from_seq, gap.seq, omitted)

    @staticmethod
    def _add_gap(entries: deque[Chunk | Gap] | deque[Entry], gap: Gap) -> None:
        """Add a gap. Gaps weigh nothing, so they must not pile up."""
        if entries and isinstance(last := entries[-1], Gap):
            entries[-1] = last.and_then(gap.seq, gap.omitted)
        else:
            entries.append(gap)

    # -- it is read --

    @property
    def unread_bytes(self) -> int:
        """The bytes that count against the window."""
        return self.queues["stdout"].unread_bytes + self.queues["stderr"].unread_bytes

    @property
    def is_empty(self) -> bool:
        """True where nothing is unread, and more is to come."""
        return not (self._ends or self.closed or self.queues["stdout"].entries or self.queues["stderr"].entries)

    def has_news(self, part: Part) -> bool:
        """Return whether something of a stream is unread."""
        return bool(self.queues[part].entries)

    def take(self, part: Part | None = None) -> Entry | None:
        """Return the next unread entry, of one stream or of everything, None where there is none."""
        if part is not None:
            return self._take(part) if self.queues[part].entries else None
        out, err = self.queues["stdout"].first, self.queues["stderr"].first
        end = first_seq(self._ends[0]) if self._ends else None
        if end is not None and (out is None or end < out) and (err is None or end < err):
            return self._ends.popleft()
        if out is None:
            return None if err is None else self._take("stderr")
        if err is None or out < err:
            return self._take("stdout")
        entry = self._take("stderr")
        if err == out and isinstance(entry, Gap):  # one gap in both
            other = self._take("stdout")
            assert isinstance(other, Gap)
            return other.and_then(max(entry.seq, other.seq), entry.omitted)
        return entry

    def take_all(self) -> list[Entry] | None:
        """Return all unread entries in their order, None where there is none."""
        return list(iter(self.take, None)) or None

    def _take(self, part: Part) -> Chunk | Gap:
        queue = self.queues[part]
        entry = queue.entries.popleft()
        if isinstance(entry, Chunk):
            if queue.offset:
                entry = Chunk(entry.seq, entry.stream, entry.chunk[queue.offset :], entry.at_ms)
                queue.offset = 0
            self._count(queue, entry_bytes(entry))
        queue.searched = queue.searched_bytes = 0
        return entry

    def take_bytes(self, part: Part, most: int) -> bytes | Gap | None:
        """Return up to so many bytes of a stream, or the gap that comes first; None where there is nothing."""
        queue = self.queues[part]
        if not queue.entries:
            return None
        entry = queue.entries[0]
        if isinstance(entry, Gap) or len(entry.chunk) - queue.offset <= most:
            taken = self._take(part)
            return taken.chunk if isinstance(taken, Chunk) else taken
        data = entry.chunk[queue.offset : queue.offset + most]
        queue.offset += most
        queue.searched = queue.searched_bytes = 0
        self._count(queue, most)
        return data

    def take_line(self, part: Part, most: int) -> bytes | Gap | None:
        """Return the next line of a stream with its end, or the gap that comes first; None where none is whole yet.

        The last line needs no end, nor does one before a gap. Raises `ValueError` for a line of more than `most` bytes.
        """
        queue = self.queues[part]
        if queue.entries and isinstance(queue.entries[0], Gap):
            return self.take_bytes(part, 0)
        while queue.searched < len(queue.entries):
            entry = queue.entries[queue.searched]
            if isinstance(entry, Gap):
                return self._join(part, queue.searched_bytes)
            start = queue.offset if queue.searched == 0 else 0
            after = queue.entries[queue.searched + 1] if len(queue.entries) > queue.searched + 1 else None
            end = end_of_line(entry.chunk, start, after.chunk if isinstance(after, Chunk) else None)
            if end is not None:
                size = queue.searched_bytes + end - start
                if size > most:
                    raise ValueError(size)
                return self._join(part, size)
            if entry.chunk.endswith(b"\r") and after is None and self.closed is None:
                break  # what follows may belong to the end of this line
            queue.searched += 1
            queue.searched_bytes += len(entry.chunk) - start
        if queue.searched_bytes > most:
            raise ValueError(queue.searched_bytes)
        if self.closed is not None and queue.searched_bytes:
            return self._join(part, queue.searched_bytes)
        return None

    def _join(self, part: Part, size: int) -> bytes:
        pieces: list[bytes] = []
        while size > 0:
            piece = self.take_bytes(part, size)
            assert isinstance(piece, bytes)
            pieces.append(piece)
            size -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def give_back(self, entry: Entry) -> None:
        """Let a chunk, or the end of one, be the next of its stream again, and a gap that of all streams it is in."""
        if isinstance(entry, Chunk):
            self._give_back_chunk(entry)
        elif not isinstance(entry, Gap) or not entry.omitted:
            self._ends.appendleft(entry)
        else:
            for queue, gap in self._by_queue(entry):
                if queue.entries and isinstance(after := queue.entries[0], Gap):
                    queue.entries[0] = gap.and_then(after.seq, after.omitted)
                else:
                    queue.entries.appendleft(gap)
                queue.searched = queue.searched_bytes = 0

    def _give_back_chunk(self, chunk: Chunk) -> None:
        queue = self.queues[part_of(chunk.stream)]
        if not queue.is_wanted:
            return
        if queue.offset:  # what follows is the rest of a chunk
            rest = queue.entries.popleft()
            assert isinstance(rest, Chunk)
            queue.entries.appendleft(Chunk(rest.seq, rest.stream, rest.chunk[queue.offset :], rest.at_ms))
            queue.offset = 0
        queue.entries.appendleft(chunk)
        queue.searched = queue.searched_bytes = 0
        queue.unread_bytes += entry_bytes(chunk)
        self._was_read(-entry_bytes(chunk))

    def let_go(self, keep_bytes: int) -> None:
        """Leave out the oldest output of the longer stream, with a gap in its place, until no more is unread."""
        while self.unread_bytes > keep_bytes:
            part = max(PARTS, key=lambda part: self.queues[part].unread_bytes)
            entries = self.queues[part].entries
            gap = entries.popleft() if isinstance(entries[0], Gap) else None
            chunk = self._take(part)
            assert isinstance(chunk, Chunk)
            mine = Gap(chunk.seq, chunk.seq, {chunk.stream: len(chunk.chunk)})
            mine = gap.and_then(chunk.seq, mine.omitted) if isinstance(gap, Gap) else mine
            if entries and isinstance(after := entries[0], Gap):
                entries[0] = mine.and_then(after.seq, after.omitted)
            else:
                entries.appendleft(mine)

    def discard(self, part: Part) -> None:
        """Let go of all of a stream, now and later."""
        queue = self.queues[part]
        queue.is_wanted = False
        while queue.entries:
            self._take(part)

    # -- the window --

    def credit(self, part: Part) -> None:
        """Have the unread bytes of a stream not count against the window: their reader needs more to go on."""
        queue = self.queues[part]
        size, queue.unread_bytes = queue.unread_bytes, 0
        queue.credited += size
        self._was_read(size)

    def _count(self, queue: Queue, size: int) -> None:
        """Count bytes as read."""
        ahead = min(size, queue.credited)
        queue.credited -= ahead
        queue.unread_bytes -= size - ahead
        self._was_read(size - ahead)

    def _was_read(self, size: int) -> None:
        if self._acknowledges:
            self.read_bytes += size

    def acknowledged(self) -> int | None:
        """Return the number up to which as much has arrived as was read, None where that is no more than before.

        An entry counts as soon as one byte of it does: so up to one more than the window may be unread.
        """
        seq = None
        while self._sizes and self.read_bytes > 0:
            seq, size = self._sizes.popleft()
            self.read_bytes -= size
            self.unacknowledged_bytes -= size
        return seq
