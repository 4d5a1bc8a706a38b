"""Refusals of servers that have no room for a command: how to know them, and how long to go on asking others."""

from __future__ import annotations

import errno

import trio

from execsrv.errors import BusyError, ExecsrvError, LimitExceededError, NotReadyError, RequestError, SpawnError

_LIMITS = {"held_bytes", "max_sessions", "max_sessions_per_connection"}
_NUMBERS = {errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE}


def had_no_room(error: RequestError) -> bool:
    """Return True where a server has refused to start a command that another one may start, and has not started it."""
    if error.method != "process/start":
        return False
    match error:
        case BusyError() | NotReadyError():
            return True
        case LimitExceededError():
            return error.facts.get("limit") in _LIMITS
        case SpawnError():
            return error.stage == "resources" and error.errno in _NUMBERS
    return False


class Refusals:
    """The refusals that one command has met with, on all servers together."""

    __slots__ = ("_first", "_patience")

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._first: float | None = None

    def add(self, error: ExecsrvError) -> None:
        """Take note of one more. Raises it where they have gone on for too long."""
        now = trio.current_time()
        if self._first is None:
            self._first = now
        elif now - self._first >= self._patience:
            raise error
