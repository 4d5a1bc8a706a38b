"""`execsrv bridge`: the far end of a connection that may be cut, as `connect` runs it by ssh or in a container.

    execsrv bridge           copies bytes between its stdin and stdout and the server; ends with either
       || unix socket
    execsrv bridge, forked   a server that keeps a lost connection for the grace, and ends with its last one

They meet in a folder below TMPDIR that only this user may enter. A later bridge of the same name finds the server
there, and takes the place of the one before. A client that leaves says so (`$/leaving`): then the bridge ends the
server, and waits for its end. The server removes the folder, which it holds a lock on from first to last.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import signal
import socket
import struct
import tempfile
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from execsrv._cli.config import load
from execsrv._cli.serve import DaemonOptions, run_daemon
from execsrv._cli.streams import say
from execsrv._wire.last_word import Follower
from execsrv._wire.owners import is_private_directory, open_private_directory
from execsrv._wire.writing import write_all
from execsrv.errors import ExecsrvError

_READ_BYTES = 256 * 1024
_NAME = re.compile(r"[\w-]{1,64}", re.A)


def bridge(name: str, grace: str) -> int:
    """Join stdin and stdout to the server of that name. Where there is none, start one with this `resume_grace`.

    Return the exit status of the server, in the process that has become it. Raises `ExecsrvError`.
    """
    if not _NAME.fullmatch(name):
        raise ExecsrvError(f"invalid name `{name}`; expected up to 64 letters, digits, `-` and `_`")
    flags = {"resume_grace": grace, "web": False, "metrics_listen": ""}  # nothing that is for others
    load(flags, os.environ)
    path = _folder_path(name)
    try:
        folder = open_private_directory(path)
    except OSError as error:
        raise ExecsrvError(f"cannot use {path}: {error.strerror}") from error
    server = _connected(folder)
    if server is None:
        told, tells = os.pipe()
        if os.fork() == 0:
            return _become_server(path, folder, tells, flags)
        os.close(tells)
    try:  # from here on the folder is the server's: however this process ends, it removes nothing
        for number in (signal.SIGHUP, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        if server is None:
            os.read(told, 1)  # its URL, once it listens; nothing if it cannot
            server = _connected(folder)
        if server is None:
            say(f"execsrv: cannot start a server in {path}")
            os._exit(1)
        _copy(folder, server)
    finally:
        os._exit(0)


def _folder_path(name: str) -> str:
    """Return the path of our folder of that name: where it is or, where there is none, where one can be made.

    Only the second writes: a disk may be full when a client comes back, and its folder would be looked for elsewhere.
    """
    variables = (os.environ.get(variable) for variable in ("TMPDIR", "TEMP", "TMP"))
    for place in filter(None, (*variables, "/tmp", "/var/tmp", "/usr/tmp")):  # in the order of tempfile
        path = os.path.abspath(os.path.join(place, f"execsrv-{name}"))
        if is_private_directory(path):
            return path
    return os.path.join(tempfile.gettempdir(), f"execsrv-{name}")


def _socket_path(folder: int) -> str:
    """Return a path to the socket that is short, as it has to be, and in the very folder that was looked at."""
    return f"/proc/self/fd/{folder}/socket"


def _connected(folder: int) -> socket.socket | None:
    server = socket.socket(socket.AF_UNIX)
    try:
        server.connect(_socket_path(folder))
    except (FileNotFoundError, ConnectionRefusedError):
        server.close()
        return None
    return server


def _become_server(path: str, folder: int, tells: int, flags: Mapping[str, Any]) -> int:
    """Serve in a session of our own, with no stream of whoever has started us. Return the exit status."""
    try:
        os.setsid()
        nothing = os.open(os.devnull, os.O_RDWR)
        for descriptor, target in ((nothing, 0), (tells, 1), (nothing, 2)):
            os.dup2(descriptor, target)
        os.closerange(3, folder)
        os.closerange(folder + 1, os.sysconf("SC_OPEN_MAX"))
        fcntl.flock(folder, fcntl.LOCK_EX)
        listen = f"unix://{_socket_path(folder)}"
        return run_daemon(load({**flags, "listen": listen}, os.environ), DaemonOptions(single=True))
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _copy(folder: int, server: socket.socket) -> None:
    """Copy both ways until one side ends. After a last word, wait for the end of the server."""
    leaving = threading.Event()
    copying = threading.Thread(target=_copy_in, args=[folder, server, leaving], daemon=True)
    copying.start()
    is_heard = True
    with suppress(OSError):
        while data := server.recv(_READ_BYTES):
            if is_heard:
                try:
                    write_all(1, data)
                except OSError:
                    is_heard = False  # there may be a last word, so the server is not to be held up
    if leaving.is_set():
        copying.join()


def _copy_in(folder: int, server: socket.socket, leaving: threading.Event) -> None:
    """Copy stdin to the server until its end. End the server too if that was said last, and wait for its end."""
    client = Follower()
    with suppress(OSError):
        while data := os.read(0, _READ_BYTES):
            client.feed(data)
            server.sendall(data)
    if client.is_leaving:
        leaving.set()
        pid, _, _ = struct.unpack("3i", server.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        fcntl.flock(folder, fcntl.LOCK_EX)
        with suppress(ChildProcessError):  # an earlier bridge has started it
            os.waitpid(pid, 0)
    with suppress(OSError):
        server.shutdown(socket.SHUT_WR)
