"""The place of a viewer in a log: one of any number, who follow and hold nobody up. Pure: no I/O.

It has no entries of its own, only the number of the next one. What the log does not retain any more when the viewer
comes to it is a gap. With a window, it takes no more than that before some was acknowledged, and falls back meanwhile.
"""

from __future__ import annotations

import sys
from collections import deque

from execsrv._log.entries import Entry, Gap, add_printed, entry_bytes
from execsrv._log.log import OutputLog
from execsrv.protocol import ReadGap

_MOST_UNACKNOWLEDGED = 1024
"""Entries that may be under way, however small they are: each is remembered."""


class Viewer:
    """Each entry once and in order, or a `Gap`, from an entry on."""

    def __init__(self, log: OutputLog, after_seq: int, window_bytes: int | None) -> None:
        """Begin behind entry `after_seq`: with the oldest that is retained, or what comes next, where that is not."""
        self._log = log
        self._window = window_bytes
        self._unacknowledged: deque[tuple[int, int]] = deque()
        self._unacknowledged_bytes = 0
        self.is_held = False
        """True while it takes nothing, whatever there is: others come first."""
        self.gap: ReadGap | None = None
        """The entries that were asked for and are not retained."""
        self.go_to(after_seq)

    def __repr__(self) -> str:
        return f"<Viewer next_seq={self.next_seq}>"

    def go_to(self, after_seq: int) -> None:
        """Go on behind that entry. All that was taken counts as had."""
        log = self._log
        after_seq = min(after_seq, log.next_seq - 1)
        self.gap = log.gap_behind(after_seq)
        self.next_seq = max(after_seq + 1, log.oldest)
        self._had = log.printed_before(self.next_seq)
        self._unacknowledged.clear()
        self._unacknowledged_bytes = 0

    @property
    def has_news(self) -> bool:
        """True when `take` has something."""
        is_free = not self.is_held and (self._window is None or self._has_window)
        return is_free and self.next_seq < self._log.next_seq

    @property
    def _has_window(self) -> bool:
        if self._window is None or not self._unacknowledged:
            return True
        return self._unacknowledged_bytes < self._window and len(self._unacknowledged) < _MOST_UNACKNOWLEDGED

    @property
    def is_at_its_end(self) -> bool:
        """True where everything was taken, and nothing comes any more."""
        return self._log.closed is not None and self.next_seq >= self._log.next_seq

    def take(self) -> Entry:
        """Return the next entry. Raises `LookupError` when there is none."""
        if (gap := self._log.gap_behind(self.next_seq - 1)) is not None:
            missing = {
                stream: printed - self._had.get(stream, 0)
                for stream, printed in gap.printed_before.items()
                if printed > self._had.get(stream, 0)
            }
            self._had = dict(gap.printed_before)
            self.next_seq = gap.seq + 1
            return Gap(gap.from_seq, gap.seq, missing)
        entry = self._log.entry(self.next_seq)
        self.next_seq += 1
        add_printed(self._had, entry)
        if self._window is not None and (size := entry_bytes(entry)):
            self._unacknowledged.append((entry.seq, size))
            self._unacknowledged_bytes += size
        return entry

    def stop(self) -> None:
        """Have nothing more to take."""
        self.next_seq = sys.maxsize

    def acknowledge(self, seq: int) -> None:
        """Count all entries up to `seq` as had."""
        while self._unacknowledged and self._unacknowledged[0][0] <= seq:
            self._unacknowledged_bytes -= self._unacknowledged.popleft()[1]
