"""Waiting for the end of a process that need not be a child of ours."""

from __future__ import annotations

import os

import trio

from execsrv._processes import pidfd, proc

_ASKED_SECONDS = 0.001
"""The pause, at first, between two looks at a process that has no pidfd."""

_ROUND_SECONDS = 0.1


async def wait_gone(pid: int) -> None:
    """Wait until a process has ended, or for a moment where there is no descriptor to look with."""
    try:
        handle = pidfd.open_pidfd(pid)
    except ProcessLookupError:
        return
    except OSError:
        await trio.sleep(_ROUND_SECONDS)  # for a descriptor to look with
        return
    if handle is None:
        pause = _ASKED_SECONDS
        while _may_live(pid):
            await trio.sleep(pause)
            pause = min(2 * pause, _ROUND_SECONDS)
        return
    try:
        await trio.lowlevel.wait_readable(handle)
    finally:
        os.close(handle)


def _may_live(pid: int) -> bool:
    try:
        return proc.living(pid)
    except OSError:
        return True  # without a descriptor to look with nobody is gone
