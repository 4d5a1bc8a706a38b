"""Listening on a unix socket that belongs to one user, and connecting to one."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager

import trio

from execsrv.errors import InvalidListenURLError

_PREFIX = "unix://"


def is_unix_url(url: str) -> bool:
    """Whether this URL asks for a unix socket."""
    return url.startswith(_PREFIX)


def parse_path(url: str, option: str = "--listen") -> str:
    """The path in `unix://PATH`. Raises `InvalidListenURLError`, which names the option that the URL came from."""
    path = url.removeprefix(_PREFIX)
    if not path or "\0" in path:
        raise InvalidListenURLError(f"invalid unix {option} URL `{url}`; expected `unix://PATH`")
    return path


@contextmanager
def listening(path: str, backlog: int = 128) -> Iterator[trio.SocketListener]:
    """A listener at `path`, which only this user may open; leaving removes the path.

    A socket that nobody listens on any more is replaced. Raises `OSError` when the path is taken by anything else.
    """
    _remove_stale(path)
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind(path)
        mine = os.stat(path)
        try:
            os.chmod(path, 0o600)  # nobody can connect before `listen`, so there is no moment in between
            listener.listen(backlog)
            yield trio.SocketListener(trio.socket.from_stdlib_socket(listener))
        finally:
            _remove_own(path, mine)
    finally:
        listener.close()


def _remove_stale(path: str) -> None:
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise FileExistsError(errno.EEXIST, "exists and is not a socket", path)
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except BlockingIOError:
            pass  # somebody listens, and is busy
    raise OSError(errno.EADDRINUSE, "another server listens there", path)


def _remove_own(path: str, mine: os.stat_result) -> None:
    """Remove the path unless another server has taken it meanwhile."""
    try:
        if os.path.samestat(os.stat(path), mine):
            os.unlink(path)
    except FileNotFoundError:
        pass
