"""Listening on a unix socket that belongs to one user, and connecting to one.

Looking whether a socket is stale, removing it and binding a new one are three calls. So that two servers cannot do them
at once, and remove each other's socket, a server holds a lock on the file `PATH.lock` for as long as it listens.
Neither side goes to a place where another user could put a socket of its own, and a client looks who listens there.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

import trio

from execsrv._wire.forks import keep_from_forks
from execsrv._wire.owners import check_directory, check_listener, default_socket, open_private_directory
from execsrv._wire.passing_channel import PassingChannel
from execsrv.errors import ConnectionFailedError
from execsrv.limits import Limits

_BACKLOG = 4096
"""Peers that may wait to be accepted. The kernel cuts it to its own bound, `net.core.somaxconn`."""

_RETRY_SECONDS = 0.02
"""The time between two attempts to connect to a server that has no room in its backlog: nothing tells when it has."""


Admit = Callable[[Collection[int]], None]
"""Has a socket that exists be opened by other `allow_uids` from now on. Raises `OSError`."""


@contextmanager
def listening(path: str = "", allow_uids: Collection[int] = ()) -> Iterator[tuple[trio.SocketListener, str, Admit]]:
    """Listen at `path`, which only this user may open, and give the path too; leaving removes it.

    With `allow_uids` everybody may open it, since a file can tell no list of users: who it is, is for the server to
    look. Without a path it is `default_socket`, for which a directory is made. A socket that nobody listens on any more
    is replaced. Raises `OSError` when the path is taken by anything else, or in a directory where another user could
    replace it.
    """
    if not path:
        path = default_socket()
        os.close(open_private_directory(os.path.dirname(path)))
    check_directory(path, allow_uids)
    mode = _mode(allow_uids)
    with _locked(path), socket.socket(socket.AF_UNIX) as listener:
        _remove_stale(path)
        os.fchmod(listener.fileno(), mode)  # the mode that it will be made with, but for a umask
        listener.bind(path)
        mine = os.lstat(path)

        def admit(uids: Collection[int]) -> None:
            nonlocal mode
            if _mode(uids) != mode:  # else it stays what others have made of it
                _set_mode(path, mine, _mode(uids))
                mode = _mode(uids)

        try:
            if stat.S_IMODE(mine.st_mode) != mode:  # a umask has taken something of it
                _set_mode(path, mine, mode)  # nobody can connect before `listen`, so there is no moment in between
            listener.listen(_BACKLOG)
            yield trio.SocketListener(trio.socket.from_stdlib_socket(listener)), path, admit
        finally:
            with suppress(FileNotFoundError):
                if os.path.samestat(os.lstat(path), mine):  # nobody has put something else there
                    os.unlink(path)


def _mode(allow_uids: Collection[int]) -> int:
    return 0o666 if allow_uids else 0o600


def _set_mode(path: str, made: os.stat_result, mode: int) -> None:
    """Set the mode of a socket that we have made. A path that leads elsewhere is not followed."""
    socket_file = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if os.path.samestat(os.fstat(socket_file), made):
            os.chmod(f"/proc/self/fd/{socket_file}", mode)
    finally:
        os.close(socket_file)


@contextmanager
def _locked(path: str) -> Iterator[None]:
    """Hold the lock on the file beside the socket. Raises `OSError`, also when another server holds it."""
    name = f"{path}.lock"
    while True:
        try:
            lock = os.open(name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise OSError(error.errno, f"cannot open the lock `{name}`: {error.strerror}", name) from None
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise OSError(errno.EADDRINUSE, "another server listens there", path) from None
            if os.fstat(lock).st_uid != os.geteuid():
                raise PermissionError(errno.EPERM, f"the lock `{name}` belongs to another user", name)
            if not _is_at(lock, name):
                continue  # its holder has just removed it: a lock on it keeps nobody out
            try:
                yield
            finally:
                if _is_at(lock, name):  # and not that of another server, after somebody has removed ours
                    with suppress(FileNotFoundError):
                        os.unlink(name)  # before the lock goes, so that nobody takes it in between
            return
        finally:
            os.close(lock)


def _is_at(descriptor: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except FileNotFoundError:
        return False


def _remove_stale(path: str) -> None:
    """Remove a socket that nobody listens on. Raises `OSError` for anything else that is there."""
    try:
        mode = os.lstat(path).st_mode
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


@asynccontextmanager
async def open_unix(path: str, limits: Limits, server_uids: Collection[int] = ()) -> AsyncIterator[PassingChannel]:
    """Open a channel to the server at `path`, or at `default_socket` without one; leaving closes it.

    Raises `ConnectionFailedError`. A server of another user is refused, unless it is root or one of `server_uids`. One
    whose backlog is full is tried again, for as long as a handshake may take.
    """
    path = path or default_socket()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.setblocking(False)
        try:
            if not path.startswith("\0"):  # which is a name, and in no directory
                check_directory(path, server_uids)
            with trio.fail_after(limits.handshake_timeout):
                while not _connect(connection, path):  # noqa: ASYNC110  # nothing tells
                    await trio.sleep(_RETRY_SECONDS)
            check_listener(connection, server_uids)
        except trio.TooSlowError as error:
            text = f"cannot connect to `{path}`: not accepted within {limits.handshake_timeout} s"
            raise ConnectionFailedError(text) from error
        except OSError as error:
            raise ConnectionFailedError(f"cannot connect to `{path}`: {error.strerror or error}") from error
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(connection))
        keep_from_forks(stream)
        channel = PassingChannel(stream, limits)
        try:
            yield channel
        finally:
            channel.passing.close()
            await trio.aclose_forcefully(stream)


def _connect(connection: socket.socket, path: str) -> bool:
    """Connect, and return False where the backlog is full. A unix socket is connected at once, or not at all."""
    try:
        connection.connect(path)
    except BlockingIOError:
        return False
    return True
