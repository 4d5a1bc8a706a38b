"""Starting a command: one way for pipes and for terminals.

A started command leads its own session and process group, has default signals, the environment and directory that were
settled, and no descriptor but its 0, 1 and 2. What the server keeps is non-blocking.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from execsrv._processes import portable_spawn, posix_spawn, terminal
from execsrv._processes.command import Command, spawn_error
from execsrv._processes.tree import ProcessTree
from execsrv.errors import SpawnError
from execsrv.protocol import Size, Stream

start = posix_spawn.start if posix_spawn.available else portable_spawn.start
_CWD_FLAGS = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Spawned:
    """A running command and the server's ends of its streams. The descriptors belong to whoever holds this.

    `program` is the name of its file.
    """

    program: str
    tree: ProcessTree
    outputs: dict[Stream, int]
    stdin: int | None


def spawn(
    command: Command, *, size: Size | None, pipe_stdin: bool, bear: Callable[[Callable[[], int]], ProcessTree]
) -> Spawned:
    """Start `command` on a terminal of `size`, or on pipes where that is None. `bear` makes a tree of what it starts.

    Without `pipe_stdin` a piped command reads an empty stdin. Does not wait: when this returns, the command's own
    program runs. Raises `SpawnError`; then nothing is left behind.
    """
    if signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:
        message = "cannot start: SIGCHLD is ignored in this process, so exit statuses are lost"
        raise SpawnError(message, stage="resources", errno=errno.ECHILD)
    program = os.path.basename(command.program).decode(errors="replace")
    ours: list[int] = []
    childs: list[int] = []
    try:
        if size is not None:
            master, name = terminal.open_terminal(size.rows, size.cols)
            ours.append(master)
            spawned = Spawned(program, bear(partial(_start, command, name)), {"pty": master}, master)
        else:
            stdin = None
            if pipe_stdin:
                _pipe(childs, ours)
                stdin = ours[0]
            else:
                childs.append(_above_stdio(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)))
            for _ in range(2):
                _pipe(ours, childs)
            out, err = ours[-2:]
            tree = bear(partial(_start, command, childs))
            spawned = Spawned(program, tree, {"stdout": out, "stderr": err}, stdin)
        for descriptor in ours:
            os.set_blocking(descriptor, False)
    except BaseException as error:
        _close(ours)
        if isinstance(error, OSError):
            raise spawn_error("resources", error.errno or 0, "start") from error
        raise
    finally:
        _close(childs)
    return spawned


def _start(command: Command, stdio: Sequence[int] | bytes) -> int:
    try:
        directory = os.open(command.cwd, _CWD_FLAGS)
    except OSError as error:
        raise _cwd_error(command, error.errno or 0) from None
    try:
        return start(command, directory, stdio)
    except OSError as error:
        raise _explained(command, error.errno or 0) from None
    finally:
        os.close(directory)


def _explained(command: Command, number: int) -> SpawnError:
    """Which of the steps between fork and exec has failed: the number alone does not tell."""
    program = f"run `{os.fsdecode(command.program)}`"
    if number == errno.EACCES:
        if not os.access(command.cwd, os.X_OK):
            return _cwd_error(command, number)
        return spawn_error("permission", number, program)
    if number == errno.ENOEXEC:
        return spawn_error("format", number, program)
    if number == errno.E2BIG:
        return spawn_error("arguments", number, program)
    if number in (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE):
        return spawn_error("resources", number, program)
    if number == errno.ENOENT and os.path.exists(os.path.join(command.cwd, command.program)):
        program += ", whose interpreter is missing"
    return spawn_error("program", number, program)


def _cwd_error(command: Command, number: int) -> SpawnError:
    return spawn_error("cwd", number, f"start in `{os.fsdecode(command.cwd)}`")


def _pipe(readers: list[int], writers: list[int]) -> None:
    """A pipe, its reading and writing end each put where they belong."""
    reader, writer = os.pipe()
    readers.append(_above_stdio(reader))
    writers.append(_above_stdio(writer))


def _close(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def widen(pipe: int, size: int) -> None:
    """Make a pipe that has shown itself busy `size` bytes wide, where the system has that and allows it.

    Not done at the start: the width of all pipes of a user is bounded together (pipe(7), pipe-user-pages-soft), and
    most commands print little.
    """
    if sys.platform == "linux":
        try:
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, size)
        except OSError:
            pass  # more than this user may have: it stays as it was, and slower


def _above_stdio(descriptor: int) -> int:
    """The descriptor, moved out of 0 to 2 where a process was started with those closed."""
    if descriptor > 2:
        return descriptor
    try:
        return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 3)
    finally:
        os.close(descriptor)
