"""Processes that can be seen, of one's own connection and of others, and the way to be told of those of others."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import UNSET, Meta, UnsetType

from execsrv.protocol.bounds import Id, Whole
from execsrv.protocol.messages import Told, Wire
from execsrv.protocol.output import ReadGap, Reason, Stream
from execsrv.protocol.process import Size
from execsrv.protocol.process_limits import ProcessLimits

ConnectionRef = Id
"""A connection by its id in `connection/list`, or by its name where it is the asker's own."""

ProcessState = Literal["starting", "running", "exited", "closed"]


class ProcessListing(Wire, frozen=True):
    """Ask for processes: of this connection, of another, or of all that the asker may see."""

    connection: ConnectionRef | None = None
    all: bool = False
    usage: bool = False
    """Say what each takes of processors and memory: that is looked up, process by process."""


class ListedProcess(Wire, frozen=True):
    """One line of `process/list`. `program` is the name of its file.

    `pid` is the leader's, on the server's machine, and None while the command is being started.
    """

    process_id: str
    pid: int | None
    program: str
    tty: bool
    running: bool
    exit_code: int | None
    closed: bool
    argv: list[str] = []
    """The command, its beginning where it is long."""
    cwd: str | None = None
    """The directory in which it was started, as a `file:` URI. None: that of the server."""
    state: Told[ProcessState] = "running"
    age_ms: int = 0
    """Time since its start."""
    signal: str | None = None
    reason: Told[Reason] | None = None
    totals: dict[Stream, int] = {}
    """The bytes that each stream has carried."""
    next_seq: int = 1
    """The number that the next entry of its output will have."""
    connection_id: str = ""
    connection_name: str | None = None
    principal: str | UnsetType = UNSET
    """Whose it is, where it is somebody else's. Only of one's own a name alone says which one is meant."""
    size: Size | UnsetType = UNSET
    """The size of its terminal in characters, where it has one, as long as that lasts."""
    cpu_ms: int | UnsetType = UNSET
    """Processor time of all that lives of it, where `usage` was asked for."""
    memory_bytes: int | UnsetType = UNSET
    """Memory that all that lives of it has in use, where `usage` was asked for."""
    limits: ProcessLimits | UnsetType = UNSET
    """The limits that it was started with, where it has some."""
    pass_streams: bool | UnsetType = UNSET
    """True where its client has its pipes, so that nobody can read its output here."""
    window_bytes: int | UnsetType = UNSET
    """The window that its start has asked for, where it has one."""


class ProcessList(Wire, frozen=True):
    """The processes that were asked for, oldest first, those that have ended and are still readable among them.

    Those that are being started come last.
    """

    processes: list[ListedProcess]


class ProcessAttach(Wire, frozen=True):
    """Get the events of a process of a joined connection, under a name of one's own on this connection."""

    connection: ConnectionRef
    process_id: Id
    attached_id: Id | None = None
    """Its name in all that is said of it here. None: `CONNECTION/PROCESS`."""
    after_seq: Whole | None = None
    """Output after this entry is sent. None: all that is retained. Beyond the last: what comes from now on."""
    window_bytes: Annotated[int, Meta(ge=1, le=2**53)] | None = None
    """The bytes of output that may be under way before some must be acknowledged with `process/ack`. None: no bound."""


class ProcessAttached(Wire, frozen=True):
    """What is sent begins with entry `next_seq`. `gap` is the part of what was asked for that is no longer retained."""

    process_id: str
    pid: int | None
    argv: list[str]
    tty: bool
    next_seq: int
    gap: ReadGap | None = None


class ProcessDetach(Wire, frozen=True):
    """Get no more events of a process of another connection. Nothing happens to the process."""

    process_id: Id
