"""Cancels that come too late: the call is over, and its value on the way to whoever has made it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio

from execsrv._portal import thread
from execsrv._portal.calls import Call
from tests.peers import PATIENCE


async def cancelled_late(awaitable: Awaitable[object]) -> None:
    """Cancel a call of `execsrv.asyncio` when it is over in the portal's thread, and nothing of that has come here."""
    loop, is_awaited, is_over = asyncio.get_running_loop(), threading.Event(), threading.Event()
    portal = thread._current
    assert portal is not None
    portal.post(is_awaited.wait)
    tell = loop.call_soon_threadsafe

    def tell_and_note(*args: Any, **options: Any) -> Any:
        told = tell(*args, **options)
        is_over.set()
        return told

    loop.call_soon_threadsafe = tell_and_note  # type: ignore[assignment, method-assign]
    try:
        task = asyncio.ensure_future(awaitable)
        await asyncio.sleep(0)  # which begins it
        is_awaited.set()
        assert is_over.wait(PATIENCE)  # and the loop does nothing meanwhile
    finally:
        loop.call_soon_threadsafe = tell  # type: ignore[method-assign]
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def undone_late(function: Callable[[], Awaitable[object]]) -> None:
    """Have a function of the client called as the portal does it for others, and cancelled when it is over."""
    over = trio.Event()
    async with trio.open_nursery() as nursery:
        call = Call(function, None, lambda: nursery, over.set, undoes=True)
        call.begin()
        with trio.fail_after(PATIENCE):
            await over.wait()
        call.cancel(lambda: None)
