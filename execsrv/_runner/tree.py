"""The processes and streams of a session over a runner: what `ProcessTree` and `OwnStreams` are for one of our own.

Nothing is looked at here. What is to be known is asked of the runner, and when that is gone, nothing is known.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

import trio
from msgspec import Struct

from execsrv._processes.arrivals import Arrivals
from execsrv._processes.input_wait import InputWait
from execsrv._processes.leader import ExitStatus
from execsrv._processes.own_streams import OwnInput
from execsrv._processes.usage import Usage
from execsrv._runner.remote import RemoteCommand
from execsrv._runner.version_2_messages import CloseStdin, Look, Looked, Resize, Signal, Signaled, Terminate
from execsrv.errors import BusyError
from execsrv.protocol import Layer, Member, SignalTarget, Size, Stream
from execsrv.protocol.process_limits import ProcessLimits, ProcessUsage, Reached
from execsrv.protocol.sandbox import Confined

logger = logging.getLogger(__name__)

END_SECONDS = 20.0
"""So long a runner has to say that what it was told to kill is gone. One that keeps its word needs much less."""

_AGAIN_SECONDS = 0.1


class RunnerLeader:
    """The first process of a session over a runner."""

    def __init__(self, command: RemoteCommand) -> None:
        self._command = command

    @property
    def pidfd(self) -> int | None:
        """Descriptor that can be read from once it has ended, None where nobody needs one."""
        return None if self._command.signal is None else self._command.signal.descriptor

    @property
    def has_ended(self) -> bool:
        """True once the runner has said so, or is gone."""
        return self._command.status is not None

    def exit_status(self) -> ExitStatus | None:
        """Return how it ended, None before."""
        return self._command.status

    async def wait_exited(self) -> ExitStatus:
        """Wait until it has ended, and return how."""
        await self._command.ended.wait()
        assert self._command.status is not None
        return self._command.status

    async def wait_ended(self) -> None:
        """Wait until it has ended."""
        await self._command.ended.wait()


class RunnerTree:
    """A command of a runner, and all that descends from it there."""

    is_over_runner = True

    def __init__(self, command: RemoteCommand) -> None:
        self.leader = RunnerLeader(command)
        self._command = command

    def __repr__(self) -> str:
        return f"<RunnerTree {self._command!r}>"

    @property
    def pid(self) -> int:
        """The pid of the leader, in the runner's world."""
        return self._command.pid

    def signal(self, number: int, target: SignalTarget = "tree") -> int | Coroutine[Any, Any, int]:
        """Have a signal sent at once. Return the wait for how many received it."""
        command = self._command
        if command.empty.is_set():
            return 0
        answer = command.link.ask(command.id, Signaled, lambda request: Signal(command.id, request, number, target))

        async def received() -> int:
            signaled = await answer
            return 0 if signaled is None else signaled.received

        return received()

    def ask_to_end_now(self) -> None:
        """Have SIGTERM sent to all of it. The grace is counted here."""
        self._command.link.send(Terminate(self._command.id, grace_ms=1))

    def ask_to_end(self) -> int:
        """Have SIGTERM sent to all of it. Nobody tells how many they are."""
        self.ask_to_end_now()
        return 1

    def ask_group_to_end(self) -> None:
        """Have SIGTERM sent to all of it."""
        self.ask_to_end_now()

    async def look(self) -> Looked | None:
        """Ask who lives of it, and how that is. None where nobody does, or nobody can tell any more."""
        command = self._command
        while not command.empty.is_set():
            with suppress(BusyError):  # a session is not to fail because others ask so much
                looked = await command.link.ask(command.id, Looked, lambda request: Look(command.id, request))
                if looked is None or looked.errno is None:
                    return looked
            await trio.sleep(_AGAIN_SECONDS)  # or the runner had no descriptor left to look with
        return None

    async def remaining(self) -> list[Member]:
        """Find who lives of it, by their pids in the runner's world."""
        looked = await self.look()
        if looked is None or looked.members:
            return [] if looked is None else looked.members
        await self._wait(self._command.empty)  # which brings the proof, and what was used
        return []

    async def usage(self) -> Usage:
        """Return what it takes there, or what its leader has taken."""
        looked = await self.look()
        return Usage(self._command.cpu_ms) if looked is None else Usage(looked.cpu_ms, looked.memory_bytes)

    async def wait_gone(self) -> bool:
        """Wait until nothing of it lives. Return whether anything did."""
        if self._command.empty.is_set():
            return False
        await self._command.empty.wait()
        return True

    async def wait_alone(self) -> None:
        """Wait until nothing of it lives. Cancelling stops waiting."""
        await self._command.empty.wait()

    async def kill(self) -> Layer | None:
        """Have all that is left killed, and wait for word of that, and of the leader's end. Cannot be cancelled.

        Return the layer that proved it there, None where nothing did. A runner that says nothing is given up.
        """
        await self._kill(self._command.empty, self._command.ended)
        return None if self._command.is_lost else self._command.layer

    async def _kill(self, *words: trio.Event) -> None:
        if not self._command.empty.is_set():
            self._command.link.send(Terminate(self._command.id))
        with trio.CancelScope(shield=True):
            await self._wait(*words)

    async def _wait(self, *words: trio.Event) -> None:
        """Wait for words that have to come now. A runner that does not say them is given up."""
        with trio.move_on_after(END_SECONDS) as patience:
            for word in words:
                await word.wait()
        if patience.cancelled_caught:
            self._command.link.lose("it does not say that what was to be killed, or has ended, is gone")

    async def end(self) -> None:
        """Have all that is left killed, and let go of it. Cannot be cancelled."""
        try:
            await self._kill(self._command.empty)
        finally:
            self._command.forget()


