"""A server's process, or the program that leads to it: started for one block, and ended with it."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress

import trio

from execsrv._wire.forks import keep_from_forks
from execsrv.client.stdio import shortened
from execsrv.errors import ConnectionFailedError

logger = logging.getLogger(__name__)

_GRACE_SECONDS = 5.0

_KILLED_SECONDS = 5.0
"""Time for one that was killed: the kernel may be busy with it."""


@asynccontextmanager
async def launched(
    argv: list[str], *, env: Mapping[str, str] | None = None, stderr: int | None = None
) -> AsyncIterator[trio.Process]:
    """Start a program with pipes as its stdin and stdout, in a session of its own.

    Leaving the block waits until it has ended, since its stdin is closed by then. What takes longer than 5 s is killed,
    and left behind where that does not end it within 5 s more. Raises `ConnectionFailedError`.
    """
    try:
        process = await trio.lowlevel.open_process(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, env=env, start_new_session=True
        )
    except (OSError, ValueError) as error:
        path = (os.environ if env is None else env).get("PATH")
        if isinstance(error, FileNotFoundError) and "/" not in argv[0] and not shutil.which(argv[0], path=path):
            raise ConnectionFailedError(f"cannot find `{argv[0]}` in PATH", is_final=True) from error
        why = getattr(error, "strerror", None) or str(error)
        raise ConnectionFailedError(f"cannot start {shortened(argv)}: {why}") from error
    for stream in (process.stdin, process.stdout):
        if isinstance(stream, trio.lowlevel.FdStream):
            keep_from_forks(stream)
    try:
        yield process
    finally:
        await _end(process)


@trio.lowlevel.enable_ki_protection
async def _end(process: trio.Process) -> None:
    """Wait for a program whose stdin is closed, and kill it when that takes too long. An interrupt comes after that."""
    with trio.CancelScope(shield=True):
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                await trio.aclose_forcefully(stream)
        with trio.move_on_after(_GRACE_SECONDS):
            await process.wait()
        if process.returncode is None:
            with suppress(PermissionError):  # it may be another user's by now, as with sudo
                process.kill()
            with trio.move_on_after(_KILLED_SECONDS):
                await process.wait()
        if process.returncode is None:
            logger.warning("pid %d has not ended within %g s of its kill: left behind", process.pid, _KILLED_SECONDS)
        if process.stderr is not None:  # not before: it may have last words
            await trio.aclose_forcefully(process.stderr)
