"""Counts of what has happened in one server, as plain numbers. Pure: no I/O.

Nothing is counted for a piece of output: what a session has carried stands in its log, and is added up when somebody
asks, or at its end.
"""

from __future__ import annotations

from collections import Counter

from execsrv._doors.journal import End, Silent, Start
from execsrv.errors import RequestError


class Counts(Silent):
    """A reader of the journal that counts."""

    def __init__(self) -> None:
        self.starts = 0
        self.failures: Counter[str] = Counter()
        """Starts that failed, by the kind of their error."""
        self.ends: Counter[str] = Counter()
        """Ends by their reason."""
        self._ended_bytes: Counter[str] = Counter()
        self._ended_omitted = 0
        self._running: dict[Start, None] = {}

    def __repr__(self) -> str:
        return f"<Counts starts={self.starts} running={len(self._running)}>"

    def started(self, start: Start) -> None:
        """Count a start."""
        self.starts += 1
        self._running[start] = None

    def failed(self, start: Start, error: Exception) -> None:
        """Count a start that failed."""
        self.failures[error.kind if isinstance(error, RequestError) else "internal-error"] += 1

    def ended(self, start: Start, end: End) -> None:
        """Count an end."""
        self._running.pop(start, None)
        self.ends[end.reason] += 1
        self._ended_bytes.update(end.totals)
        self._ended_omitted += end.omitted

    @property
    def running(self) -> int:
        """Sessions that run."""
        return len(self._running)

    @property
    def output_bytes(self) -> Counter[str]:
        """Bytes that commands have printed, by stream."""
        total = Counter(self._ended_bytes)
        for start in self._running:
            if start.log is not None:
                total.update(start.log.totals)
        return total

    @property
    def omitted_bytes(self) -> int:
        """Bytes of output that slow readers were passed over with."""
        return self._ended_omitted + sum(
            start.log.reader.omitted_bytes for start in self._running if start.log is not None
        )
