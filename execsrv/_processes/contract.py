"""The contract between a session and what it was started as: its processes, their leader, and their streams.

`ProcessTree` and `OwnStreams` keep it for a command that this process has started itself, `RunnerTree` and
`RunnerStreams` for one that a runner has. A session asks for nothing else.
"""

from __future__ import annotations

from collections.abc import Collection, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, Literal, Protocol

from execsrv._processes.arrivals import Arrivals
from execsrv._processes.confine.places import Confinement
from execsrv._processes.leader import ExitStatus
from execsrv._processes.usage import Usage
from execsrv.protocol import Layer, Member, Size, Stream
from execsrv.protocol.process_limits import ProcessLimits, ProcessUsage, Reached
from execsrv.protocol.sandbox import Confined

if TYPE_CHECKING:
    from execsrv._processes.input_wait import InputWait

Target = Literal["leader", "group", "tree"]
Received = int | Coroutine[Any, Any, int]
"""The number of processes that received a signal, or what sends it to the rest, or waits, and returns that number."""


class AnyLeader(Protocol):
    """The first process of a session."""

    @property
    def pidfd(self) -> int | None:
        """Descriptor that can be read from once it has ended, None where there is none."""

    @property
    def has_ended(self) -> bool:
        """True once it has ended, also when the way it did is not known yet."""

    def exit_status(self) -> ExitStatus | None:
        """Return how it ended, None while that cannot be told."""

    async def wait_exited(self) -> ExitStatus:
        """Wait until it has ended, and return how. Cancelling stops waiting, not the process."""

    async def wait_ended(self) -> None:
        """Wait until it has ended, also when the way it did is not known yet."""


class AnyTree(Protocol):
    """A leader and all that descends from it."""

    @property
    def is_over_runner(self) -> bool:
        """True where a runner is asked about it, which may not answer."""

    @property
    def pid(self) -> int:
        """The pid of the leader, where it runs."""

    @property
    def leader(self) -> AnyLeader:
        """The process that was started."""

    def signal(self, number: int, target: Target = "tree") -> Received:
        """Send a signal to the leader, to its process group or to all that descends from it."""

    def ask_to_end_now(self) -> None:
        """Send SIGTERM to all of it at once. Raises `OSError` without a descriptor left to look with."""

    def ask_group_to_end(self) -> None:
        """Send SIGTERM to the leader's group at once, for which no descriptor is needed."""

    def ask_to_end(self) -> Received:
        """Send what `ask_to_end_now` does, or return what sends it to the rest, and cannot be cancelled."""

    async def remaining(self) -> list[Member]:
        """Find who lives of it. The leader counts as long as it runs."""

    async def usage(self) -> Usage:
        """Return what it takes of processors and memory: all that lives of it, or what its leader has taken."""

    async def wait_gone(self) -> bool:
        """Wait until those are gone who live of it now. Return whether there was anybody."""

    async def wait_alone(self) -> None:
        """Wait until nothing of it lives. The leader has ended before. Cancelling stops waiting."""

    async def kill(self) -> Layer | None:
        """Kill all that is left, and wait until it is gone. Cannot be cancelled.

        Return the layer that proved that nothing is left, None when it could not be proved.
        """

    async def end(self) -> None:
        """Kill all that is left, and let go of it. Cannot be cancelled."""


class Input(Protocol):
    """The way of input to a command. It never waits but in `wait_writable`."""

    def write(self, data: memoryview) -> int:
        """Hand over what is taken now, and return how much that was.

        Raises `BlockingIOError` where nothing is, and another `OSError` when nobody reads any more.
        """

    async def wait_writable(self) -> None:
        """Wait until something is taken again. Raises `trio.ClosedResourceError` when it is closed meanwhile."""

    def end_line(self, last_key: bytes) -> bytes | None:
        """Return the keys that are an end-of-file on its terminal, where the last one was that.

        None: `close` types them, and the terminal stays open.
        """

    def close(self) -> None:
        """End the input, or hand a terminal back that was lent to it."""


class Streams(Protocol):
    """The server's ends of a command's output and input."""

    @property
    def names(self) -> Collection[Stream]:
        """The outputs that it has."""

    @property
    def outputs(self) -> Mapping[Stream, int]:
        """The descriptors of its outputs, none of which blocks. They are open until `close`."""

    @property
    def arrivals(self) -> Arrivals | None:
        """Its outputs, where those arrive as messages and not by descriptors."""

    @property
    def input(self) -> Input | None:
        """Its input, None where it has none."""

    @property
    def size(self) -> Size | None:
        """The size of its terminal, None where it has none any more."""

    def resize(self, size: Size) -> None:
        """Change the size of its terminal, where it has one."""

    def signal_foreground(self, number: int) -> Received:
        """Send a signal to the job in front on its terminal."""

    async def echoes(self) -> bool:
        """Return whether its terminal shows what is typed. One that is gone does as far as anybody knows."""

    async def input_wait(self) -> InputWait | None:
        """Return a process of it that waits for input, None if there is none, or if written input is still unread."""

    def let_go_of_terminal(self) -> None:
        """Let its terminal end with its last holder, now that its leader has ended."""

    def close(self) -> None:
        """Close the outputs, and let go of the terminal. It may be called again."""


class AnyLimits(Protocol):
    """The limits of a command, from its start to its end."""

    @property
    def asked(self) -> ProcessLimits:
        """The limits that its start has asked for."""

    def reached(self, status: ExitStatus, *, was_killed: bool) -> Reached | None:
        """Return the limit that its leader has died of, None where it was none.

        `was_killed` says that its peer has sent it SIGKILL.
        """

    def usage(self) -> ProcessUsage | None:
        """Return what was used, now that the leader has ended, None where nobody can tell."""


class AnySpawned(Protocol):
    """A running command. Whoever holds it owns its tree and its streams."""

    @property
    def program(self) -> str:
        """The name of its file."""

    @property
    def tree(self) -> AnyTree:
        """Its processes."""

    @property
    def confinement(self) -> Confinement | Confined | None:
        """The things that it may do, or what was told of that, where those are fewer than its server may."""

    @property
    def limits(self) -> AnyLimits | None:
        """The limits that it has, where it was started with some."""

    def streams(self) -> Streams:
        """Return its streams. They belong to whoever asks, who does so once."""
