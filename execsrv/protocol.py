"""Everything that is said on the wire: the messages, the parameters and results of each method, the table of methods.

Two dialects share one connection and one set of sessions. `command/exec*` is `exec-server.v0`; `process/*` is what
the Codex exec-server speaks. A struct's Python names become camelCase in JSON, `bytes` become base64, and unknown
fields are ignored, so that newer peers can say more.

These are values: they are frozen, cross the in-memory transport as they are, and import neither trio nor I/O.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

PROTOCOL_VERSION = "exec-server.v0"

MessageId = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | str
"""What pairs an answer with its request: a signed 64-bit integer or a string, echoed with its type."""


# -- messages --


class Request(Struct, frozen=True, omit_defaults=True):
    """A call. `params` is raw JSON when it came off a wire, and a struct or plain values in memory."""

    id: MessageId
    method: str
    params: Any = None


class Notification(Struct, frozen=True, omit_defaults=True):
    """Something told without an answer."""

    method: str
    params: Any = None


class Response(Struct, frozen=True):
    """The answer to the request with this id."""

    id: MessageId
    result: Any


class ErrorObject(Struct, frozen=True, omit_defaults=True):
    """JSON-RPC 2.0 section 5.1; `data.kind` is a stable word."""

    code: int
    message: str
    data: Any = None


class Failure(Struct, frozen=True):
    """The refusal of the request with this id, or of the connection itself when the id is null."""

    id: MessageId | None
    error: ErrorObject


Message = Request | Notification | Response | Failure


# -- shared parts --


class Wire(Struct, frozen=True, rename="camel"):
    """The base of all parameters and results."""


class Size(Wire, frozen=True):
    """A terminal's size in characters."""

    rows: Annotated[int, Meta(ge=1, le=65535)] = 24
    cols: Annotated[int, Meta(ge=1, le=65535)] = 80


class Shell(Wire, frozen=True):
    """A command interpreter: its short name and its absolute path."""

    name: str
    path: str


class EnvironmentInfo(Wire, frozen=True):
    """What a client needs to know of the machine it runs commands on. Paths are `file:` URIs."""

    shell: Shell
    executor_version: str
    cwd: str
    user_home_dir: str
    platform_os: str
    temp_dir: str
    temporary_directories: list[str] = []
    prepend_path_dirs: list[str] = []
    capabilities: dict[str, bool] = {}


class EnvPolicy(Wire, frozen=True):
    """How much of the server's environment a command sees, before its own `env` is laid on top.

    Patterns are globs and ignore case.
    """

    inherit: Literal["all", "core", "none"]
    ignore_default_excludes: bool
    exclude: list[str]
    set: dict[str, str]
    include_only: list[str]


Stream = Literal["stdout", "stderr", "pty"]
Reason = Literal["exited", "signaled", "timeout", "idle", "terminated", "disconnected", "shutdown"]


# -- handshake --


class Initialize(Wire, frozen=True):
    """The first request of every connection."""

    client_name: str
    resume_session_id: str | None = None


class Initialized(Wire, frozen=True):
    """The answer to `initialize`. `session_id` names the connection, not a process.

    `protocol_version` is empty where the server is not execsrv.
    """

    session_id: str
    environment_info: EnvironmentInfo
    protocol_version: str = ""


# -- process/* --


class ProcessStart(Wire, frozen=True):
    """Start a command. `cwd` is an absolute path or a `file:` URI; `env` is exact unless `env_policy` is given."""

    argv: list[str]
    cwd: str
    env: dict[str, str]
    tty: bool
    process_id: str | None = None
    pipe_stdin: bool = False
    arg0: str | None = None
    env_policy: EnvPolicy | None = None
    size: Size | None = None
    sandbox: Any = None
    """Only null, or a policy that asks for no confinement, is accepted: there is no sandbox here to ask for."""
    window_bytes: Annotated[int, Meta(ge=1)] | None = None
    """How much output may be under way before the client must acknowledge some with `process/ack`; None: no bound,
    and whoever does not read one process's output then holds up the whole connection."""


