"""`process/*`: commands by ids that their client chooses, with numbered output."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import UNSET, Meta, UnsetType

from execsrv.protocol.bounds import Id, Name, PathText, Patterns, Variables, Whole, Word, Words
from execsrv.protocol.login_shells import ShellSnapshot, Snapshotted
from execsrv.protocol.messages import Told, Wire
from execsrv.protocol.output import Chunk, ProcessClosed, ProcessExited, ReadGap, Reason, Stream
from execsrv.protocol.process_limits import ProcessLimits
from execsrv.protocol.sandbox import Confined, NetworkWish, Sandbox


class Size(Wire, frozen=True):
    """A terminal's size in characters, and the whole of it in pixels where that is known."""

    rows: Annotated[int, Meta(ge=1, le=65535)] = 24
    cols: Annotated[int, Meta(ge=1, le=65535)] = 80
    xpixel: Annotated[int, Meta(ge=0, le=65535)] = 0
    ypixel: Annotated[int, Meta(ge=0, le=65535)] = 0


class EnvPolicy(Wire, frozen=True):
    """The part of the server's environment that a command sees, before its own `env` is laid on top.

    Patterns are globs and ignore case.
    """

    inherit: Literal["all", "core", "none"]
    ignore_default_excludes: bool
    exclude: Patterns
    set: Variables
    include_only: Patterns


class OutputFile(Wire, frozen=True):
    """A file that a command writes to: made where it is not there, and otherwise emptied, or with `append` kept.

    `path` is absolute, or a `file:` URI.
    """

    path: PathText
    append: bool = False


class ProcessStart(Wire, frozen=True):
    """Start a command. `env` is exact unless `env_policy` is given."""

    argv: Words
    cwd: PathText | None
    """An absolute path or a `file:` URI. None: the directory that the server itself is in, whatever its name is."""
    env: Variables
    tty: bool
    process_id: Id | None = None
    pipe_stdin: bool = False
    arg0: Word | None = None
    env_policy: EnvPolicy | None = None
    size: Size | None = None
    sandbox: Sandbox | None = None
    """The policy by which it is confined. One that cannot be kept here is refused."""
    network_proxy: NetworkWish | None = None
    managed_network: NetworkWish | None = None
    """Of these two only null is accepted: no command has a network of its own here."""
    window_bytes: Annotated[int, Meta(ge=1, le=2**53)] | None = None
    """The bytes of output that may be under way before the client must acknowledge some with `process/ack`. None: no
    bound, and a client that does not read one process's output then holds up the whole connection."""
    timeout_ms: Annotated[int, Meta(ge=1, le=2**53)] | None = None
    """End it that long after its start."""
    idle_timeout_ms: Annotated[int, Meta(ge=1, le=2**53)] | None = None
    """End it when it has neither printed nor been given anything for that long."""
    overflow: Literal["block", "drop"] = "block"
    """The fate of output beyond the window: the command waits, or the oldest of it is left out (`process/gap`)."""
    grace_ms: Whole | None = None
    """The time that it has after SIGTERM before it is killed, at a deadline and when its connection or the server ends.
    0: it is killed at once. None: the server's settings."""
    end_with_leader: bool = False
    """End what lives on after the leader, as soon as it prints no more; `closed` tells what that was."""
    kind: Literal["direct", "prepared"] = "direct"
    """A prepared command is run exactly as given: its program and directory are absolute, and nothing is inherited."""
    env_remove: Annotated[list[Word], Meta(max_length=64 * 1024)] = []
    """Variables that it does not get, wherever they come from."""
    secret_env: Annotated[dict[Word, PathText], Meta(max_length=256)] = {}
    """Variables whose values the server reads, on top of all others: each from a file, by its path or URI, or from one
    of the server's secrets, by its name. A newline at the end is left out."""
    umask: Annotated[int, Meta(ge=0, le=0o777)] | None = None
    nice: Annotated[int, Meta(ge=-20, le=19)] | None = None
    oom_score_adj: Annotated[int, Meta(ge=-1000, le=1000)] | None = None
    """These three are the server's own where they are not given."""
    stdout: Literal["pipe", "null"] | OutputFile = "pipe"
    stderr: Literal["pipe", "null", "stdout"] | OutputFile = "pipe"
    """Where its output goes. Only a pipe is told of; "stdout" is the same place, in the order of writing."""
    times: bool = False
    """Tell with output and ends when they came: `at_ms`."""
    key: Id | None = None
    """The same key with the same request is the same process, and starts nothing again."""
    user: Name | None = None
    """The user of the server's machine, or `USER:GROUP`, whose rights it has. A server that is not root has only its
    own to give. None: the server's."""
    runner: Name | Annotated[list[Word], Meta(min_length=1, max_length=256)] | None = None
    """The runner that starts it, in a place which the server cannot enter itself: one of the server's own, by its name,
    or the words of a command that gets there, as `["sudo", "-n", "-u", "box"]`. None: the server itself."""
    modes: Annotated[dict[Name, bool | Annotated[int, Meta(ge=-(2**31), le=2**31)]], Meta(max_length=256)] = {}
    """Modes of its terminal that are on or off, and keys as numbers of characters, by their names in stty(1)."""
    limits: ProcessLimits | None = None
    """The most that it may take. One that cannot be kept here is refused."""
    shell_snapshot: ShellSnapshot | None = None
    """Give a login shell what the login files made for an earlier one of the scope, where that can be done. Else it
    runs them."""
    pass_streams: bool | Literal["kept"] = False
    """Give the client the other ends of its pipes, as descriptors that come with the answer. For unix sockets. "kept":
    and keep the beginning and the end of its outputs, for `process/snapshot`."""


