"""Starting a command: one way for pipes and for terminals.

A started command leads its own session and process group, has default signals, the environment and directory that were
settled, and no descriptor but its 0, 1 and 2. What the server keeps is non-blocking.

`spawn` makes system calls alone and touches no state of the server, so that it may wait for a slow file system wherever
its caller likes.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from execsrv._processes import portable_spawn, posix_spawn, proc, terminal
from execsrv._processes.command import Command, spawn_error
from execsrv._processes.rlimit_mark import Limits, Mark, carried
from execsrv.errors import SpawnError
from execsrv.protocol import Size, Stream

start = posix_spawn.start if posix_spawn.available else portable_spawn.start


@dataclass(frozen=True, slots=True)
class Started:
    """A command that runs: its leader, and the server's ends of its streams.

    The descriptors belong to whoever holds this. A terminal is its one output and its input at once.
    """

    pid: int
    pidfd: int
    outputs: dict[Stream, int]
    stdin: int | None


def spawn(
    command: Command, size: Size | None, pipe_stdin: bool, mark: Mark | None, *, carry: bool, limits: Limits = ()
) -> Started:
    """Start `command` on a terminal of `size`, or on pipes where that is None, and return it running.

    Without `pipe_stdin` a piped command reads an empty stdin. To `carry` the mark sets it on this process for the
    instant of the start, so the command has it from the first; otherwise it is put on the command that runs already.
    `limits` are carried in any case.

    Blocks as long as the file system of the directory or of the program does. Raises `SpawnError`; then nothing is
    left behind.
    """
    if signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:
        message = "cannot start: SIGCHLD is ignored in this process, so exit statuses are lost"
        raise SpawnError(message, stage="resources", errno=errno.ECHILD)
    try:
        with ExitStack() as ours:
            with ExitStack() as its:
                outputs, stdin, stdio = _open_ends(size, pipe_stdin, ours, its)
                directory = _open_directory(command, its)
                with carried((*limits, (mark.slot, mark.value)) if mark is not None and carry else limits):
                    pid = _start(command, directory, stdio)
            # The command's ends are closed here, which leaves room for its pidfd.
            pidfd = _hold(pid, None if carry else mark)
            ours.pop_all()
            return Started(pid, pidfd, outputs, stdin)
    except OSError as error:
        raise spawn_error("resources", error.errno or 0, "start") from error


def _open_ends(
    size: Size | None, pipe_stdin: bool, ours: ExitStack, its: ExitStack
) -> tuple[dict[Stream, int], int | None, Sequence[int] | bytes]:
    """Return our ends of the outputs and of the input, and what the command gets as its stdio.

    Each stack closes the ends of one side.
    """
    if size is not None:
        master, name = terminal.open_terminal(size.rows, size.cols)
        master = _keep(ours, master)
        return {"pty": master}, master, name
    stdin = None
    if pipe_stdin:
        source, stdin = _open_pipe(reader=its, writer=ours)
        os.set_blocking(stdin, False)
    else:
        source = _keep(its, os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    out, its_out = _open_pipe(reader=ours, writer=its)
    err, its_err = _open_pipe(reader=ours, writer=its)
    os.set_blocking(out, False)
    os.set_blocking(err, False)
    return {"stdout": out, "stderr": err}, stdin, (source, its_out, its_err)


def _open_directory(command: Command, its: ExitStack) -> int:
    try:
        return _keep(its, os.open(command.cwd, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
    except OSError as error:
        raise _cwd_error(command, error.errno or 0) from None


def _open_pipe(*, reader: ExitStack, writer: ExitStack) -> tuple[int, int]:
    """Return the reading and the writing end of a new pipe, each to be closed by its own stack."""
    read, write = os.pipe()
    return _keep(reader, read), _keep(writer, write)


def _keep(stack: ExitStack, descriptor: int) -> int:
    """Have `stack` close a descriptor, and return it, moved out of 0 to 2 where this process has those closed."""
    if descriptor <= 2:
        low = descriptor
        try:
            descriptor = fcntl.fcntl(low, fcntl.F_DUPFD_CLOEXEC, 3)
        finally:
            os.close(low)
    stack.callback(os.close, descriptor)
    return descriptor


def _start(command: Command, directory: int, stdio: Sequence[int] | bytes) -> int:
    try:
        return start(command, directory, stdio)
    except OSError as error:
        raise _explained(command, error.errno or 0) from None


def _hold(pid: int, mark: Mark | None) -> int:
    """Return a pidfd of a new leader, after putting a mark on it. Who cannot be watched must not run: it is killed."""
    try:
        if mark is not None:
            mark.put(pid)
            for child in proc.family([pid]):  # what it has started meanwhile, on a busy machine
                mark.put(child)
        return os.pidfd_open(pid)
    except OSError:
        os.killpg(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise


def _explained(command: Command, number: int) -> SpawnError:
    """Return which of the steps between fork and exec has failed: the number alone does not tell."""
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


def widen(pipe: int, size: int) -> None:
    """Make a pipe that has shown itself busy `size` bytes wide, where this user may.

    Not done at the start: the width of all pipes of a user is bounded together (pipe(7), pipe-user-pages-soft), and
    most commands print little.
    """
    try:
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, size)
    except OSError:
        pass  # more than this user may have: it stays as it was, and slower
