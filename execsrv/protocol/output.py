"""The output of a process and its ends, as they are told (`<-`) and read: numbered by one counter, in order."""

from __future__ import annotations

from typing import Literal

from msgspec import UNSET, Struct, UnsetType

from execsrv.protocol.messages import Told, Wire
from execsrv.protocol.process_limits import ProcessUsage
from execsrv.protocol.sandbox import Denial

Stream = Literal["stdout", "stderr", "pty"]

Layer = Literal["subreaper", "mark", "session", "group"]
"""The means by which a server knows who descends from a command, the strongest first (docs/survival.md)."""

Reason = Literal[
    "exited", "signaled", "timeout", "idle", "terminated", "disconnected", "shutdown", "oom", "cpu", "file-size"
]
"""Words for how a leader came to its end. A server that is newer may tell another one."""


AtMs = int | UnsetType
"""Milliseconds since the start of a command, by the server's clock. Told where the start asked for `times`."""


def seconds_since_start(at_ms: AtMs) -> float | None:
    """Return a told time in seconds, None for one that was not told."""
    return None if isinstance(at_ms, UnsetType) else at_ms / 1000


class Chunk(Struct, frozen=True, gc=False, rename="camel"):
    """A numbered piece of output."""

    seq: int
    stream: Stream
    chunk: bytes
    at_ms: AtMs = UNSET

    @property
    def at(self) -> float | None:
        """Seconds from the start of the command until this was read of it, None where the server does not tell."""
        return seconds_since_start(self.at_ms)


class ReadGap(Wire, frozen=True):
    """Entries `from_seq` to `seq` are not retained. `printed_before` is how much of each stream was printed
    before what comes behind the gap, so that who counts what it had knows how much it misses."""

    from_seq: int
    seq: int
    printed_before: dict[Stream, int]


class ProcessOutput(Struct, frozen=True, rename="camel", gc=False):
    """<- a piece of output, in order. One counter numbers output, exit and close: from 1, without gaps."""

    process_id: str
    seq: int
    stream: Stream
    chunk: bytes
    at_ms: AtMs = UNSET


class ProcessGap(Wire, frozen=True):
    """<- entries `from_seq` to `seq` were left out because their reader was too slow, as asked for with `overflow`."""

    process_id: str
    from_seq: int
    seq: int
    omitted: dict[Stream, int]


class ProcessExited(Wire, frozen=True):
    """<- the leader has ended, and all that it wrote came before. A background child may still write."""

    process_id: str
    seq: int
    exit_code: int
    sandbox_denied: bool = False
    signal: str | None = None
    reason: Told[Reason] = "exited"
    at_ms: AtMs = UNSET
    denial: Denial | UnsetType = UNSET
    """Why its confinement is taken for the cause, where `sandbox_denied`."""


class Member(Wire, frozen=True):
    """A process that descends from a command."""

    pid: int
    name: str


class ProcessClosed(Wire, frozen=True):
    """<- nothing more will come: the leader has ended and every stream is at its end.

    `totals` is what each stream carried, in bytes; `remaining` what descends from the command and still lives.
    `tree_empty`, once it was made to end: by which layer it is known that nothing does.
    `ended`, with `end_with_leader`: what lived on after the leader, and was ended.
    `usage`, with `limits`: what it has used.
    """

    process_id: str
    seq: int
    totals: dict[Stream, int] = {}
    remaining: list[Member] = []
    tree_empty: Told[Layer] | None = None
    ended: list[Member] = []
    at_ms: AtMs = UNSET
    usage: ProcessUsage | UnsetType = UNSET
