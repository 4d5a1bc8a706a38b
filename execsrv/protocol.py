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
Layer = Literal["subreaper", "mark", "session", "group"]
"""By what a server knows who descends from a command, from the strongest to the weakest: see docs/survival.md."""
Reason = Literal["exited", "signaled", "timeout", "idle", "terminated", "disconnected", "shutdown"]


# -- handshake --


class Initialize(Wire, frozen=True):
    """The first request of every connection."""

    client_name: str
    resume_session_id: str | None = None


class Initialized(Wire, frozen=True):
    """The answer to `initialize`. `session_id` names the connection, not a process: what it takes to resume it.

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
    timeout_ms: Annotated[int, Meta(ge=1, le=2**53)] | None = None
    """End it that long after its start."""
    idle_timeout_ms: Annotated[int, Meta(ge=1, le=2**53)] | None = None
    """End it when it has neither printed nor been given anything for that long."""
    overflow: Literal["block", "drop"] = "block"
    """What happens to output beyond the window: the command waits, or the oldest of it is left out (`process/gap`)."""
    kind: Literal["direct", "prepared"] = "direct"
    """A prepared command is run exactly as given: its program and directory are absolute, and nothing is inherited."""


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


class ReadGap(Wire, frozen=True):
    """Entries `from_seq` to `seq` are not retained any more. `printed_before` is how much of each stream was printed
    before what comes behind the gap, so that who counts what it had knows how much it misses."""

    from_seq: int
    seq: int
    printed_before: dict[Stream, int]


class ProcessId(Wire, frozen=True):
    """Names one process of this connection."""

    process_id: str


SignalTarget = Literal["leader", "group", "foreground", "tree"]


class ProcessSignal(Wire, frozen=True):
    """A signal by name ("TERM", "SIGTERM", "interrupt" for SIGINT) or number, to the started process, its process
    group, the job in front of its terminal, or everything that descends from it."""

    process_id: str
    signal: str | int
    target: SignalTarget = "group"


class ProcessSignaled(Wire, frozen=True):
    """How many processes were sent it."""

    received: int


class Grace(Wire, frozen=True):
    """How long a process that was asked to end may take."""

    timeout_ms: Annotated[int, Meta(ge=0, le=2**53)]


class Graceful(Wire, frozen=True):
    """SIGTERM first, SIGKILL for what is left after the grace."""

    graceful: Grace


class ProcessTerminate(Wire, frozen=True):
    """End everything of a process, whether or not its leader has ended already."""

    process_id: str
    mode: Literal["force"] | Graceful = "force"


class ProcessWait(Wire, frozen=True):
    """Wait for the end of the leader, by default without a bound."""

    process_id: str
    timeout_ms: Annotated[int, Meta(ge=0, le=2**53)] | None = None


class ProcessWaited(Wire, frozen=True):
    """How the leader ended; `running` and nothing else when it had not by then."""

    running: bool
    exit_code: int | None = None
    signal: str | None = None
    reason: Reason | None = None


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
    reason: Reason = "exited"


class Member(Wire, frozen=True):
    """A process that descends from a command."""

    pid: int
    name: str


class ProcessClosed(Wire, frozen=True):
    """<- nothing more will come: the leader has ended and every stream is at its end.

    `totals` is what each stream carried, in bytes; `remaining` what descends from the command and still lives.
    `tree_empty`, once its end was forced: by which layer it is known that nothing does.
    """

    process_id: str
    seq: int
    totals: dict[Stream, int] = {}
    remaining: list[Member] = []
    tree_empty: Layer | None = None


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
    """What is known of a process now. A piped one has `stdout` and `stderr`, the other kind `terminal`."""

    running: bool
    exit_code: int | None
    signal: str | None
    reason: Reason | None
    closed: bool
    next_seq: int
    totals: dict[Stream, int]
    stdout: StreamSnapshot | None = None
    stderr: StreamSnapshot | None = None
    terminal: StreamSnapshot | None = None


class NoParams(Wire, frozen=True):
    """Takes nothing."""


class ListedProcess(Wire, frozen=True):
    """One line of `process/list`. `pid` is the leader's, on the server's machine; `program` the name of its file."""

    process_id: str
    pid: int
    program: str
    tty: bool
    running: bool
    exit_code: int | None
    closed: bool


class ProcessList(Wire, frozen=True):
    """The processes of this connection, oldest first, those that have ended and are still readable among them."""

    processes: list[ListedProcess]


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


# -- http/* --


class HttpField(Wire, frozen=True):
    """One header field of a response: its name in lower case, and its value."""

    name: str
    value: str


class HttpHeader(Wire, frozen=True):
    """One header field of a request. With `value_env_var`, that variable of the server is put behind `value`."""

    name: str
    value: str
    value_env_var: str | None = None


class HttpRequest(Wire, frozen=True):
    """Make an HTTP request from the server's machine. `timeout_ms` counts to the end of the body; None: for ever.

    With `stream_response` the answer comes with the response's header, and its body in `http/request/bodyDelta`,
    which `request_id` pairs with this request.
    """

    method: str
    url: str
    request_id: str
    headers: list[HttpHeader] = []
    body_base64: bytes | None = None
    timeout_ms: Annotated[int, Meta(ge=0, le=2**53)] | None = None
    redirect_policy: Literal["follow", "stop"] = "follow"
    stream_response: bool = False


class HttpResponse(Wire, frozen=True):
    """What came back, whatever its status. A streamed body is empty here."""

    status: int
    headers: list[HttpField]
    body_base64: bytes


class HttpBodyDelta(Struct, frozen=True, rename="camel", gc=False):
    """<- a piece of a streamed body; `seq` counts from 1. The last is empty and `done`; `error`: it was cut."""

    request_id: str
    seq: int
    delta_base64: bytes
    done: bool = False
    error: str | None = None


# -- environment/* --


class Unit(Wire, frozen=True, forbid_unknown_fields=True):
    """No parameters: absent, null or an empty object."""


class EnvironmentStatus(Wire, frozen=True):
    """Whoever can be asked is ready."""

    status: Literal["ready"] = "ready"


class EnvironmentConfigRead(Wire, frozen=True):
    """Ask for parts of the server's own Codex configuration, each by the path of its keys."""

    cwd: str
    config_paths: list[list[str]]
    requirements_paths: list[list[str]]


