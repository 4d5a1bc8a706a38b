"""A spawned process in the hands of its user: its writer, its size, its end, and the receivers of what it prints."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

import trio

from execsrv._nursery import check_trio
from execsrv._processes import terminal
from execsrv._processes.attempt import Spawned
from execsrv._processes.leader import ExitStatus
from execsrv._processes.own_streams import OwnInput
from execsrv._processes.stdin import Stdin
from execsrv.errors import InvalidParamsError, StdinClosedError
from execsrv.limits import DEFAULTS
from execsrv.processes.receivers import Output, OutputReceiver


class TerminalSize(NamedTuple):
    """A terminal's size in characters."""

    rows: int = 24
    cols: int = 80


def checked(size: TerminalSize) -> TerminalSize:
    """Return the size. Raises `InvalidParamsError` for one that no terminal can have."""
    if not isinstance(size, Sequence) or len(size) != len(TerminalSize._fields):
        raise InvalidParamsError(f"size must be a TerminalSize, not {size!r}", field="size")
    for name, value in zip(TerminalSize._fields, size, strict=True):
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 65535:
            raise InvalidParamsError(f"size.{name} must be a whole number from 1 to 65535, not {value!r}", field="size")
    return TerminalSize(*size)


class Running:
    """State of one spawned process, shared by the task that owns it and the handle of its user."""

    def __init__(self, spawned: Spawned) -> None:
        """Take ownership of its streams: the owner must call `leader_ended` and `let_go`."""
        self.tree = spawned.tree
        self.descriptors = spawned.outputs
        self.terminal = spawned.outputs.get("pty")
        self.held = spawned.held
        self.life = trio.CancelScope()
        self.outputs = {stream: Output() for stream in spawned.outputs}
        self.token = trio.lowlevel.current_trio_token()
        self.stdin = Stdin(
            f"pid {spawned.tree.pid}",
            None if spawned.stdin is None else OwnInput(spawned.stdin, is_terminal=self.terminal is not None),
            None,
            is_terminal=self.terminal is not None,
            max_queued_bytes=DEFAULTS.queued_stdin_bytes,
        )

        self._exit_sender, self.exit_receiver = trio.open_memory_channel[int](1)
        self._is_told = False

    @property
    def status(self) -> ExitStatus | None:
        """The end of its leader, None before."""
        return self.tree.leader.exit_status()

    def leader_ended(self, status: ExitStatus) -> None:
        """Tell its user how its leader ended, the first time."""
        if self.held is not None:
            os.close(self.held)
            self.held = None
        if self._is_told:
            return
        self._is_told = True
        with self._exit_sender, suppress(trio.BrokenResourceError):
            self._exit_sender.send_nowait(status.code)

    def end_outputs(self) -> None:
        """Let nothing more arrive. What has arrived can still be received."""
        for output in self.outputs.values():
            output.end()

    def let_go(self) -> None:
        """Close its streams."""
        self.stdin.end()
        while self.descriptors:
            os.close(self.descriptors.popitem()[1])


class StdinWriter(trio.abc.SendChannel[bytes]):
    """The input of a spawned process. The order of the sends is the order of the bytes."""

    def __init__(self, running: Running) -> None:
        self._running = running
        self._turn = trio.Lock()

    def __repr__(self) -> str:
        return f"<StdinWriter {self._running.stdin!r}>"

    async def send(self, value: bytes) -> None:
        """Hand bytes to the process; returns when all of them were taken.

        Cancelling stops waiting, not the write. Raises `trio.BrokenResourceError` for a process that has ended or does
        not read its input any more, and after `close_stdin`; `LimitExceededError` while 8 MiB of sends that were
        cancelled wait to be read.
        """
        if not isinstance(value, bytes | bytearray | memoryview):
            raise TypeError(f"value must be bytes, got {type(value).__name__}")
        async with self._turn:
            if self._running.status is not None:
                raise trio.BrokenResourceError("the process has ended")
            try:
                await self._running.stdin.write(bytes(value)).wait()
            except StdinClosedError as error:
                raise trio.BrokenResourceError(f"cannot write: {error}") from error

    async def aclose(self) -> None:
        """End the input, as `ProcessHandle.close_stdin` does."""
        await trio.lowlevel.checkpoint()
        _close(self._running.stdin)


def _close(stdin: Stdin) -> None:
    if stdin.was_open:
        stdin.close()


class ProcessHandle:
    """One spawned process. Dropping the last reference to it kills it, and all that descends from it."""

    def __init__(self, running: Running) -> None:
        self._running = running
        self._writer = StdinWriter(running)

    def __repr__(self) -> str:
        code = self.exit_code()
        return f"<ProcessHandle pid={self.pid} {'running' if code is None else f'exit_code={code}'}>"

    def __del__(self) -> None:
        running = self.__dict__.get("_running")
        if running is None:
            return
        try:
            running.token.run_sync_soon(running.life.cancel)  # the last reference may go in any thread
        except trio.RunFinishedError:
            pass  # and so has the process

    @property
    def pid(self) -> int:
        """The pid of the process that was started."""
        return self._running.tree.pid

    def writer_sender(self) -> StdinWriter:
        """Return the channel to its stdin, or to its terminal. It refuses once the process has ended."""
        return self._writer

    def resize(self, size: TerminalSize) -> None:
        """Change the size of its terminal. Raises `InvalidParamsError` for a process that has none.

        Does nothing to one that has ended.
        """
        size = checked(size)
        if self._running.terminal is None:
            raise InvalidParamsError("cannot resize: the process is not attached to a terminal", field="size")
        if "pty" in self._running.descriptors:
            terminal.set_size(self._running.terminal, *size)

    def close_stdin(self) -> None:
        """End its input, behind all that was sent. A terminal gets its end-of-file character. Twice does no harm."""
        _close(self._running.stdin)

    def has_exited(self) -> bool:
        """Return True once the process that was started has ended."""
        return self._running.tree.leader.has_ended

    def exit_code(self) -> int | None:
        """Return its exit code, 128+N after a death by signal N. None while it runs."""
        status = self._running.status
        return None if status is None else status.code

    def terminate(self) -> None:
        """Kill it and all that descends from it. No output arrives from now on; its exit code still does.

        Returns at once: `exit_rx` tells when nothing of it is left.
        """
        check_trio()
        self._running.end_outputs()
        self._running.life.cancel()


class SpawnedProcess(NamedTuple):
    """All that spawning a process gives."""

    session: ProcessHandle
    stdout_rx: OutputReceiver
    """Output that it prints; with a terminal, all that appears there."""
    stderr_rx: OutputReceiver
    """With a terminal, at its end from the beginning."""
    exit_rx: trio.MemoryReceiveChannel[int]
    """Gives the exit code, once."""


def handed_out(running: Running) -> SpawnedProcess:
    """Return a process as its user gets it. Its owner is to keep no reference to that."""
    outputs = running.outputs
    if running.terminal is not None:
        nothing = Output()
        nothing.end()
        stdout, stderr = outputs["pty"], nothing
    else:
        stdout, stderr = outputs["stdout"], outputs["stderr"]
    return SpawnedProcess(
        ProcessHandle(running), OutputReceiver((stdout,)), OutputReceiver((stderr,)), running.exit_receiver
    )
