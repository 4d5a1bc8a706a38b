"""The server's ends of the streams of a command that it has started itself: descriptors of pipes, or of a terminal."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from functools import cached_property, partial
from typing import TYPE_CHECKING

import trio

from execsrv._lent import Lent
from execsrv._processes import terminal
from execsrv._processes.spawn import widen
from execsrv._processes.tree import ProcessTree
from execsrv._setting_units import MIB
from execsrv._threads import SharedThreads, run_briefly
from execsrv.errors import BusyError
from execsrv.protocol import Size, Stream

if TYPE_CHECKING:
    from execsrv._processes.contract import Received
    from execsrv._processes.input_wait import InputWait
    from execsrv._processes.stream_ends import Onward

PIPE_BYTES = MIB
"""The width asked for a pipe that is busy: Linux allows as much without rights. Refused, the pipe stays as it was."""

_LOOK_SECONDS = 0.5
"""So long the kernel may take to tell what the processes of a command do. Then it is not known."""


class OwnInput:
    """The writing end of a pipe, or a terminal's master, which is only lent to it."""

    def __init__(self, descriptor: int, *, is_terminal: bool) -> None:
        """Take ownership of the descriptor, unless it is a terminal's: `close` must follow."""
        self.descriptor = descriptor
        self._is_terminal = is_terminal
        self._is_narrow = not is_terminal

    def write(self, data: memoryview) -> int:
        """Write what is taken now. Raises `OSError`."""
        return os.write(self.descriptor, data)

    async def wait_writable(self) -> None:
        """Wait until it can be written to. A pipe whose command is slow becomes wide."""
        if self._is_narrow:
            self._is_narrow = False
            widen(self.descriptor, PIPE_BYTES)
        await trio.lowlevel.wait_writable(self.descriptor)

    def end_line(self, last_key: bytes) -> bytes:
        """Return the keys that are an end-of-file on this terminal, where the last one was that."""
        return terminal.end_of_input(self.descriptor, last_key)

    def close(self) -> None:
        """Close our end."""
        trio.lowlevel.notify_closing(self.descriptor)
        if not self._is_terminal:
            os.close(self.descriptor)


class OwnStreams:
    """The streams of a command of ours."""

    arrivals = None

    def __init__(
        self,
        tree: ProcessTree,
        outputs: dict[Stream, int],
        stdin: int | None,
        held: int | None,
        onward: Mapping[Stream, Onward],
    ) -> None:
        """Take ownership of the descriptors. `held` is the other end of its terminal."""
        self.outputs = outputs
        self.onward: dict[Stream, Lent] = {stream: pipe.write for stream, pipe in onward.items()}
        """The pipes into which its outputs go on."""
        self.input = None if stdin is None else OwnInput(stdin, is_terminal="pty" in outputs)
        self._tree = tree
        self._held = held

    @property
    def names(self) -> Collection[Stream]:
        """The outputs that it has."""
        return self.outputs

    @property
    def _master(self) -> int | None:
        return self.outputs.get("pty")

    @property
    def size(self) -> Size | None:
        """The size of its terminal, None where it has none any more."""
        return None if self._master is None else Size(*terminal.get_size(self._master))

    def resize(self, size: Size) -> None:
        """Change the size of its terminal, where it has one."""
        if self._master is not None:
            terminal.set_size(self._master, size.rows, size.cols, size.xpixel, size.ypixel)

    def signal_foreground(self, number: int) -> Received:
        """Send a signal to the job in front on its terminal. Return how many received it, or what returns that."""
        return 0 if self._master is None else self._tree.signal_foreground(number, self._master)

    async def echoes(self) -> bool:
        """Return whether its terminal shows what is typed. One that is gone does as far as anybody knows."""
        return self._master is None or terminal.echoes(self._master)

    async def input_wait(self) -> InputWait | None:
        """Return a process of it that waits for input, None if there is none, or if written input is still unread.

        None too where the kernel does not tell in time: what hangs there hangs in one thread for each command.
        """
        look = self._look_for_input_wait()
        if look is not None:
            with trio.move_on_after(_LOOK_SECONDS), suppress(BusyError):
                return await run_briefly(look, self._looks, 0)
        return None

    @cached_property
    def _looks(self) -> SharedThreads:
        return SharedThreads(self._tree.looks, 1)

    def _look_for_input_wait(self) -> Callable[[], InputWait | None] | None:
        """Return what looks for a process that waits for input, None if there can be none."""
        if self.input is None:
            return None
        from execsrv._processes import input_wait  # for clients that ask

        if (master := self._master) is not None:
            if self._held is None or terminal.unread(self._held):
                return None
            names = {terminal.name(master), "/dev/tty"}
            return partial(input_wait.look, self._tree.pid, names, os.tcgetpgrp(master))
        if terminal.unread(self.input.descriptor):
            return None
        return partial(input_wait.look, self._tree.pid, {f"pipe:[{os.fstat(self.input.descriptor).st_ino}]"})

    def let_go_of_terminal(self) -> None:
        """Close the other end of the terminal: as long as its leader lives, it may be opened again by anybody of it."""
        if self._held is not None:
            os.close(self._held)
            self._held = None

    def close_output(self, stream: Stream) -> None:
        """Close one output, and the pipe into which it goes on."""
        self.onward.pop(stream, None)
        os.close(self.outputs.pop(stream))

    def close(self) -> None:
        """Close the outputs, and let go of the terminal. It may be called again."""
        self.let_go_of_terminal()
        for stream in list(self.outputs):
            self.close_output(stream)
