"""Threads for what may block: each user has its own limiter, so that nobody takes the places of others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import trio

from execsrv.errors import BusyError

T = TypeVar("T")

_NO_THREAD = "can't start new thread"
"""The standard library tells of it by this text alone."""


async def run_in_thread(work: Callable[[], T], limiter: trio.CapacityLimiter) -> T:
    """Return what `work` returns in a thread. Raises `BusyError` where the machine gives no thread.

    Cancelling leaves the thread behind, since it cannot be made to stop waiting.
    """
    with needing_threads():
        return await trio.to_thread.run_sync(work, limiter=limiter, abandon_on_cancel=True)


@contextmanager
def needing_threads() -> Iterator[None]:
    """Raise `BusyError` when the block could not start a thread."""
    try:
        yield
    except RuntimeError as error:
        if str(error) != _NO_THREAD:
            raise
        raise BusyError("no thread is to be had on the server's machine: try again later") from error
