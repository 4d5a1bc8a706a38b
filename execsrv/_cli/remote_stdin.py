"""The stdin of a command that runs on a server: a stream of what our own gives, as far as there is one to read."""

from __future__ import annotations

import errno
import os
import signal
import stat
from collections.abc import Callable
from contextlib import suppress

import trio

from execsrv._cli.streams import missing
from execsrv._cli.terminal import Escape, in_background
from execsrv._cli.typed_ahead import pass_typed
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


async def pass_stdin(process: Process, tty: bool, touched: Callable[[], None]) -> bool:
    """Pass our stdin on until the end of either. Return whether the user has typed the escape, at a terminal to one.

    One that cannot be read is empty. A terminal is left alone as long as another job of it is in front.
    Raises `OSError` where reading fails in the midst of it.
    """
    signal.signal(signal.SIGTTIN, signal.SIG_IGN)  # then reading fails instead
    reads_no_more = (StdinClosedError, UnknownProcessError, ConnectionLostError)  # its output tells the rest

    async def type_keys(keys: bytes) -> None:
        with suppress(*reads_no_more):
            await process.write(keys)

    with suppress(*reads_no_more):
        if tty and os.isatty(0):
            if await pass_typed(read_stdin, type_keys, Escape(), touched):
                return True
        else:
            while data := await read_stdin():
                touched()
                await process.write(data)
        await process.close_stdin()
    return False


async def read_stdin() -> bytes:
    """Return the next of our stdin, empty at its end. A terminal that another job has in front is waited for.

    Raises `OSError`, which says that it is stdin, where there may be more that cannot be read.
    """
    while True:
        if not in_background():
            try:
                return await read_shared(0)
            except OSError as error:
                if not in_background():
                    if _is_an_end(error):
                        return b""
                    raise OSError(error.errno, f"cannot read stdin: {error.strerror}") from None
        await trio.sleep(_BACKGROUND_SECONDS)


def _is_an_end(error: OSError) -> bool:
    """Tell whether nothing ever was to be read, as from a directory, or a terminal has gone."""
    return error.errno in (errno.EBADF, errno.EISDIR) or stat.S_ISCHR(os.fstat(0).st_mode)
