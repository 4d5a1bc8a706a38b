"""Whose a directory or a unix socket is, and the one directory that only this user may enter.

Modes alone tell little: who owns a directory, or may write to it, decides what is found at a path below it. And a
socket's file says nothing of who listens: the kernel does.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import struct
from collections.abc import Collection

_CREDENTIALS = struct.Struct("3i")
"""`struct ucred` of <sys/socket.h>: pid, uid, gid."""

_ROOT = 0

_MAX_PATH = 107
"""The bytes of a path in `struct sockaddr_un`, which ends with a NUL."""


def check_directory(path: str, allowed: Collection[int] = ()) -> None:
    """Look at the directory that `path` is in. Raises `PermissionError` where another user could swap what is there.

    It has to belong to this user, to root or to one of `allowed`. Where everybody may write, nobody may remove what is
    another's, as in `/tmp`. Raises `OSError` where there is none, and for a path that no socket can have.
    """
    if len(os.fsencode(path)) > _MAX_PATH:
        raise OSError(errno.ENAMETOOLONG, "unix socket path too long", path)
    directory = os.path.dirname(path) or "."
    facts = os.stat(directory)
    if not is_trusted(facts.st_uid, allowed):
        raise PermissionError(0, f"its directory belongs to another user (uid {facts.st_uid})", path)
    if facts.st_mode & stat.S_IWOTH and not facts.st_mode & stat.S_ISVTX:
        raise PermissionError(0, "every user may remove what is in its directory", path)


def check_listener(connection: socket.socket, allowed: Collection[int] = ()) -> None:
    """Look at who listens at the other end of a unix socket. Raises `PermissionError` for another user."""
    size = _CREDENTIALS.size
    _, uid, _ = _CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    if not is_trusted(uid, allowed):
        raise PermissionError(0, f"another user (uid {uid}) listens there")


def is_trusted(uid: int, allowed: Collection[int]) -> bool:
    """Tell whether what belongs to that user is this user's own, root's, or of one who is allowed."""
    return uid in (os.geteuid(), _ROOT) or uid in allowed


def open_private_directory(path: str) -> int:
    """Open a directory that nobody else can enter, and make it where it is not there. Raises `OSError`."""
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        pass
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    if _is_private(os.fstat(directory)):
        return directory
    os.close(directory)
    raise PermissionError(0, f"others may enter `{path}`", path)


def is_private_directory(path: str) -> bool:
    """Tell whether there is a directory that only this user can enter."""
    try:
        return _is_private(os.lstat(path))
    except OSError:
        return False


def _is_private(facts: os.stat_result) -> bool:
    is_mine = stat.S_ISDIR(facts.st_mode) and facts.st_uid == os.geteuid()
    return is_mine and not stat.S_IMODE(facts.st_mode) & 0o077


def default_socket() -> str:
    """Return the path of `unix://`: in this user's runtime directory, and below `/tmp` where there is none."""
    uid = os.geteuid()
    for directory in (os.environ.get("XDG_RUNTIME_DIR", ""), f"/run/user/{uid}"):
        if os.path.isabs(directory) and _is_mine(directory, uid):
            return f"{directory}/execsrv/socket"
    return f"/tmp/execsrv-{uid}/socket"


def _is_mine(directory: str, uid: int) -> bool:
    try:
        return os.stat(directory).st_uid == uid
    except OSError:
        return False