class ProcessStarted(Wire, frozen=True):
    """The command runs. The answer comes before the first of its notifications."""

    process_id: str
    sandbox_type: str = "none"


class ProcessWrite(Wire, frozen=True):
    """Input for a command. A `write_id` that was seen before writes nothing, so that a retry is safe."""

    process_id: str
    chunk: bytes
    write_id: Annotated[str, Meta(max_length=256)]


class ProcessWritten(Wire, frozen=True):
    """`accepted` means: handed to the operating system."""

    status: Literal["accepted", "unknownProcess", "stdinClosed"]


class ProcessRead(Wire, frozen=True):
    """Retained output after `after_seq`, waiting up to `wait_ms` for some."""

    process_id: str
    after_seq: Annotated[int, Meta(ge=0, le=2**53)] | None = None
    max_bytes: Annotated[int, Meta(ge=0, le=2**53)] | None = None
    wait_ms: Annotated[int, Meta(ge=0, le=2**53)] | None = None


class Chunk(Struct, frozen=True, gc=False):
    """A numbered piece of output."""

    seq: int
    stream: Stream
    chunk: bytes


class ProcessOutputRead(Wire, frozen=True):
    """`next_seq` is one after the last chunk returned, or the next unused number when nothing was left out."""

    chunks: list[Chunk]
    next_seq: int
    exited: bool
    exit_code: int | None
    closed: bool
    failure: str | None = None
    sandbox_denied: bool = False


class ProcessId(Wire, frozen=True):
    """Names one process of this connection."""

    process_id: str


class ProcessSignal(Wire, frozen=True):
    """Only `interrupt`: SIGINT to the process group."""

    process_id: str
    signal: Literal["interrupt"]


class ProcessAck(Wire, frozen=True):
    """The client is done with all output up to `seq`, so that more may be sent. For processes with a window."""

    process_id: str
    seq: Annotated[int, Meta(ge=0)]


class ProcessResize(Wire, frozen=True):
    """A new size for a terminal; the program in front gets SIGWINCH."""

    process_id: str
    rows: Annotated[int, Meta(ge=1, le=65535)]
    cols: Annotated[int, Meta(ge=1, le=65535)]


class Nothing(Wire, frozen=True):
    """An empty object."""


class Running(Wire, frozen=True):
    """Whether the leader was still running when it was told to end."""

    running: bool


class ProcessOutput(Struct, frozen=True, rename="camel", gc=False):
    """<- a piece of output, in order. One counter numbers output, exit and close: from 1, without gaps."""

    process_id: str
    seq: int
    stream: Stream
    chunk: bytes


class ProcessExited(Wire, frozen=True):
    """<- the leader has ended, and all that it wrote came before. A background child may still write."""

    process_id: str
    seq: int
    exit_code: int
    sandbox_denied: bool = False
    signal: str | None = None
    reason: Reason = "exited"


class ProcessClosed(Wire, frozen=True):
    """<- nothing more will come: the leader has ended and every stream is at its end."""

    process_id: str
    seq: int


# -- command/* : exec-server.v0 --


class CommandExec(Wire, frozen=True):
    """Start a command whose stdin is closed, or a terminal."""

    argv: list[str]
    cwd: str
    env: dict[str, str]
    tty: bool
    arg0: str | None = None


class CommandId(Wire, frozen=True):
    """Names one command of this connection; the server assigns the ids, `session-1` first."""

    session_id: str


class CommandWrite(Wire, frozen=True):
    """Input for a terminal."""

    session_id: str
    chunk: bytes


class Accepted(Wire, frozen=True):
    """The input was handed to the operating system."""

    accepted: bool = True


class CommandOutputDelta(Struct, frozen=True, rename="camel", gc=False):
    """<- a piece of output; a terminal's is "stdout"."""

    session_id: str
    stream: Literal["stdout", "stderr"]
    chunk: bytes


