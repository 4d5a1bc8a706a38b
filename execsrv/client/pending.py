"""A request on its way: what is known of it until it is answered, on whichever channel. Pure: no I/O."""

from __future__ import annotations

from collections.abc import Sequence

import trio

from execsrv._lent import Lent
from execsrv.protocol import Failure, ProcessStart, Request, Response

_NOT_AGAIN = {"process/signal", "fs/append", "http/request"}
"""Methods that must not be repeated without knowing whether they arrived: a second interrupt may mean another thing."""


class PendingCall:
    """A request on its way."""

    __slots__ = ("answer", "answered", "lent", "passes", "repeated", "request", "sent")

    def __init__(self, request: Request) -> None:
        self.request = request
        self.answered = trio.Event()
        self.answer: Response | Failure | None = None
        self.sent = False
        self.repeated = False
        self.passes = isinstance(request.params, ProcessStart) and request.params.pass_streams
        self.lent: Sequence[Lent] = ()
        """The descriptors that have come with the answer, where it `passes` some."""

    @property
    def may_be_repeated(self) -> bool:
        """True where it has the same effect twice as once."""
        return self.request.method not in _NOT_AGAIN
