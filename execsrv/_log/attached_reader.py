"""The place of the one reader that is attached to a log: what waits for it and what it acknowledges. Pure: no I/O.

    appended ──► waiting ──take──► unacknowledged ──acknowledge──► had
                    └─ passed over (where it drops): a gap instead

The reader lags by what waits and by what it has not acknowledged, in bytes. Without acknowledgements an entry that was
taken was had. Nothing is retained here: entries are the log's, and `first_needed` tells it which of them to keep.

Where the log gets no more memory, the reader is `held_back`: nothing is appended for it as long as anything waits, and
one that drops is passed over at once.

A reader that is away has a claim on everything: where it has got to is not known before it says so on its return. What
is appended meanwhile counts as lag, so that its maker waits at last. One that drops has no such claim.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from execsrv._log.entries import Closed, Entry, Exited, Gap, entry_bytes, first_seq
from execsrv.protocol import Chunk


class AttachedReader:
    """Each entry once and in order, or a `Gap`. It may lag by `window_bytes`."""

    def __init__(self, window_bytes: int, away_bytes: int, *, acknowledges: bool, drops: bool) -> None:
        """With `acknowledges` it says itself how far it is. With `drops` it is passed over when it lags by more.

        `away_bytes` may be appended while it is away, where it does not acknowledge.
        """
        self._window = window_bytes
        self._away_window = window_bytes if acknowledges else max(window_bytes, away_bytes)
        self._acknowledges = acknowledges
        self._drops = drops
        self.omitted_bytes = 0
        """The bytes of output that it was passed over with."""
        self.is_here = True
        self.is_held_back = False
        self._is_gone = False
        self._first: list[Entry] = []  # gaps and what must not be left out, in front of what waits
        self._waiting: deque[Entry] = deque()
        self._unacknowledged: list[tuple[int, int]] = []  # numbers and sizes: the entries are the log's alone
        self._unacknowledged_bytes = 0
        self._end_seq = 0  # of the last end that was appended
        self.lag_bytes = 0
        self.last_taken = 0

    @property
    def window_bytes(self) -> int | None:
        """The window that it has asked for, None where it does not acknowledge."""
        return self._window if self._acknowledges else None

    def __repr__(self) -> str:
        return f"<AttachedReader last_taken={self.last_taken} lag={self.lag_bytes}>"

    # -- the log appends --

    @property
    def has_room(self) -> bool:
        """True when more may be appended: it is near enough, or goes without."""
        if self.is_held_back and (self._waiting or not self.is_here) and not (self._drops or self._is_gone):
            return False
        return self.lag_bytes < (self._window if self.is_here else self._away_window) or self._drops or self._is_gone

    def hold_back(self) -> None:
        """Have nothing wait but the newest, where it drops, and nothing more, where it does not."""
        self.is_held_back = True
        if self._drops and self.is_here:
            self._pass_over()

    def add(self, entry: Entry, size: int) -> None:
        """Let an entry of that many bytes wait, if there is a reader to wait for."""
        if not self.is_here:
            if not (self._drops or self._is_gone):
                self.lag_bytes += size
                if self._acknowledges:
                    self._unacknowledged.append((entry.seq, size))
                    self._unacknowledged_bytes += size
            return
        self._waiting.append(entry)
        self.lag_bytes += size
        if isinstance(entry, Exited | Closed):
            self._end_seq = entry.seq
        elif self._drops and (self.lag_bytes > self._window or self.is_held_back):
            self._pass_over()

    def waits_for(self, entry: Entry) -> bool:
        """Return whether that entry is the last that waits."""
        return bool(self._waiting) and self._waiting[-1] is entry

    def replace_last(self, entry: Entry) -> None:
        """Let another entry of the same size wait in the place of the last."""
        self._waiting[-1] = entry

    def grow_last(self, added: int) -> None:
        """Count that many bytes more for the last entry, which was appended while it is away."""
        if not (self._drops or self._is_gone):
            self.lag_bytes += added
            if self._acknowledges:
                seq, size = self._unacknowledged[-1]
                self._unacknowledged[-1] = seq, size + added
                self._unacknowledged_bytes += added

    def _pass_over(self) -> None:
        """Leave out the oldest output that waits, but not the newest, until the reader is within its window."""
        while len(self._waiting) > 1 and (self.lag_bytes > self._window or self.is_held_back):
            entry = self._waiting.popleft()
            self.lag_bytes -= entry_bytes(entry)
            last = self._first[-1] if self._first else None
            if not isinstance(entry, Chunk):
                self._first.append(entry)
                continue
            self.omitted_bytes += len(entry.chunk)
            if isinstance(last, Gap):
                self._first[-1] = last.and_then(entry.seq, {entry.stream: len(entry.chunk)})
            else:
                self._first.append(Gap(entry.seq, entry.seq, {entry.stream: len(entry.chunk)}))

    @property
    def first_needed(self) -> int | None:
        """The number of the oldest entry that the log has to keep for it; None when it has had them all.

        A reader that drops has no claim on what it did not acknowledge: that could be all that was printed since.
        """
        if not self.is_here:
            return None if self._drops or self._is_gone else 0
        if self._unacknowledged and not self._drops:
            return self._unacknowledged[0][0]
        return self.first_untold

    @property
    def first_untold(self) -> int | None:
        """The number of the oldest entry that it cannot do without, as it is here: it has not had it at all."""
        if not self.is_here:
            return None if self._drops or self._is_gone else 0
        return first_seq(self._waiting[0]) if self._waiting else None

    # -- the reader takes --

    @property
    def has_news(self) -> bool:
        """True when `take` has something."""
        return bool(self._waiting or self._first) and not (self._drops and self._must_acknowledge)

    @property
    def _must_acknowledge(self) -> bool:
        """True when a reader that drops has its window in hand: it gets a gap and the newest once it acknowledges.

        An end is not kept from it.
        """
        return self._unacknowledged_bytes >= self._window and self._end_seq <= self.last_taken

    def take(self) -> Entry:
        """Return the next entry. Raises `LookupError` when there is none."""
        if not self.has_news:
            raise LookupError("nothing new in the log")
        entry = self._first.pop(0) if self._first else self._waiting.popleft()
        if isinstance(entry, Gap):
            # What follows is not left out any more, or a reader could get one gap after the other and nothing else.
            if not self._first and self._waiting:
                self._first.append(self._waiting.popleft())
        elif self._acknowledges:
            self._unacknowledged.append((entry.seq, size := entry_bytes(entry)))
            self._unacknowledged_bytes += size
        else:
            self.lag_bytes -= entry_bytes(entry)
        self.last_taken = entry.seq
        return entry

    def acknowledge(self, seq: int) -> None:
        """Count all entries up to `seq` as had. An entry that was not taken yet is not among them."""
        count = 0
        for had, size in self._unacknowledged:
            if had > seq:
                break
            count += 1
            self.lag_bytes -= size
            self._unacknowledged_bytes -= size
        del self._unacknowledged[:count]

    # -- it goes, and comes back --

    def leave(self) -> None:
        """Be away, until `come_back`."""
        if not self.is_here:
            return
        self.is_here = False
        if self._acknowledges and not self._drops:
            self._unacknowledged.extend((entry.seq, entry_bytes(entry)) for entry in self._waiting)
            self._unacknowledged_bytes = self.lag_bytes
        else:
            self._unacknowledged.clear()
            self._unacknowledged_bytes = self.lag_bytes = 0
        self._first.clear()
        self._waiting.clear()

    def come_back(self, seq: int, entries: Iterable[Entry]) -> None:
        """Take these entries, number `seq` and what follows, and whatever is appended from here on.

        Where it acknowledges, what lies before counts as taken and not acknowledged.
        """
        while self._unacknowledged and self._unacknowledged[-1][0] >= seq:
            self._unacknowledged_bytes -= self._unacknowledged.pop()[1]
        self.lag_bytes = self._unacknowledged_bytes
        self.last_taken = seq - 1
        self.is_here = True
        self._is_gone = False
        for entry in entries:
            self.add(entry, entry_bytes(entry))

    def go(self) -> None:
        """Leave, and have nothing wait or be kept for a return."""
        self.leave()
        self._is_gone = True
        self._unacknowledged.clear()
        self._unacknowledged_bytes = self.lag_bytes = 0
