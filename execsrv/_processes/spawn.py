"""Starting a command: one way for pipes and for terminals.

A started command leads its own session and process group, has default signals, the environment and directory that were
settled, and no descriptor but its 0, 1 and 2. What the server keeps is non-blocking. `execsrv run` alone has a command
inherit more.

`spawn` makes system calls alone and touches no state of the server, so that it may wait for a slow file system wherever
its caller likes.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

from execsrv._processes import portable_spawn, posix_spawn, proc, terminal
from execsrv._processes.command import INHERITED_DIRECTORY, Command, spawn_error, too_long
from execsrv._processes.inherited import Inherited
from execsrv._processes.rlimit_mark import Mark
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


class _Descriptors(list[int]):
    """Descriptors that are closed when the block is left; those taken out of it are not."""

    def __enter__(self) -> _Descriptors:
        return self

    def __exit__(self, *error: object) -> None:
        for descriptor in self:
            os.close(descriptor)


def spawn(
    command: Command,
    size: Size | None,
    pipe_stdin: bool,
    mark: Mark | None,
    *,
    carry: bool,
    inherited: Inherited | None = None,
) -> Started:
    """Start `command` on a terminal of `size`, or on pipes where that is None, and return it running.

    With what is `inherited` it has our directory, and descriptors of ours instead of pipes.

    Without `pipe_stdin` a piped command reads an empty stdin. To `carry` the mark sets it on this process for the
    instant of the start, so the command has it from the first; otherwise it is put on the command that runs already.

    Blocks as long as the file system of the directory or of the program does. Raises `SpawnError`; then nothing is
    left behind.
    """
    if signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:
        message = "cannot start: SIGCHLD is ignored in this process, so exit statuses are lost"
        raise SpawnError(message, stage="resources", errno=errno.ECHILD)
    try:
        with _Descriptors() as ours:
            with _Descriptors() as its:
                outputs, stdin, stdio = _open_ends(size, pipe_stdin, ours, its, inherited)
                directory = _open_directory(command, its) if inherited is None else None
                with mark.carried() if mark is not None and carry else nullcontext():
                    pid = _start(command, directory, stdio, inherited)
            # The command's ends are closed here, which leaves room for its pidfd.
            pidfd = _hold(pid, None if carry else mark)
            ours.clear()
            return Started(pid, pidfd, outputs, stdin)
    except OSError as error:
        raise spawn_error("resources", error.errno or 0, "start") from error


def _open_ends(
    size: Size | None, pipe_stdin: bool, ours: _Descriptors, its: _Descriptors, inherited: Inherited | None
) -> tuple[dict[Stream, int], int | None, Sequence[int | None] | bytes]:
    """Return our ends of the outputs and of the input, and what the command gets as its stdio.

    Each block closes the ends of one side.
    """
    if size is not None:
        master, name = terminal.open_terminal(size.rows, size.cols)
        master = _keep(ours, master)
        if inherited is not None:
            terminal.imitate(master, inherited.modes, inherited.window)
        return {"pty": master}, master, name
    if inherited is not None:
        return {}, None, inherited.stdio
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


def _open_directory(command: Command, its: _Descriptors) -> int:
    try:
        return _keep(its, os.open(command.cwd, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
    except OSError as error:
        raise _cwd_error(command, error.errno or 0) from None


def _open_pipe(*, reader: _Descriptors, writer: _Descriptors) -> tuple[int, int]:
    """Return the reading and the writing end of a new pipe, each to be closed by its own block."""
    read, write = os.pipe()
    return _keep(reader, read), _keep(writer, write)


def _keep(block: _Descriptors, descriptor: int) -> int:
    """Have a block close a descriptor, and return it, moved out of 0 to 2 where this process has those closed."""
    if descriptor <= 2:
        low = descriptor
        try:
            descriptor = fcntl.fcntl(low, fcntl.F_DUPFD_CLOEXEC, 3)
        finally:
            os.close(low)
    block.append(descriptor)
    return descriptor


def _start(
    command: Command, directory: int | None, stdio: Sequence[int | None] | bytes, inherited: Inherited | None
) -> int:
    try:
        return start(command, directory, stdio, inherited)
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
        os.kill(pid, signal.SIGKILL)  # it is our child until we wait for it, and need not lead a group
        os.waitpid(pid, 0)
        raise


def _explained(command: Command, number: int) -> SpawnError:
    """Return which of the steps between fork and exec has failed: the number alone does not tell."""
    program = f"run `{os.fsdecode(command.program)}`"
    if number == errno.EACCES:
        if command.cwd != INHERITED_DIRECTORY and not os.access(command.cwd, os.X_OK):
            return _cwd_error(command, number)
        return spawn_error("permission", number, program)
    if number == errno.ENOEXEC:
        return spawn_error("format", number, program)
    if number == errno.E2BIG:
        return too_long(command)
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
