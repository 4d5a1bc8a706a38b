"""The stdin of a command that runs on a server: a stream of what our own gives, as far as there is one to read."""

from __future__ import annotations

import os
import signal
import stat
from collections.abc import Callable

import trio

from execsrv._cli.streams import missing
from execsrv._cli.terminal import Escape, in_background
from execsrv._wire.stdio import read_shared
from execsrv.client import Process
from execsrv.errors import ConnectionLostError, StdinClosedError, UnknownProcessError

_BACKGROUND_SECONDS = 0.2
"""The pause between two looks of a job in the background whether it is in front."""

_NULL_DEVICE = os.makedev(1, 3)


def has_stdin() -> bool:
    """Tell whether there is anything to pass on. Nothing is where stdin is /dev/null, or was closed at our start."""
    status = os.fstat(0)
    return 0 not in missing and not (stat.S_ISCHR(status.st_mode) and status.st_rdev == _NULL_DEVICE)


async def pass_stdin(process: Process, escape: Escape | None, touched: Callable[[], None]) -> bool:
    """Pass our stdin on until the end of either. Return whether the user has typed the escape.

    One that cannot be read is empty. A terminal is left alone as long as another job of it is in front.
    """
    signal.signal(signal.SIGTTIN, signal.SIG_IGN)  # then reading fails instead
    try:
        while data := await read_stdin():
            touched()
            await process.write(data if escape is None else escape.take(data))
            if escape is not None and escape.is_complete:
                return True
        await process.close_stdin()
    except (StdinClosedError, UnknownProcessError, ConnectionLostError):
        pass  # it reads no more; its output tells the rest
    return False


async def read_stdin() -> bytes:
    """Return the next of our stdin, empty at its end. A terminal that another job has in front is waited for."""
    while True:
        if not in_background():
            try:
                return await read_shared(0)
            except OSError:
                if not in_background():
                    return b""
        await trio.sleep(_BACKGROUND_SECONDS)
