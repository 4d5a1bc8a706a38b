"""Sockets that a service manager has opened for us before our start: `fd://`, as sd_listen_fds(3) has it.

Peers that come while the server is not up yet wait in them, and its directory, user and mode are the manager's.
"""

from __future__ import annotations

import os
import socket

_FIRST = 3
"""The descriptor of the first one, SD_LISTEN_FDS_START."""

_VARIABLES = ("LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES")


def is_passed_url(url: str) -> bool:
    """Return True for `fd://` and `fd://NAME`."""
    return url.startswith("fd://")


def taken_socket(url: str) -> socket.socket:
    """Return the listening socket that was passed to this process, of that name where there are several.

    The variables that tell of it go, so that no command takes them for its own. Raises `OSError`.
    """
    count, pid, names = (os.environ.pop(name, "") for name in _VARIABLES)
    if pid != str(os.getpid()) or not count.isdecimal() or int(count) < 1:
        raise OSError(0, "no socket was passed to this process: that is done by systemd, with a socket unit")
    wanted, known = url.removeprefix("fd://"), names.split(":")
    if wanted:
        if wanted not in known[: int(count)]:
            raise OSError(0, f"no socket of that name was passed; there are {', '.join(known)}")
        number = known.index(wanted)
    elif int(count) > 1:
        raise OSError(0, f"{count} sockets were passed; say which one, as `fd://NAME`")
    else:
        number = 0
    descriptor = _FIRST + number
    os.set_inheritable(descriptor, False)
    passed = socket.socket(fileno=descriptor)
    if passed.type != socket.SOCK_STREAM or not passed.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        passed.detach()
        raise OSError(0, "the socket that was passed is none that listens for streams")
    if passed.family not in (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6):
        passed.detach()
        raise OSError(0, "the socket that was passed is neither a unix socket nor one of TCP")
    return passed