class CommandExited(Wire, frozen=True):
    """<- the command has ended, and all that it wrote came before."""

    session_id: str
    exit_code: int


# -- fs/* --


class FileCall(Wire, frozen=True, kw_only=True):
    """What every file method takes. Only null, or a policy that asks for no confinement, is accepted."""

    sandbox: Any = None


class FilePath(FileCall, frozen=True):
    """Names a file: an absolute path or a `file:` URI. Without `follow_symlinks` no link is walked on the way."""

    path: str
    follow_symlinks: bool | None = None


class FileData(Wire, frozen=True):
    """A whole file."""

    data_base64: bytes


class FileWrite(FilePath, frozen=True, kw_only=True):
    """Make a file, or replace what is in it. Its directory must exist."""

    data_base64: bytes


class DirectoryCreate(FilePath, frozen=True, kw_only=True):
    """Make a directory; unless `recursive` is false, its parents too, and it may exist."""

    recursive: bool | None = None


class FileMetadata(Wire, frozen=True):
    """Of what a path leads to; `is_symlink` is about the path itself. A `created_at_ms` of 0 is not known."""

    is_directory: bool
    is_file: bool
    is_symlink: bool
    size: int
    created_at_ms: int
    modified_at_ms: int


class CanonicalPath(Wire, frozen=True):
    """A path without links, as a URI."""

    path: str


class DirectoryEntry(Wire, frozen=True, omit_defaults=True):
    """A name in a directory, and what it leads to; a link that leads nowhere is neither.

    A name that is not UTF-8 has U+FFFD in `file_name`, and `path` is then the URI to use.
    """

    file_name: str
    is_directory: bool
    is_file: bool
    is_symlink: bool
    path: str | None = None


class DirectoryListing(Wire, frozen=True):
    """A directory, sorted by name."""

    entries: list[DirectoryEntry]


class WalkOptions(Wire, frozen=True):
    """How far to walk. Depth 0 lists the directory itself."""

    max_depth: Annotated[int, Meta(ge=0)]
    max_directories: Annotated[int, Meta(ge=0)]
    max_entries: Annotated[int, Meta(ge=0)]
    follow_directory_symlinks: bool
    prune_hidden_directories: bool | None = None


class FileWalk(FileCall, frozen=True, kw_only=True):
    """List a tree, breadth first."""

    path: str
    options: WalkOptions


class WalkEntry(Struct, frozen=True, gc=False):
    """A URI that a walk has found."""

    path: str
    kind: Literal["file", "directory"]


class WalkError(Struct, frozen=True, gc=False):
    """A directory that a walk could not read."""

    path: str
    message: str


class Walked(Wire, frozen=True):
    """What a walk has found; `truncated` when one of its limits ended it."""

    entries: list[WalkEntry]
    errors: list[WalkError]
    truncated: bool


class FileRemove(FilePath, frozen=True, kw_only=True):
    """Remove a file, a link or a directory. Unless told otherwise the whole tree, and nothing may be there."""

    recursive: bool | None = None
    force: bool | None = None


class FileCopy(FileCall, frozen=True, kw_only=True):
    """Copy a file, a link as a link, or a tree, which is merged into what is there."""

    source_path: str
    destination_path: str
    recursive: bool


class FileOpen(FilePath, frozen=True, kw_only=True):
    """Open a file for blocks under an id of the client's choice. `replace` makes or empties it at once."""

    handle_id: str
    mode: Literal["read", "replace"] | None = None


class FileHandle(Wire, frozen=True):
    """Names an open file of this channel."""

    handle_id: str


class BlockRead(FileHandle, frozen=True):
    """Read up to `len` bytes at `offset`."""

    offset: Annotated[int, Meta(ge=0)]
    len: Annotated[int, Meta(ge=0)]


class Block(Wire, frozen=True):
    """What was read; `eof` when it is shorter than what was asked for."""

    chunk: bytes
    eof: bool


