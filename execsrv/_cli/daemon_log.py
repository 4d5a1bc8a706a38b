"""The log of a daemon: each event is one line, escaped, cut, and written by an outlet, which holds nobody up.

Of one kind of event at most `_RATE` are written in a second, then one more with the number of all the others. Only a
fault of ours has a traceback. `log_forms.py` has what a line looks like.
"""

from __future__ import annotations

import logging
import math
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from execsrv._cli.log_forms import Event, Form, Json, Text, event_of
from execsrv._outlet import Outlet, Printed, open_outlet

_RATE = 10
_WINDOW_SECONDS = 1.0
_KINDS = 100


class Log:
    """The log of this process. `open_log` opens it."""

    def __init__(self, outlet: Outlet, form: Form) -> None:
        self._outlet = outlet
        self._form = form

    def say(self, text: str) -> None:
        """Say one thing to whoever has started this process. Does not wait."""
        self._outlet.put(self._form.said(text))


@contextmanager
def open_log(level: str, format: Literal["auto", "text", "json"]) -> Iterator[Log]:
    """Have what this process logs, from a level on, or prints on `sys.stderr` leave by an outlet, and give that."""
    is_text = format == "text" or (format == "auto" and os.isatty(2))
    form: Form = Text() if is_text else Json(says_all=format == "json")
    with open_outlet(2, dropped=lambda count: form.dropped(count) + b"\n") as outlet:
        log, handler = Log(outlet, form), OutletHandler(outlet, form)
        logging.basicConfig(handlers=[handler])
        set_level(level)
        for library in ("trio-websocket", "httpcore"):  # they log whatever is sent, with all header fields
            logging.getLogger(library).setLevel(logging.WARNING)
        plain, sys.stderr = sys.stderr, Printed(log.say)
        try:
            yield log
        finally:
            sys.stderr = plain
            handler.flush()


def set_level(level: str) -> None:
    """Log what is at least that important, from now on."""
    logging.getLogger().setLevel(level.upper())


class _Kind:
    """Events of one kind within one window of time."""

    def __init__(self, began: float) -> None:
        self.began = began
        self.count = 0
        self.beyond: Event | None = None  # the first that was above the rate


class OutletHandler(logging.Handler):
    """Writes records to an outlet, within the rate."""

    def __init__(self, outlet: Outlet, form: Form) -> None:
        super().__init__()
        self._outlet = outlet
        self._form = form
        self._kinds: dict[tuple[str, int, str], _Kind] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record, or count it."""
        now = time.monotonic()
        self._tell_counted(now - _WINDOW_SECONDS if len(self._kinds) < _KINDS else math.inf)
        kind = self._kinds.setdefault((record.name, record.levelno, str(record.msg)[:200]), _Kind(now))
        kind.count += 1
        try:
            if kind.count <= _RATE:
                self._outlet.put(self._form.event(event_of(record)))
            elif kind.beyond is None:
                kind.beyond = event_of(record)._replace(traceback=())
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
            if kind.beyond is not None:
                self._outlet.put(self._form.event(kind.beyond, kind.count - _RATE - 1))