class RunnerInput:
    """The input of a command over a runner, framed and credited."""

    def __init__(self, command: RemoteCommand, *, is_terminal: bool) -> None:
        self._command = command
        self._is_terminal = is_terminal
        self._is_closed = False

    def write(self, data: memoryview) -> int:
        """Send what is credited now. Raises `BlockingIOError`, and `BrokenPipeError` when nobody reads any more."""
        if self._command.input_closed:
            raise BrokenPipeError
        if not (count := self._command.give(data)):
            raise BlockingIOError
        return count

    async def wait_writable(self) -> None:
        """Wait until something may be sent again. Raises `trio.ClosedResourceError` when it is closed meanwhile."""
        command = self._command
        while command.input_credit <= 0 and not command.input_closed and not self._is_closed:
            await command.input_news.park()
        if not command.link.has_room:
            await command.link.wait_room()
        if self._is_closed:
            raise trio.ClosedResourceError

    def end_line(self, last_key: bytes) -> None:
        """The runner types the end, at `close`."""

    def close(self) -> None:
        """End the input. A terminal's stays."""
        if not self._command.is_over:
            self._command.link.send(CloseStdin(self._command.id))
        self._is_closed = not self._is_terminal
        self._command.input_news.unpark_all()


class RunnerStreams:
    """The streams of a session over a runner: framed, or pipes of ours whose other ends were passed to it."""

    def __init__(
        self,
        tree: RunnerTree,
        command: RemoteCommand,
        outputs: dict[Stream, int] | None,
        input: OwnInput | RunnerInput | None,
        size: Size | None,
    ) -> None:
        """Take ownership of the descriptors. Without any, the outputs arrive framed."""
        self.outputs: dict[Stream, int] = outputs or {}
        self.arrivals: Arrivals | None = command.arrivals if outputs is None else None
        self.names: tuple[Stream, ...] = tuple(self.outputs) if outputs is not None else command.arrivals.streams
        self.input = input
        self.size = size
        self._tree = tree
        self._command = command

    def resize(self, size: Size) -> None:
        """Change the size of its terminal, where it has one."""
        if self.size is not None and not self._command.is_over:
            self.size = size
            self._command.link.send(Resize(self._command.id, size.rows, size.cols, size.xpixel, size.ypixel))

    def signal_foreground(self, number: int) -> int | Coroutine[Any, Any, int]:
        """Have a signal sent to the job in front on its terminal."""
        return self._tree.signal(number, "foreground")

    async def echoes(self) -> bool:
        """Return whether its terminal shows what is typed. One that is gone does as far as anybody knows."""
        looked = await self._tree.look()
        return looked is None or looked.echoes

    async def input_wait(self) -> InputWait | None:
        """Ask for a process of it that waits for input. Of a pipe that was passed, its runner cannot tell."""
        looked = await self._tree.look()
        found = None if looked is None else looked.input_wait
        return None if found is None else InputWait(found.pid, found.name, found.call, found.descriptor, found.sleeps)

    def let_go_of_terminal(self) -> None:
        """The runner has done so."""

    def close(self) -> None:
        """Close the outputs. It may be called again."""
        self.size = None
        while self.outputs:
            os.close(self.outputs.popitem()[1])


class RunnerLimits:
    """The limits of a command over a runner, which its runner keeps."""

    def __init__(self, asked: ProcessLimits, command: RemoteCommand) -> None:
        self.asked = asked
        self._command = command

    def reached(self, status: ExitStatus, *, was_killed: bool) -> Reached | None:
        """Return the limit that the runner says it has died of."""
        return self._command.limit

    def usage(self) -> ProcessUsage | None:
        """Return what was used, None while anything lives, and where nobody can tell."""
        return self._command.usage


class RunnerSpawned(Struct, frozen=True):
    """A running command of a runner."""

    program: str
    tree: RunnerTree
    its_streams: RunnerStreams
    confinement: Confined | None = None
    limits: RunnerLimits | None = None

    def streams(self) -> RunnerStreams:
        """Return its streams."""
        return self.its_streams
