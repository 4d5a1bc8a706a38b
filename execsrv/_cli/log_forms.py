"""The two forms of a log: lines for people, and objects of JSON for programs, one event a line in both.

What a peer has said may be in an event. So control characters are escaped, and an event is cut.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import NamedTuple, Protocol

import msgspec

from execsrv._outlet import LINE_BYTES, log_line
from execsrv._wire.quoting import in_utf8

_TRACEBACK_LINES = 200
_FORMATTER = logging.Formatter()


class Event(NamedTuple):
    """One event. `request` is the number that a client was told, empty where it was told none."""

    time: float
    level: str
    logger: str
    message: str
    request: str = ""
    traceback: tuple[str, ...] = ()


def event_of(record: logging.LogRecord) -> Event:
    """Return what a record says."""
    request = str(getattr(record, "request", ""))
    return Event(record.created, record.levelname, record.name, record.getMessage(), request, tuple(_traceback(record)))


def _traceback(record: logging.LogRecord) -> list[str]:
    if not record.exc_info or record.exc_info[0] is None:
        return []
    lines = _FORMATTER.formatException(record.exc_info).splitlines()
    if len(lines) > _TRACEBACK_LINES:
        half = _TRACEBACK_LINES // 2
        lines = [*lines[:half], f"... {len(lines) - 2 * half} lines are left out", *lines[-half:]]
    return lines


class Form(Protocol):
    """A way to write events. None of the lines has its end."""

    def event(self, event: Event, more: int = 0) -> bytes:
        """Write an event, and the number of others that were like it."""

    def said(self, text: str) -> bytes:
        """Write what is said to whoever has started the program."""

    def dropped(self, count: int) -> bytes:
        """Write that so many were dropped."""


class Text:
    """Lines for people. The lines of a traceback are set off, so that none of them can be taken for an event."""

    def event(self, event: Event, more: int = 0) -> bytes:
        """Write an event in a line, and its traceback below."""
        stamp = datetime.fromtimestamp(event.time).isoformat(" ", "milliseconds").replace(".", ",")
        request = f" (request {event.request})" if event.request else ""
        line = log_line(f"{stamp} {event.level} {event.logger}: {event.message}{request}")
        if more:
            line += b" (and %d more like it)" % more
        return b"\n".join([line, *(b"  | " + log_line(text) for text in event.traceback)])

    def said(self, text: str) -> bytes:
        """Write it as it is."""
        return log_line(text)

    def dropped(self, count: int) -> bytes:
        """Write it as the program says other things."""
        return b"execsrv: %d messages were dropped, since they could not be written" % count


class Json:
    """Objects of JSON. With `says_all`, what is said to whoever has started the program is one too."""

    def __init__(self, *, says_all: bool) -> None:
        self._says_all = says_all

    def event(self, event: Event, more: int = 0) -> bytes:
        """Write an event, and all that belongs to it, as one object."""
        facts: dict[str, str | int] = {
            "time": datetime.fromtimestamp(event.time, UTC).isoformat(timespec="milliseconds")[:-6] + "Z",
            "level": event.level,
            "logger": event.logger,
            "message": _cut(event.message),
        }
        if event.request:
            facts["requestId"] = event.request
        if more:
            facts["moreLikeIt"] = more
        if event.traceback:
            facts["traceback"] = "\n".join(map(_cut, event.traceback))
        return msgspec.json.encode(facts)

    def said(self, text: str) -> bytes:
        """Write it as it is, or as an event."""
        if not self._says_all:
            return log_line(text)
        return self.event(Event(datetime.now().timestamp(), "INFO", "execsrv", text))

    def dropped(self, count: int) -> bytes:
        """Write it as an event."""
        text = f"{count} messages were dropped, since they could not be written"
        return self.event(Event(datetime.now().timestamp(), "WARNING", "execsrv", text))


def _cut(text: str) -> str:
    """Return text that JSON can hold, of bounded length."""
    text = in_utf8(text[:LINE_BYTES]) + "..." * (len(text) > LINE_BYTES)
    return text if text.isprintable() else "".join(c if c.isprintable() else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()
