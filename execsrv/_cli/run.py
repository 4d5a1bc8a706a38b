"""`execsrv run`: one command through a server, wired to this process's own stdin, stdout, stderr and terminal."""

from __future__ import annotations

import errno
import os
import signal
import termios
import tty as terminal_modes
from collections.abc import Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import NamedTuple

import trio

from execsrv._cli.options import OWN_FAILURE
from execsrv._cli.signals import received
from execsrv._cli.streams import say
from execsrv._in_process import connect_in_process
from execsrv._nursery import open_helpers
from execsrv._processes.terminal import get_size
from execsrv._wire.stdio import read_shared, write_all
from execsrv.client import Client, Process, connect
from execsrv.errors import (
    ConnectionLostError,
    ExecsrvError,
    RequestError,
    SpawnError,
    StdinClosedError,
    UnknownProcessError,
)
from execsrv.protocol import Chunk

TIMED_OUT = 124
"""The exit status as in timeout(1). As in env(1), 126 is not executable and 127 not found."""

_ENDED = {
    "timeout": (TIMED_OUT, "the command did not end in time and was killed"),
    "idle": (TIMED_OUT, "the command was idle for too long and was killed"),
    "disconnected": (OWN_FAILURE, "the server ended the command with the connection"),
    "shutdown": (OWN_FAILURE, "the server ended the command because it is shutting down"),
}
"""The status and the words for a command that the server ended on its own account."""


class RunOptions(NamedTuple):
    """A command and its options. Without a `url` it runs in this process. `env` is `K=V`; times are in seconds."""

    argv: Sequence[str]
    url: str | None = None
    tty: bool = False
    cwd: str | None = None
    env: Sequence[str] = ()
    timeout: float | None = None
    idle_timeout: float | None = None
    reconnect: float = 0


def run_once(options: RunOptions) -> int:
    """Run a command; return the exit status for this process."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for setting in options.env:
        if not all(setting.partition("=")[:2]):
            say(f"execsrv: invalid --env `{setting}`; expected `K=V`")
            return OWN_FAILURE
    try:
        return trio.run(run_command, options)
    except OSError as error:
        say(f"execsrv: {error}")
        return OWN_FAILURE
    except ExecsrvError as error:
        kind = f" ({error.kind})" if isinstance(error, RequestError) else ""
        say(f"execsrv: {error}{kind}")
        return OWN_FAILURE


async def run_command(options: RunOptions) -> int:
    """Run a command within trio; return the exit status for this process. Raises `ExecsrvError`.

    SIGINT goes to the command, the other ending signals kill it.
    """
    run = _Run(options)
    async with open_helpers() as nursery:
        # Outside of what they end, so that a second signal cannot interrupt the clean-up after the first.
        await nursery.start(run.listen_to_signals)
        with run.scope:
            return await run.through(
                connect_in_process(own_process=True)
                if options.url is None
                else connect(options.url, reconnect=options.reconnect)
            )
    assert run.killed_by is not None
    return 128 + run.killed_by


class _Run:
    """One command wired to this process, and the signals that concern it."""

    def __init__(self, options: RunOptions) -> None:
        self.scope = trio.CancelScope()
        self.killed_by: int | None = None
        self._options = options
        self._process: Process | None = None

    async def through(self, server: AbstractAsyncContextManager[Client]) -> int:
        """Run the command on a server; return the exit status for this process."""
        options = self._options
        env = {"TERM": os.environ["TERM"]} if options.tty and "TERM" in os.environ else {}
        for setting in options.env:
            name, _, env[name] = setting.partition("=")
        try:
            async with (
                server as client,
                client.start(
                    options.argv,
                    cwd=options.cwd,
                    env=env,
                    inherit_env=True,
                    stdin=True,
                    tty=options.tty,
                    size=self._size(),
                    timeout=options.timeout,
                    idle_timeout=options.idle_timeout,
                ) as self._process,
            ):
                with raw_terminal(options.tty):
                    return await self._attend(self._process)
        except SpawnError as error:
            if error.stage not in ("program", "permission", "format"):
                raise
            say(f"execsrv: {error}")
            return 127 if error.errno in (errno.ENOENT, errno.ENOTDIR) else 126

    async def _attend(self, process: Process) -> int:
        """Wire the command up until it has closed; return the exit status for this process."""
        async with open_helpers() as nursery:
            nursery.start_soon(_pass_stdin, process)
            try:
                await _pass_output(process)
            except BrokenPipeError:
                return 128 + signal.SIGPIPE  # whoever read our output has gone, and so does the command
        exited = await process.wait()
        if exited.reason not in _ENDED:
            return exited.exit_code
        status, text = _ENDED[exited.reason]
        say(f"execsrv: {text}")
        return status

    async def listen_to_signals(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Pass SIGINT and a new window size to the command, once there is one. The rest end us, which ends it."""
        with received(signal.SIGWINCH) as signals:
            async with trio.open_nursery() as nursery:
                task_status.started()
                async for number in signals:
                    if number not in (signal.SIGINT, signal.SIGWINCH) or (
                        number == signal.SIGINT and not self._process
                    ):
                        self.killed_by = self.killed_by or number
                        self.scope.cancel()
                    elif self._process is not None:
                        # In a task: a server that does not answer must not keep us from the next signal.
                        nursery.start_soon(self._pass_on, self._process, number)

    async def _pass_on(self, process: Process, number: int) -> None:
        """Tell the command of an interrupt or a new window size."""
        try:
            if number == signal.SIGINT:
                await process.interrupt()
            elif (size := self._size()) is not None:
                await process.resize(*size)
        except (ConnectionLostError, RequestError):
            pass  # it has ended, or whoever reads the output hears of it too

    def _size(self) -> tuple[int, int] | None:
        """Return the size of our terminal, if there is one that knows."""
        size = get_size(0) if self._options.tty and os.isatty(0) else (0, 0)
        return size if all(size) else None


async def _pass_output(process: Process) -> None:
    """Pass the command's output on, each stream to our own of the same name, until it has closed."""
    async for event in process.events():
        if isinstance(event, Chunk):
            target = 2 if event.stream == "stderr" else 1
            await trio.to_thread.run_sync(
                write_all, target, event.chunk, limiter=trio.CapacityLimiter(1), abandon_on_cancel=True
            )


async def _pass_stdin(process: Process) -> None:
    """Pass our stdin to the command, until the end of either."""
    try:
        while data := await read_shared(0):
            await process.write(data)
        await process.close_stdin()
    except (StdinClosedError, UnknownProcessError, ConnectionLostError):
        return  # it reads no more; its output tells the rest


@contextmanager
def raw_terminal(wanted: bool) -> Iterator[None]:
    """Have our own terminal, if wanted and stdin is one, pass every key through. On leaving it is restored."""
    if not wanted or not os.isatty(0):
        yield
        return
    before = termios.tcgetattr(0)
    try:
        terminal_modes.setraw(0, termios.TCSADRAIN)  # what was typed ahead is for the command
        yield
    finally:
        try:
            termios.tcsetattr(0, termios.TCSADRAIN, before)
        except termios.error:
            pass  # it was hung up
