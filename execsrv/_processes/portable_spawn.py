"""Starting a command with the standard library alone, where the C library's `posix_spawn` lacks a piece (musl, macOS).

The same meaning as `posix_spawn.start`, several times slower: Python code has to run between fork and exec.
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import termios
from collections.abc import Sequence

from execsrv._processes.command import Command


def start(command: Command, directory: int, stdio: Sequence[int] | bytes) -> int:
    """Start `command` as the leader of a new session and return its pid. See `posix_spawn.start`."""
    terminal = os.open(stdio, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC) if isinstance(stdio, bytes) else None
    descriptors = stdio if terminal is None else (terminal, terminal, terminal)

    def prepare() -> None:
        os.fchdir(directory)
        for number in signal.valid_signals():
            if number not in (signal.SIGKILL, signal.SIGSTOP):
                signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        if terminal is not None:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    env = dict(entry.split(b"=", 1) for entry in command.env)
    try:
        child = subprocess.Popen(
            command.argv,
            executable=command.program,
            env=env,
            stdin=descriptors[0],
            stdout=descriptors[1],
            stderr=descriptors[2],
            start_new_session=True,
            pass_fds=(),
            preexec_fn=prepare,
        )
    finally:
        if terminal is not None:
            os.close(terminal)
    pid = child.pid
    # The pid is all that we keep; the exit status is read by its owner, never by this object.
    child.returncode = 0
    return pid
