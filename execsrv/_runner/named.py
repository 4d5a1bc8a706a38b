"""What a runner opens by name: a unix socket, or FIFOs, that the server has made before it started the runner.

A name may be somebody else's, so more is asked of it than of a descriptor that was inherited: what is there belongs to
this user, to root or to a user whom the command line names, nobody else may open it, and nobody else listens there.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Collection, Iterator
from contextlib import contextmanager

import trio

from execsrv._wire.owners import check_directory, check_listener, is_trusted
from execsrv.errors import ConnectionFailedError

CONNECT_SECONDS = 15

_RETRY_SECONDS = 0.02
"""The time between two attempts where the backlog of a socket is full: nothing tells when it is not."""


async def open_socket(path: str, peers: Collection[int]) -> int:
    """Connect to a unix socket, and return its descriptor. Raises `ConnectionFailedError`."""
    with _opening(path), socket.socket(socket.AF_UNIX) as stream:
        check_directory(path, peers)
        stream.setblocking(False)
        with trio.fail_after(CONNECT_SECONDS):
            while True:
                try:
                    stream.connect(path)
                    break
                except BlockingIOError:
                    await trio.sleep(_RETRY_SECONDS)
        check_listener(stream, peers)
        return stream.detach()


async def open_fifo(path: str, way: int, peers: Collection[int]) -> int:
    """Open a FIFO one way, `os.O_RDONLY` or `os.O_WRONLY`, once somebody has its other end. Return its descriptor.

    Raises `ConnectionFailedError`.
    """
    with _opening(path):
        found = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            facts = os.fstat(found)
            if not stat.S_ISFIFO(facts.st_mode):
                raise OSError(errno.EINVAL, "it is no FIFO", path)
            check_own(facts, peers)
            with trio.fail_after(CONNECT_SECONDS):
                return await trio.to_thread.run_sync(
                    os.open,
                    f"/proc/self/fd/{found}",  # the very file that was looked at
                    way | os.O_CLOEXEC,
                    limiter=trio.CapacityLimiter(1),
                    abandon_on_cancel=True,
                )
        finally:
            os.close(found)


def check_own(facts: os.stat_result, peers: Collection[int]) -> None:
    """Raise `PermissionError` for a file of another user, and for one that others may open."""
    if not is_trusted(facts.st_uid, peers):
        raise PermissionError(errno.EPERM, f"it belongs to another user (uid {facts.st_uid})")
    if stat.S_IMODE(facts.st_mode) & 0o077:
        raise PermissionError(errno.EPERM, "others may open it")


@contextmanager
def _opening(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConnectionFailedError(f"cannot open {path}: {error.strerror or error}") from error
    except trio.TooSlowError:
        message = f"cannot open {path}: nobody had the other end within {CONNECT_SECONDS} s"
        raise ConnectionFailedError(message) from None