class ConfigLayer(Wire, frozen=True):
    """One configuration file: what it is called, the directory that it counts from, and the asked parts of it."""

    source: str
    base_dir: str
    toml: str


class ConfigLayers(Wire, frozen=True):
    """Configuration files, and where among them a cloud's would go."""

    layers: list[ConfigLayer] = []
    cloud_insertion_index: int = 0


class EnvironmentConfig(Wire, frozen=True):
    """The asked configuration: there is none, since execsrv has no part in it. Directories are `file:` URIs."""

    user_home_dir: str
    codex_home_dir: str
    hostname: str
    config: ConfigLayers = ConfigLayers()
    requirements: ConfigLayers = ConfigLayers()


# -- capabilities: plugins and skills --


class CapabilityRoot(Wire, frozen=True):
    """A directory that may hold plugins and skills, under an id of the client's."""

    id: str
    path: str


class CapabilityRootsDiscover(Wire, frozen=True):
    """Ask what these directories hold."""

    roots: list[CapabilityRoot]


class CapabilityRootFound(Wire, frozen=True):
    """What one root holds, or why it could not be read."""

    id: str
    path: str
    plugin: None = None
    skills: list[Any] = []
    namespace_manifests: list[Any] = []
    warnings: list[str] = []
    error: str | None = None


class CapabilityRootsFound(Wire, frozen=True):
    """One answer for each root, in their order."""

    roots: list[CapabilityRootFound]


class CapabilitiesDiscover(Wire, frozen=True):
    """Ask for all plugins and skills that apply in a directory."""

    cwd: str


class CapabilitiesFound(Wire, frozen=True):
    """None: this server looks for none, and does not announce that it would."""

    plugins: list[Any] = []
    skills: list[Any] = []
    warnings: list[str] = []


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
    "process/signal": Method(ProcessSignal, ProcessSignaled),
    "process/terminate": Method(ProcessTerminate, Running),
    "process/wait": Method(ProcessWait, ProcessWaited, waits=True),
    "process/snapshot": Method(ProcessId, ProcessSnapshot),
    "process/list": Method(NoParams, ProcessList),
    "command/exec": Method(CommandExec, CommandId),
    "command/exec/write": Method(CommandWrite, Accepted, waits=True),
    "command/exec/terminate": Method(CommandId, Running),
    "http/request": Method(HttpRequest, HttpResponse, "http", waits=True),
    "environment/info": Method(Unit, EnvironmentInfo, "environment info"),
    "environment/status": Method(Unit, EnvironmentStatus, "environment status"),
    "environmentConfig/read": Method(EnvironmentConfigRead, EnvironmentConfig, "environment config"),
    "capabilityRoots/discoverV1": Method(
        CapabilityRootsDiscover, CapabilityRootsFound, "capability discovery", waits=True
    ),
    "capabilities/discoverV2": Method(CapabilitiesDiscover, CapabilitiesFound, "capability discovery"),
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
    "process/gap": ProcessGap,
    "process/exited": ProcessExited,
    "process/closed": ProcessClosed,
    "command/exec/outputDelta": CommandOutputDelta,
    "command/exec/exited": CommandExited,
    "http/request/bodyDelta": HttpBodyDelta,
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