class BlockWrite(FileHandle, frozen=True):
    """Write at `offset`; what lies between it and the end of the file becomes a hole."""

    offset: Annotated[int, Meta(ge=0)]
    chunk: bytes


class WatchMissing(FileCall, frozen=True, kw_only=True):
    """Tell, once, when one of `missing` may have come into being, or `present` may have changed. A greater id than
    any before replaces the watch before."""

    watch_id: Annotated[int, Meta(ge=0)]
    missing: list[str]
    present: str | None = None


class Watching(Wire, frozen=True):
    """Whether it will be told; if not, the client has to look for itself."""

    watching: bool


class MissingChanged(Wire, frozen=True):
    """<- look again: what `fs/watchMissing` asked about may have changed. That watch is over."""

    watch_id: int


# -- the table --


class Method(NamedTuple):
    """One method: what it takes and gives, the family that handshake errors name (None: the handshake itself), and
    whether an answer may have to wait for something."""

    params: type[Struct]
    result: type[Struct]
    family: str | None = "exec"
    waits: bool = False


METHODS: dict[str, Method] = {
    "initialize": Method(Initialize, Initialized, family=None),
    "process/start": Method(ProcessStart, ProcessStarted),
    "process/write": Method(ProcessWrite, ProcessWritten, waits=True),
    "process/closeStdin": Method(ProcessId, Nothing),
    "process/read": Method(ProcessRead, ProcessOutputRead, waits=True),
    "process/ack": Method(ProcessAck, Nothing),
    "process/resize": Method(ProcessResize, Nothing),
    "process/signal": Method(ProcessSignal, Nothing),
    "process/terminate": Method(ProcessId, Running),
    "command/exec": Method(CommandExec, CommandId),
    "command/exec/write": Method(CommandWrite, Accepted, waits=True),
    "command/exec/terminate": Method(CommandId, Running),
    "fs/readFile": Method(FilePath, FileData, "filesystem", waits=True),
    "fs/writeFile": Method(FileWrite, Nothing, "filesystem", waits=True),
    "fs/createDirectory": Method(DirectoryCreate, Nothing, "filesystem", waits=True),
    "fs/getMetadata": Method(FilePath, FileMetadata, "filesystem", waits=True),
    "fs/canonicalize": Method(FilePath, CanonicalPath, "filesystem", waits=True),
    "fs/readDirectory": Method(FilePath, DirectoryListing, "filesystem", waits=True),
    "fs/walk": Method(FileWalk, Walked, "filesystem", waits=True),
    "fs/remove": Method(FileRemove, Nothing, "filesystem", waits=True),
    "fs/copy": Method(FileCopy, Nothing, "filesystem", waits=True),
    "fs/open": Method(FileOpen, FileHandle, "filesystem", waits=True),
    "fs/readBlock": Method(BlockRead, Block, "filesystem", waits=True),
    "fs/writeBlock": Method(BlockWrite, Nothing, "filesystem", waits=True),
    "fs/close": Method(FileHandle, Nothing, "filesystem", waits=True),
    "fs/watchMissing": Method(WatchMissing, Watching, "filesystem", waits=True),
}

NOTIFICATIONS: dict[str, type[Struct]] = {
    "process/output": ProcessOutput,
    "process/exited": ProcessExited,
    "process/closed": ProcessClosed,
    "command/exec/outputDelta": CommandOutputDelta,
    "command/exec/exited": CommandExited,
    "fs/missingChanged": MissingChanged,
}
"""What the server tells. The one thing that a client tells is `initialized`."""


class Envelope(Struct, frozen=True):
    """Any message before it is known which: the first of the two decoding steps."""

    jsonrpc: Any = None
    id: MessageId | UnsetType | None = UNSET
    method: str | UnsetType = UNSET
    params: msgspec.Raw | UnsetType = UNSET
    result: msgspec.Raw | UnsetType = UNSET
    error: ErrorObject | UnsetType = UNSET
