"""The memory of what has ended goes back to the machine.

What Python frees, the C library keeps for the next one who asks, for as long as anything behind it in its heap is in
use: all the output of one peer, because of the next line of another. glibc gives it back when told to, which takes
microseconds where there is little to give. Other libraries are left to themselves.
"""

from __future__ import annotations

import ctypes

import trio

_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)


def give_back_soon() -> None:
    """Give back what is free in the next turn of the loop: until then the caller's own frames hold what has ended."""
    if _trim is not None:
        trio.lowlevel.current_trio_token().run_sync_soon(_give_back, idempotent=True)


def _give_back() -> None:
    assert _trim is not None
    _trim(0)
