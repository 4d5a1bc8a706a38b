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
from contextlib import ExitStack
from dataclasses import dataclass

from execsrv._processes import portable_spawn, posix_spawn, terminal
from execsrv._processes.command import Command, spawn_error
from execsrv._processes.tree import ProcessTree
from execsrv.errors import SpawnError
from execsrv.protocol import Size, Stream

start = posix_spawn.start if posix_spawn.available else portable_spawn.start
_CWD_FLAGS = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Spawned:
    """A running command and the server's ends of its streams. The descriptors belong to whoever holds this."""

    tree: ProcessTree
    outputs: dict[Stream, int]
    stdin: int | None
    terminal: bool


def spawn(command: Command, *, size: Size | None, pipe_stdin: bool) -> Spawned:
    """Start `command` on a terminal of `size`, or on pipes where that is None.

    Without `pipe_stdin` a piped command reads an empty stdin. Does not wait: when this returns, the command's own
    program runs. Raises `SpawnError`; then nothing is left behind.
    """
    if signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:
        message = "cannot start: SIGCHLD is ignored in this process, so exit statuses are lost"
        raise SpawnError(message, stage="resources", errno=errno.ECHILD)
    with ExitStack() as ours, ExitStack() as childs:
        try:
            outputs: dict[Stream, int]
            stdin: int | None
            if size is not None:
                master, name = terminal.open_terminal(size.rows, size.cols)
                ours.callback(os.close, master)
                outputs, stdin, pid = {"pty": master}, master, _start(command, name)
            else:
                stdin, child_stdin = _input(pipe_stdin, ours, childs)
                out, child_out = _pipe(ours, childs)
                err, child_err = _pipe(ours, childs)
                outputs = {"stdout": out, "stderr": err}
                pid = _start(command, (child_stdin, child_out, child_err))
            for descriptor in {*outputs.values(), *([] if stdin is None else [stdin])}:
                os.set_blocking(descriptor, False)
            spawned = Spawned(_watched(pid), outputs, stdin, size is not None)
        except OSError as error:
            raise spawn_error("resources", error.errno or 0, "start") from error
        ours.pop_all()
        return spawned


def _watched(pid: int) -> ProcessTree:
    try:
        return ProcessTree(pid)
    except OSError:  # no descriptor left for watching it, so it must not run
        os.killpg(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise


def _start(command: Command, stdio: tuple[int, int, int] | bytes) -> int:
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


def _input(piped: bool, ours: ExitStack, childs: ExitStack) -> tuple[int | None, int]:
    """Our end, if there is one, and the child's end of its stdin."""
    if piped:
        child, mine = _pipe(childs, ours)
        return mine, child
    empty = _above_stdio(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    childs.callback(os.close, empty)
    return None, empty


def _pipe(readers: ExitStack, writers: ExitStack) -> tuple[int, int]:
    """A pipe's reading and writing end, each closed by its own stack."""
    reader, writer = (_above_stdio(descriptor) for descriptor in os.pipe())
    readers.callback(os.close, reader)
    writers.callback(os.close, writer)
    return reader, writer


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
