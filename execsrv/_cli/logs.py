"""The log of a daemon: each event is one line, escaped, cut, and written by an outlet, which holds nobody up.

Of one kind of event at most `_RATE` are written in a second, then one more with the number of all the others. Only a
fault of ours has a traceback, whose lines are set off, so that no text in it can be taken for an event.
"""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from execsrv._outlet import Outlet, Printed, one_line, open_outlet

_RATE = 10
_WINDOW_SECONDS = 1.0
_KINDS = 100
_TRACEBACK_LINES = 200
_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


@contextmanager
def open_log(level: int = logging.INFO) -> Iterator[Outlet]:
    """Have what this process logs, from a level on, or prints on `sys.stderr` leave by an outlet, and give that."""
    with open_outlet(2) as outlet:
        handler = OutletHandler(outlet)
        logging.basicConfig(level=level, handlers=[handler])
        logging.getLogger("trio-websocket").setLevel(logging.WARNING)
        plain, sys.stderr = sys.stderr, Printed(outlet)
        try:
            yield outlet
        finally:
            sys.stderr = plain
            handler.flush()


class _Kind:
    """Events of one kind within one window of time."""

    def __init__(self, began: float) -> None:
        self.began = began
        self.count = 0
        self.beyond = b""  # the line of the first that was above the rate


class OutletHandler(logging.Handler):
    """Writes records to an outlet, within the rate."""

    def __init__(self, outlet: Outlet) -> None:
        super().__init__()
        self.formatter: logging.Formatter = logging.Formatter(_FORMAT)
        self._outlet = outlet
        self._kinds: dict[tuple[str, int, str], _Kind] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record, or count it."""
        now = time.monotonic()
        self._tell_counted(now - _WINDOW_SECONDS if len(self._kinds) < _KINDS else math.inf)
        kind = self._kinds.setdefault((record.name, record.levelno, str(record.msg)[:200]), _Kind(now))
        kind.count += 1
        try:
            if kind.count <= _RATE:
                self._outlet.put(b"\n".join([self._line(record), *self._traceback(record)]))
            elif not kind.beyond:
                kind.beyond = self._line(record)
        except Exception:
            self.handleError(record)

    def flush(self) -> None:
        """Tell of all that was counted only."""
        self.acquire()
        try:
            self._tell_counted(math.inf)
        finally:
            self.release()

    def _tell_counted(self, before: float) -> None:
        """Begin anew with the kinds whose window began before that time, and tell what was counted in it."""
        for key in [key for key, kind in self._kinds.items() if kind.began <= before]:
            kind = self._kinds.pop(key)
            if kind.beyond:
                self._outlet.put(kind.beyond + b" (and %d more like it)" % (kind.count - _RATE - 1))

    def _line(self, record: logging.LogRecord) -> bytes:
        record.message = record.getMessage()
        record.asctime = self.formatter.formatTime(record)
        return one_line(self.formatter.formatMessage(record))

    def _traceback(self, record: logging.LogRecord) -> list[bytes]:
        if not record.exc_info or record.exc_info[0] is None:
            return []
        lines = self.formatter.formatException(record.exc_info).splitlines()
        if len(lines) > _TRACEBACK_LINES:
            half = _TRACEBACK_LINES // 2
            lines = [*lines[:half], f"... {len(lines) - 2 * half} lines are left out", *lines[-half:]]
        return [b"  | " + one_line(line) for line in lines]
