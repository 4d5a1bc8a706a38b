"""`execsrv bridge`: the far end of a connection that may be cut, as `connect` runs it by ssh or in a container.

    execsrv bridge             ends with its stdin; copies bytes, and knows only one word
       || unix socket
    execsrv bridge, forked     a server that keeps a lost connection for the grace, and ends with its last one

A second bridge of the same name finds the server of the first. A client that leaves says so (`LEAVING`), and the server
ends at once.
"""

from __future__ import annotations

import os
import signal
import socket
import stat
import struct
import tempfile
import threading
from contextlib import suppress
from typing import NoReturn

from execsrv._cli.config import load
from execsrv._cli.serve import run_daemon
from execsrv._wire.lines import LEAVING
from execsrv._wire.stdio import write_all
from execsrv.errors import ExecsrvError
from execsrv.limits import ServerConfig

_READ_BYTES = 256 * 1024


def run_bridge(name: str, grace: str) -> int:
    """Join stdin and stdout to the server of that name. Where there is none, start one with this `resume_grace`.

    Return the exit status of the server, in the process that has become it. Raises `ExecsrvError`.
    """
    config = load({"resume_grace": grace}, os.environ).config
    path = os.path.join(_private_folder(), name)
    server = _connected(path)
    if server is None:
        told, tells = os.pipe()
        if os.fork() == 0:
            os.close(told)
            return _become_server(path, tells, config)
        os.close(tells)
        os.read(told, 1)  # its URL, once it listens; nothing if it cannot
        server = _connected(path)
    if server is None:
        os.write(2, f"execsrv: cannot start a server at {path}\n".encode())
        os._exit(1)
    _copy(server)


def _private_folder() -> str:
    """Return a folder that nobody else can write to. Raises `ExecsrvError`."""
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    folder = os.path.join(runtime if os.path.isdir(runtime) else tempfile.gettempdir(), f"execsrv-{os.getuid()}")
    with suppress(FileExistsError):
        os.mkdir(folder, 0o700)
    facts = os.lstat(folder)
    if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.getuid() or facts.st_mode & 0o077:
        raise ExecsrvError(f"cannot use {folder}: it is not a folder of this user alone")
    return folder


def _connected(path: str) -> socket.socket | None:
    server = socket.socket(socket.AF_UNIX)
    try:
        server.connect(path)
    except (FileNotFoundError, ConnectionRefusedError):
        server.close()
        return None
    return server


def _become_server(path: str, tells: int, config: ServerConfig) -> int:
    """Serve in a session of our own, with no stream of whoever has started us. Return the exit status."""
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor, target in ((nothing, 0), (tells, 1), (nothing, 2)):
        os.dup2(descriptor, target)
    os.close(nothing)
    os.close(tells)
    return run_daemon(f"unix://{path}", config, once=True)


def _copy(server: socket.socket) -> NoReturn:
    """Copy both ways until one side ends. The process ends here: nothing of it is to be cleaned up twice."""
    for number in (signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    threading.Thread(target=_copy_in, args=[server], daemon=True).start()
    with suppress(OSError):
        while data := server.recv(_READ_BYTES):
            write_all(1, data)
    os._exit(0)


def _copy_in(server: socket.socket) -> None:
    """Copy stdin to the server. At its end, end the server too if that was said last."""
    last = b""
    with suppress(OSError):
        while data := os.read(0, _READ_BYTES):
            server.sendall(data)
            last = (last + data)[-len(LEAVING) :]
    with suppress(OSError):
        if last == LEAVING:
            pid, _, _ = struct.unpack("3i", server.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
            os.kill(pid, signal.SIGTERM)
        server.shutdown(socket.SHUT_WR)
