"""Free memory, given back to the system.

The allocator of glibc keeps what was freed below anything that is still in use. So a few bytes of one peer may hold the
hundreds of megabytes that another one's output took. The allocator serves the whole process and is busy while it gives
back, so only a process of our own does that (`give_back`). Elsewhere `freed` and `let_go` do nothing.

A thread does it, and yet whoever needs memory meanwhile waits, as the allocator has one lock: 1 ms of processor time
for each 12 MB, and a multiple of it on a busy machine. So it is done in portions, with turns for the others between.
"""

from __future__ import annotations

import ctypes
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from functools import partial

import trio

from execsrv._threads import run_in_thread
from execsrv.errors import BusyError

_PAUSE_SECONDS = 1.0
"""So long it waits after the news: the last references go meanwhile, and all that ends then is given back at once."""

_PORTION_BYTES = 32 * 1024 * 1024
"""It does not wait when so much is free, and gives back no more at once."""

_TURN_BYTES = 8 * 1024 * 1024
"""Of so much it lets go in one turn."""


_ONE_ARENA = (-8, 1)
"""`M_ARENA_MAX` of mallopt(3): all threads share one arena. `malloc_trim` never gives back the end of another one."""

_KEPT_BYTES, _LARGE_BYTES = (-1, 2 * 1024 * 1024), (-3, 1024 * 1024)
"""`M_TRIM_THRESHOLD` and `M_MMAP_THRESHOLD`. By itself the allocator gives so little back so often that a stream of
chunks costs a page fault for each page of it: a third of the server's time."""


class _Free:
    """Memory that is free, or is to be freed portion by portion."""

    def __init__(self) -> None:
        self.held: deque[tuple[object, int]] = deque()
        self.taken()

    def taken(self) -> None:
        """Begin anew."""
        self.news, self.is_much, self._bytes = trio.Event(), trio.Event(), 0

    def add(self, size: int) -> None:
        self._bytes += size
        self.news.set()
        if self._bytes >= _PORTION_BYTES:
            self.is_much.set()

    def release(self) -> int:
        """Let go of what may go in one turn, and return how much that is."""
        size = 0
        while self.held and size < _TURN_BYTES:
            size += self.held.popleft()[1]
        return size


_free: trio.lowlevel.RunVar[_Free | None] = trio.lowlevel.RunVar("free memory", None)


def freed(size: int = 0) -> None:
    """Tell that something large may just have been let go of, of that size where it is known."""
    if (free := _free.get()) is not None:
        free.add(size)


def let_go(things: Iterable[tuple[object, int]]) -> None:
    """Take things, each with its size, of which the caller is about to let go, and do that portion by portion."""
    if (free := _free.get()) is not None:
        free.held.extend(things)
        free.add(0)


async def give_back() -> None:
    """Give memory back each time after some was freed, for ever. Returns at once where the C library cannot do it."""
    library = ctypes.CDLL(None)
    trim, set_option = getattr(library, "malloc_trim", None), getattr(library, "mallopt", None)
    if trim is None or set_option is None:
        return
    for option in (_ONE_ARENA, _KEPT_BYTES, _LARGE_BYTES):
        set_option(*option)
    limiter = trio.CapacityLimiter(1)
    free = _Free()
    _free.set(free)
    while True:
        await free.news.wait()
        with trio.move_on_after(_PAUSE_SECONDS):
            await free.is_much.wait()
        free.taken()
        is_first = True
        while is_first or free.held:
            is_first = False
            size = free.release()
            while free.held and size < _PORTION_BYTES:
                await trio.lowlevel.checkpoint()
                size += free.release()
            with suppress(BusyError):  # no thread is to be had: the next time does it
                await run_in_thread(partial(trim, 0), limiter)
