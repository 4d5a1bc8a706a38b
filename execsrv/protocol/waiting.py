"""`process/waitFor`: waiting until something happens to a process, the first of several things."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import UNSET, Meta, UnsetType

from execsrv.protocol.bounds import Id, Whole
from execsrv.protocol.messages import Wire
from execsrv.protocol.output import ReadGap, Stream

Happening = Literal["output", "port", "idle", "exited", "treeEmpty", "noEcho", "input", "closed", "timeout", "replaced"]

Literals = Annotated[list[Annotated[bytes, Meta(min_length=1, max_length=4096)]], Meta(max_length=16)]


class PortWish(Wire, frozen=True):
    """A TCP port on the server's machine. `host` is an address; None is the loopback, 127.0.0.1 or ::1."""

    port: Annotated[int, Meta(ge=1, le=65535)]
    host: Annotated[str, Meta(max_length=64)] | None = None


class ProcessWaitFor(Wire, frozen=True):
    """Wait for the first of these, or for the close, without a bound unless there is a `timeout_ms`.

    Nothing is consumed: whoever reads the output still gets all of it.
    """

    process_id: Id
    output: Literals = []
    """Any of these byte strings in one of the streams. The one that is complete first is reported."""
    port: PortWish | None = None
    """Somebody accepts connections there."""
    idle_ms: Annotated[int, Meta(ge=1, le=2**53)] | None = None
    """No output for that long, from now on."""
    exited: bool = False
    tree_empty: bool = False
    """Nothing that descends from it lives any more."""
    no_echo: bool = False
    """Its terminal does not echo, as when a password is asked for."""
    input: bool = False
    """One of its processes waits for input, which it has nothing of, and for nothing else."""
    timeout_ms: Whole | None = None
    after_seq: Whole | None = None
    """Only output after this entry counts. None: all that is retained."""
    after_offset: Whole | None = None
    """Of the entry `after_seq`, what comes after that many bytes counts too."""
    wait_id: Id | None = None
    """A name for this wait: it ends the one before of the same process and name."""


class InputWait(Wire, frozen=True):
    """A process that sleeps in a system call, `call`, which only input can end: that of its descriptor.

    `sleeps` is how often it has gone to sleep. Who asks again and gets another number knows that it was awake.
    """

    pid: int
    name: str
    call: str
    descriptor: int
    sleeps: int


class ProcessHappened(Wire, frozen=True):
    """The thing that happened first. `seq` and `offset` are the place up to which output was looked at.

    `offset` is None for the whole of entry `seq`. Behind that place, as `after_seq` and `after_offset`, comes what was
    not looked at. For "output" it is the end of the match.
    """

    happened: Happening
    seq: int
    offset: int | None = None
    stream: Stream | None = None
    index: int | None = None
    """The one of the byte strings that was found."""
    gap: ReadGap | None = None
    """Entries that were not retained when they were to be looked at."""
    exit_code: int | None = None
    """The leader's, once it has ended."""
    input: InputWait | UnsetType = UNSET
    """The process that waits for input, only with "input"."""
