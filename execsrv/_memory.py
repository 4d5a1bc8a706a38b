"""Free memory, given back to the system.

The allocator of glibc keeps what was freed below anything that is still in use. So a few bytes of one peer may hold the
hundreds of megabytes that another one's output took. The allocator serves the whole process and is busy while it gives
back, so only a process of our own does that (`give_back`). Elsewhere `freed` does nothing.
"""

from __future__ import annotations

import ctypes
from contextlib import suppress
from functools import partial

import trio

from execsrv._threads import run_in_thread
from execsrv.errors import BusyError

_PAUSE_SECONDS = 1.0
"""So long it waits after the news: the last references go meanwhile, and all that ends then is given back at once."""

_news: trio.lowlevel.RunVar[trio.Event | None] = trio.lowlevel.RunVar("freed memory", None)


def freed() -> None:
    """Tell that something large may just have been let go of."""
    if (news := _news.get()) is not None:
        news.set()


async def give_back() -> None:
    """Give memory back each time after some was freed, for ever. Returns at once where the C library cannot do it."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is None:
        return
    limiter = trio.CapacityLimiter(1)
    _news.set(news := trio.Event())
    while True:
        await news.wait()
        await trio.sleep(_PAUSE_SECONDS)
        _news.set(news := trio.Event())  # before: on a busy machine more is freed while it gives back
        with suppress(BusyError):  # no thread is to be had: the next time does it
            await run_in_thread(partial(trim, 0), limiter)
