"""Looks of an agent at a process that one of its sessions is: who waits for input, and when nothing lives any more.

A server that has no room for another request at the moment is asked again: to look is nobody's wish, and so never fails
what goes on beside it.
"""

from __future__ import annotations

import trio

from execsrv.client import Happened, Process
from execsrv.errors import BusyError, ConnectionLostError, LimitExceededError, ProcessEndedError, WaitTimeoutError
from execsrv.protocol import InputWait

_NOT_NOW = BusyError, LimitExceededError

_BUSY_SECONDS = 0.5
"""The pause before a server is asked again that had no room."""

_STALE_SECONDS = 0.05
"""The pause before another look at a process that has not been awake since it was written to."""


async def until_nothing_lives(process: Process) -> None:
    """Wait until nothing of a process lives. Raises `ConnectionLostError`, and `RequestError` for what was refused."""
    while True:
        try:
            await process.wait_for(tree_empty=True)
            return
        except _NOT_NOW:
            await trio.sleep(_BUSY_SECONDS)


async def until_input(process: Process, before: InputWait | None) -> Happened | None:
    """Wait until a process waits for input, another of it than `before` or that one once more. None where none will."""
    while True:
        try:
            happened = await process.wait_for(input=True)
        except (ProcessEndedError, ConnectionLostError):
            return None
        except _NOT_NOW:
            await trio.sleep(_BUSY_SECONDS)
            continue
        if happened.kind == "input" and happened.input != before:
            return happened
        await trio.sleep(_STALE_SECONDS)


async def input_now(process: Process) -> InputWait | None:
    """Return the process of it that waits for input at this moment, as far as the server can tell."""
    try:
        return (await process.wait_for(input=True, timeout=0)).input
    except (WaitTimeoutError, ProcessEndedError, *_NOT_NOW):
        return None
