"""The memory that one piece of file work needs, taken from a budget while the work goes on in its thread.

The work is far from the call that it is done for, so it finds the holding by the context of its thread.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import trio

from execsrv._budget.allowance import Allowance
from execsrv._files.roots import failure

FREE_BYTES = 64 * 1024
"""A thread may have so much without asking: to ask costs more than to read it."""


class _Holding:
    """What the work of one thread has taken. It is given back when its result is handed over."""

    def __init__(self, allowance: Allowance) -> None:
        self._allowance = allowance
        self._taken = 0
        self._over = False

    def take(self, size: int) -> None:
        self._check()
        self._allowance.for_files.take(size)
        self._taken += size

    def write(self, size: int) -> None:
        self._check()
        self._allowance.written.take(size)

    def close(self) -> None:
        self._over = True
        self._allowance.for_files.give(self._taken)

    def _check(self) -> None:
        if self._over:  # nobody waits for the thread any more
            raise failure(errno.ECANCELED)


_current: ContextVar[_Holding | None] = ContextVar("the holding of this thread's work", default=None)


@contextmanager
def holding(allowance: Allowance) -> Iterator[None]:
    """Let the threads that this block waits for hold memory, until it is left."""
    held = _Holding(allowance)
    token = _current.set(held)
    try:
        yield
    finally:
        _current.reset(token)
        held.close()


def hold(size: int) -> None:
    """Take so much memory, for a thread. Raises `LimitExceededError`."""
    if size > 0 and (held := _current.get()) is not None:
        trio.from_thread.run_sync(held.take, size)


def note_written(size: int) -> None:
    """Count what a thread is about to write. Raises `LimitExceededError`."""
    if (held := _current.get()) is not None:
        trio.from_thread.run_sync(held.write, size)
