"""The ends of a command's streams: what it gets as its 0, 1 and 2, and what the server keeps of them.

The server's ends go into what was started, and are non-blocking; the command's are closed as soon as it has them.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from execsrv._lent import Lent
from execsrv._processes import spawn_errors, streams, terminal
from execsrv._processes.command import Command, File, Output, spawn_error
from execsrv.protocol import Size, Stream

if TYPE_CHECKING:
    from execsrv._processes.spawn import Started


class Onward(NamedTuple):
    """A pipe into which an output goes on."""

    read: Lent
    write: Lent


class Descriptors(list[int]):
    """Descriptors that are closed when the block is left; those taken out of it are not."""

    def __enter__(self) -> Descriptors:
        return self

    def __exit__(self, *error: object) -> None:
        for descriptor in self:
            os.close(descriptor)


def open_stdio(
    command: Command,
    size: Size | None,
    modes: Mapping[str, bool | int],
    pipe_stdin: bool,
    started: Started,
    its: Descriptors,
) -> Sequence[int | None] | bytes:
    """Open our ends of the outputs and of the input, and return what the command gets as its stdio.

    Raises `SpawnError` for a file that cannot be written to.
    """
    if size is not None:
        master, slave, name = terminal.open_terminal(size.rows, size.cols, size.xpixel, size.ypixel, modes)
        its.append(slave)
        started.outputs["pty"] = started.stdin = _lifted(master)
        its.remove(slave)
        started.held = _lifted(slave)
        if command.inherited is not None:
            terminal.imitate(started.stdin, command.inherited.modes, command.inherited.window)
        return name
    if command.inherited is not None:
        return command.inherited.stdio
    source: int
    if command.stdin is not None:
        source = command.stdin.descriptor
    elif pipe_stdin:
        source, started.stdin = _open_pipe(its)
        os.set_blocking(started.stdin, False)
    else:
        source = _keep(its, os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    opens_itself = command.confinement is not None  # its files, with its own rights

    def open_output(stream: Stream, output: Output) -> int:
        return _open_output(stream, "null" if opens_itself and isinstance(output, File) else output, started, its)

    stdout = open_output("stdout", command.stdout)
    stderr = stdout if command.stderr == "stdout" else open_output("stderr", command.stderr)
    return source, stdout, stderr


def _open_output(stream: Stream, output: Output, started: Started, its: Descriptors) -> int:
    """Return the end of an output that the command gets. Ours, of a pipe, goes into what was started."""
    if output == "null":
        return _keep(its, os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC))
    if isinstance(output, Lent):
        return output.descriptor
    if isinstance(output, File):
        return _keep(its, _open_file(stream, output))
    read, write = os.pipe()
    its.append(write)
    started.outputs[stream] = read = _lifted(read)
    its.remove(write)
    write = _keep(its, write)
    os.set_blocking(read, False)
    return write


def _open_file(stream: Stream, file: File) -> int:
    """Return a file that a stream is written to. A FIFO that nobody reads is an error, as nobody could end the wait."""
    how = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
    try:
        descriptor = os.open(file.path, how | (os.O_APPEND if file.append else os.O_TRUNC), 0o666)
    except OSError as error:
        raise spawn_error(stream, error.errno or 0, f"open `{os.fsdecode(file.path)}` for its {stream}") from None
    os.set_blocking(descriptor, True)
    return descriptor


def open_directory(command: Command, its: Descriptors) -> int | None:
    """Return a descriptor of the command's directory, None for the one that it inherits."""
    if command.cwd is None:
        return None
    try:
        return _keep(its, os.open(command.cwd, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
    except OSError as error:
        raise spawn_errors.of_directory(command, error.errno or 0) from None


def _open_pipe(its: Descriptors) -> tuple[int, int]:
    """Return the reading end of a new pipe, which the command's block closes, and the writing one, which is ours."""
    read, write = os.pipe()
    try:
        read = _keep(its, read)
    except BaseException:
        os.close(write)
        raise
    return read, _lifted(write)


def open_onward() -> Onward:
    """Return a pipe for somebody else to read from, both ends of which do not block.

    Raises `SpawnError`, also on a machine that has nothing go on from one pipe into another.
    """
    try:
        ends = [Lent(end) for end in os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)]
        pipe = Onward(*(Lent(_lifted(end.take())) for end in ends))
        streams.tee(pipe.read.descriptor, pipe.write.descriptor, 0)  # which only asks
    except OSError as error:
        raise spawn_error("resources", error.errno or 0, "start with its streams passed and kept") from None
    return pipe


def _keep(block: Descriptors, descriptor: int) -> int:
    """Have a block close a descriptor, and return it, moved out of 0 to 2 where this process has those closed."""
    descriptor = _lifted(descriptor)
    block.append(descriptor)
    return descriptor


def _lifted(descriptor: int) -> int:
    """Return a descriptor, moved out of 0 to 2 where this process has those closed."""
    if descriptor > 2:
        return descriptor
    try:
        return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 3)
    finally:
        os.close(descriptor)