class ProcessStarted(Wire, frozen=True):
    """The command runs. The answer comes before the first of its notifications. `pid` is the leader's."""

    process_id: str
    sandbox_type: str = "none"
    """"linuxSeccomp" for a command that is confined."""
    pid: int | None = None
    sandbox: Confined | UnsetType = UNSET
    """The confinement that it has, where it has one."""
    shell_snapshot: Told[Snapshotted] | UnsetType = UNSET
    """"unused" where the login files are run after all; left out where no snapshot was asked for."""
    passed: list[Literal["stdin", "stdout", "stderr"]] | UnsetType = UNSET
    """The streams whose descriptors come with this answer, in their order. Absent: none do."""


class ProcessWrite(Wire, frozen=True):
    """Input for a command. A `write_id` that was seen before writes nothing, so that a retry is safe."""

    process_id: Id
    chunk: bytes
    write_id: Id


class ProcessCloseStdin(Wire, frozen=True):
    """End the input. A terminal is given its end-of-file once under one `write_id`, which is one of its writes."""

    process_id: Id
    write_id: Id | None = None


class ProcessWritten(Wire, frozen=True):
    """`accepted` means: handed to the operating system."""

    status: Literal["accepted", "unknownProcess", "stdinClosed"]


class ProcessRead(Wire, frozen=True):
    """Retained output after `after_seq`, waiting up to `wait_ms` for some."""

    process_id: Id
    after_seq: Whole | None = None
    max_bytes: Whole | None = None
    wait_ms: Whole | None = None


class ProcessId(Wire, frozen=True):
    """Names one process of this connection."""

    process_id: Id


SignalTarget = Literal["leader", "group", "foreground", "tree"]


class ProcessSignal(Wire, frozen=True):
    """A signal by name ("TERM", "SIGTERM", "interrupt" for SIGINT) or number, to the started process, its process
    group, the job in front of its terminal, or everything that descends from it."""

    process_id: Id
    signal: Name | Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
    target: SignalTarget = "group"


class ProcessSignaled(Wire, frozen=True):
    """The number of processes that were sent the signal."""

    received: int


class Grace(Wire, frozen=True):
    """The time that a process which was asked to end may take."""

    timeout_ms: Whole


class Graceful(Wire, frozen=True):
    """SIGTERM first, SIGKILL for what is left after the grace."""

    graceful: Grace


class ProcessTerminate(Wire, frozen=True):
    """End everything of a process, whether or not its leader has ended already."""

    process_id: Id
    mode: Literal["force"] | Graceful = "force"


class ProcessWait(Wire, frozen=True):
    """Wait for the end of the leader, by default without a bound."""

    process_id: Id
    timeout_ms: Whole | None = None


class ProcessWaited(Wire, frozen=True):
    """The end of the leader; `running` and nothing else when it had not ended by then."""

    running: bool
    exit_code: int | None = None
    signal: str | None = None
    reason: Told[Reason] | None = None


class ProcessAck(Wire, frozen=True):
    """The client is done with all output up to `seq`, so that more may be sent. For processes with a window."""

    process_id: Id
    seq: Whole


class ProcessResize(Wire, frozen=True):
    """A new size for a terminal; the program in front gets SIGWINCH."""

    process_id: Id
    rows: Annotated[int, Meta(ge=1, le=65535)]
    cols: Annotated[int, Meta(ge=1, le=65535)]
    xpixel: Annotated[int, Meta(ge=0, le=65535)] = 0
    ypixel: Annotated[int, Meta(ge=0, le=65535)] = 0


class Running(Wire, frozen=True):
    """The answer to an order to end: true when the leader was still running then."""

    running: bool


class ProcessOutputRead(Wire, frozen=True):
    """`next_seq` is one after the last chunk returned, or the next unused number when nothing was left out.

    `exit` and `close` are the two notifications of the end, once they are due.
    """

    chunks: list[Chunk]
    next_seq: int
    exited: bool
    exit_code: int | None
    closed: bool
    failure: str | None = None
    sandbox_denied: bool = False
    gap: ReadGap | None = None
    exit: ProcessExited | None = None
    close: ProcessClosed | None = None


class StreamSnapshot(Wire, frozen=True):
    """The beginning and the end of what a stream has carried, and how much is missing between them."""

    head: bytes
    tail: bytes
    omitted_bytes: int
    total_bytes: int


class ProcessSnapshot(Wire, frozen=True):
    """The facts that are known of a process now. A piped one has `stdout` and `stderr`, the other kind `terminal`."""

    running: bool
    exit_code: int | None
    signal: str | None
    reason: Told[Reason] | None
    closed: bool
    next_seq: int
    totals: dict[Stream, int]
    stdout: StreamSnapshot | None = None
    stderr: StreamSnapshot | None = None
    terminal: StreamSnapshot | None = None
    size: Size | None = None
    """The size of its terminal in characters, as long as that lasts."""
