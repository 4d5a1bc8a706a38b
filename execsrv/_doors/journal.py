"""The journal: whoever wants to know of every start and every end is told here. Pure: no I/O.

    Journal              of a server: those who are told
    └─ Page              of a connection: who has it, and from where
       └─ Start          of a session, from the request for it to its end

No secret comes in: neither tokens, nor environments, nor what commands read and print. Arguments may hold some, so they
are noted only where that was asked for.
"""

from __future__ import annotations

import resource
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from execsrv._doors.principal import Principal
from execsrv._log.log import OutputLog
from execsrv.protocol import Stream


class Usage(NamedTuple):
    """The time that processors gave to a leader and to those whose end it has waited for.

    Memory is not in it: the kernel counts that of the server with it, whose memory a command has for its first instant.
    """

    user_seconds: float
    system_seconds: float


class End(NamedTuple):
    """The end of a session. `usage` is None where the system did not tell."""

    reason: str
    exit_code: int
    signal: str | None
    seconds: float
    totals: Mapping[Stream, int]
    omitted: int
    usage: Usage | None


def _end_of(log: OutputLog, used: resource.struct_rusage | None, seconds: float) -> End:
    """Return what there is to say of a session that is over, by its log."""
    usage = None if used is None else Usage(used.ru_utime, used.ru_stime)
    rest = seconds, log.totals, log.reader.omitted_bytes, usage
    if log.exited is None:  # it was cut off from its end
        return End("disconnected", 255, None, *rest)
    return End(log.exited.reason, log.exited.exit_code, log.exited.signal, *rest)


class Start:
    """A session from the request for it on. Those who are told may note something of their own in `marks`.

    `argv` is empty where nobody wants it. `pid` and `log` are there once it runs.
    """

    __slots__ = ("argv", "began", "id", "is_terminal", "log", "marks", "page", "pid", "program")

    def __init__(
        self, page: Page, id: str, program: str, argv: Sequence[str], began: float, *, is_terminal: bool
    ) -> None:
        self.page = page
        self.id = id
        self.program = program
        self.argv = argv
        self.began = began
        self.is_terminal = is_terminal
        self.pid = 0
        self.log: OutputLog | None = None
        self.marks: dict[str, Any] = {}

    def variables(self, sent: Mapping[str, str]) -> dict[str, str]:
        """Return what the command is to have in its environment beside what was sent."""
        told: dict[str, str] = {}
        for observer in self.page.observers:
            told |= observer.variables(self, sent.get("TRACEPARENT", ""))
        return told


class Observer(Protocol):
    """Somebody who is told. Nothing that it does may wait, or fail."""

    def variables(self, start: Start, parent: str) -> dict[str, str]:
        """Return what the command is to have in its environment besides. `parent` is the TRACEPARENT that was sent.

        It may be called in a thread.
        """

    def started(self, start: Start) -> None:
        """Take note of a command that runs."""

    def failed(self, start: Start, error: Exception) -> None:
        """Take note of one that could not be started."""

    def ended(self, start: Start, end: End) -> None:
        """Take note of the end of one."""

    def resumed(self, page: Page, origin: str) -> None:
        """Take note that a connection which had lost its channel goes on with another one, from there."""


class Silent:
    """An observer that needs to know of nothing: the base of those who need to know of a part."""

    def variables(self, start: Start, parent: str) -> dict[str, str]:
        """Return nothing."""
        return {}

    def resumed(self, page: Page, origin: str) -> None:
        """Take no note."""


class Journal:
    """All that is told of one server, and its observers."""

    def __init__(self) -> None:
        self.observers: list[Observer] = []
        self._connections = 0

    def __repr__(self) -> str:
        return f"<Journal observers={len(self.observers)}>"

    def new_page(self, principal: Principal, origin: str, *, with_argv: bool) -> Page:
        """Return the page of a new connection."""
        self._connections += 1
        return Page(self, self._connections, principal, origin, with_argv)


class Page:
    """The page of one connection. `number` names it: its id is a secret."""

    def __init__(self, journal: Journal, number: int, principal: Principal, origin: str, with_argv: bool) -> None:
        self.number = number
        self.principal = principal
        self.origin = origin
        self.observers = journal.observers
        self._with_argv = with_argv

    def __repr__(self) -> str:
        return f"<Page {self.number} of {self.principal}>"

    def begin(self, id: str, program: str, argv: Sequence[str], now: float, *, is_terminal: bool) -> Start | None:
        """Note that a start was asked for. None where nobody reads that."""
        if not self.observers:
            return None
        return Start(self, id, program, argv if self._with_argv else (), now, is_terminal=is_terminal)

    def started(self, start: Start, pid: int, log: OutputLog) -> None:
        """Note that it runs."""
        start.pid, start.log = pid, log
        for observer in self.observers:
            observer.started(start)

    def failed(self, start: Start, error: Exception) -> None:
        """Note that it could not be started."""
        for observer in self.observers:
            observer.failed(start, error)

    def ended(self, start: Start, log: OutputLog, used: resource.struct_rusage | None, now: float) -> None:
        """Note its end, as the log has it."""
        end = _end_of(log, used, now - start.began)
        start.log = None
        for observer in self.observers:
            observer.ended(start, end)

    def resumed(self, origin: str) -> None:
        """Note that the connection goes on with another channel."""
        for observer in self.observers:
            observer.resumed(self, origin)
