"""The messages of version 2: many commands, each by an id that the server chooses. Pure: no I/O.

Output and input are `Data`, with credits both ways: a side sends no more bytes of a stream than it was given credit
for, so that a command which does not read, or a reader which is slow, holds up itself alone. Everything else is small,
and never waits behind bytes.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from execsrv.limits import KIB, MIB
from execsrv.protocol import EnvPolicy, Layer, Member, SignalTarget, Size
from execsrv.protocol.bounds import Name, PathText, Variables, Word, Words
from execsrv.protocol.process_limits import ProcessLimits, ProcessUsage, Reached
from execsrv.protocol.sandbox import Sandbox

STDIN_WINDOW_BYTES = MIB
"""The credit for the input of each command at its start."""

LEAST_WINDOW_BYTES = 64 * KIB

DATA_BYTES = 64 * KIB
"""The most that one `Data` of ours carries."""

Id = Annotated[int, Meta(ge=0, le=2**32 - 1)]
Number = Annotated[int, Meta(ge=0, le=2**32 - 1)]
"""The number of a question, which its answer repeats."""
Pid = Annotated[int, Meta(ge=1, le=2**31 - 1)]
Count = Annotated[int, Meta(ge=0, le=2**53)]
Bytes = Annotated[int, Meta(ge=1, le=2**53)]
Errno = Annotated[int, Meta(ge=0, le=65535)]
SignalName = Annotated[str, Meta(max_length=64, pattern=r"^SIG[A-Z0-9+]+\Z")]
"""It is told and shown as the name of a signal, so that it may be nothing else."""
Text = Annotated[str, Meta(max_length=64 * KIB)]
Facts = Annotated[list[Text], Meta(max_length=1024)]

Stream = Literal["stdout", "stderr", "pty"]


class Data(Struct, frozen=True, gc=False):
    """Bytes of one stream of a command: output, or "stdin". They travel as they are, not as JSON."""

    id: int
    stream: Literal["stdin", "stdout", "stderr", "pty"]
    data: bytes


# -- to the runner --


class Hello(Struct, frozen=True):
    """First. A descriptor that comes along, any, shows that nothing relays between the two sides."""


class SpawnRequest(Struct, frozen=True):
    """Start a command. Its id is higher than all before it. `env` is exact, unless `env_policy` lays it upon the
    runner's own environment.

    "passed" streams are those whose ends come along as descriptors, in the order of stdin, stdout and stderr.
    """

    id: Id
    command: Words
    cwd: PathText | None
    """An absolute path. None: the runner's own directory."""
    env: Variables
    window: Annotated[int, Meta(ge=LEAST_WINDOW_BYTES, le=2**31)]
    """The credit for each stream of output at its start."""
    tty: bool = False
    arg0: Word | None = None
    env_policy: EnvPolicy | None = None
    env_remove: Annotated[list[Word], Meta(max_length=64 * 1024)] = []
    size: Size = Size()
    modes: Annotated[dict[Name, bool | Annotated[int, Meta(ge=0, le=255)]], Meta(max_length=256)] = {}
    sandbox: Sandbox | None = None
    """The policy by which it is confined there. One that cannot be kept is refused."""
    stdin_open: bool = False
    stdin_passed: bool = False
    stdout: Literal["pipe", "null", "passed"] = "pipe"
    stderr: Literal["pipe", "null", "passed", "stdout"] = "pipe"
    limits: ProcessLimits | None = None
    """What cannot be kept there is refused."""
    umask: Annotated[int, Meta(ge=0, le=0o777)] | None = None
    nice: Annotated[int, Meta(ge=-20, le=19)] | None = None
    oom_score_adj: Annotated[int, Meta(ge=-1000, le=1000)] | None = None


class CloseStdin(Struct, frozen=True):
    """End the input, behind all that was sent of it. A terminal gets its end-of-file character."""

    id: Id


class Resize(Struct, frozen=True):
    """Change the size of its terminal."""

    id: Id
    rows: Annotated[int, Meta(ge=1, le=65535)]
    cols: Annotated[int, Meta(ge=1, le=65535)]
    xpixel: Annotated[int, Meta(ge=0, le=65535)] = 0
    ypixel: Annotated[int, Meta(ge=0, le=65535)] = 0


class Signal(Struct, frozen=True):
    """Send a signal by its number. The answer is `Signaled`."""

    id: Id
    request: Number
    signal: Annotated[int, Meta(ge=0, le=64)]
    target: SignalTarget


class Terminate(Struct, frozen=True):
    """End everything of it: kill it, or with a grace ask it first. The runner kills nothing when the grace is over."""

    id: Id
    grace_ms: Count = 0


class Look(Struct, frozen=True):
    """Ask who lives of it, what that takes, and whether its terminal shows what is typed. The answer is `Looked`."""

    id: Id
    request: Number


class Credit(Struct, frozen=True):
    """Let so many bytes more of that stream come."""

    id: Id
    stream: Stream
    bytes: Bytes


class Forget(Struct, frozen=True):
    """Let go of it: what lives of it is killed, and what it has printed is thrown away."""

    id: Id


class Ping(Struct, frozen=True):
    """Ask for a `Pong`."""


# -- from the runner --


class HelloBack(Struct, frozen=True):
    """First: the versions that it speaks, whether descriptors arrive, and its pid, which is for people alone."""

    versions: Annotated[list[Annotated[int, Meta(ge=0, le=255)]], Meta(min_length=1, max_length=256)]
    descriptors: bool
    process_id: Pid


class SpawnReady(Struct, frozen=True):
    """The command's own program runs, with that confinement where it has one."""

    id: Id
    process_id: Pid
    layers: Facts = []
    gaps: Facts = []


class Eof(Struct, frozen=True):
    """That stream is at its end."""

    id: Id
    stream: Stream


class StdinDone(Struct, frozen=True):
    """The command has taken so many bytes: they are credit again. `closed`: nobody reads its input any more."""

    id: Id
    bytes: Count
    closed: bool = False


class Exit(Struct, frozen=True):
    """The leader has ended, and all that it wrote was sent before. A death by signal N is 128+N, with its name."""

    id: Id
    exit_code: Annotated[int, Meta(ge=0, le=255)]
    signal: SignalName | None = None
    limit: Reached | None = None
    """The limit that it has died of."""


class TreeEmpty(Struct, frozen=True):
    """Nothing of it lives any more, known by that layer; None where that could not be proved.

    It does not wait behind output.
    """

    id: Id
    layer: Layer | None
    cpu_ms: Count = 0
    usage: ProcessUsage | None = None
    """What was used, where there were limits."""


class Signaled(Struct, frozen=True):
    """So many processes were sent the signal; with an `errno`, the runner could not look for them."""

    request: Number
    received: Count
    errno: Errno | None = None


class InputWait(Struct, frozen=True):
    """A process that waits for input, by that system call on that descriptor, and how often it went to sleep."""

    pid: Pid
    name: Name
    call: Name
    descriptor: Count
    sleeps: Count


class Looked(Struct, frozen=True):
    """The answer to `Look`; with an `errno`, the runner could not look."""

    request: Number
    members: Annotated[list[Member], Meta(max_length=64 * 1024)] = []
    cpu_ms: Count = 0
    memory_bytes: Count = 0
    echoes: bool = True
    input_wait: InputWait | None = None
    """Who waits for input of which there is none. It is not known of input that was passed."""
    errno: Errno | None = None


class Error(Struct, frozen=True, omit_defaults=True):
    """A command that could not be started, by its id; or, without one, what ends the channel."""

    id: Id | None
    code: Name
    message: Text
    kind: Name | None = None
    """That of a refused start on the wire of a server. What follows are the facts that it has there."""
    stage: Name | None = None
    step: Name | None = None
    errno: Errno | None = None
    field: Name | None = None
    need: Text | None = None
    versions: Annotated[list[int], Meta(max_length=256)] = []


class Pong(Struct, frozen=True):
    """The answer to `Ping`."""


TO_RUNNER: dict[str, type[Struct]] = {
    "hello": Hello,
    "spawn_request": SpawnRequest,
    "close_stdin": CloseStdin,
    "resize": Resize,
    "signal": Signal,
    "terminate": Terminate,
    "look": Look,
    "credit": Credit,
    "forget": Forget,
    "ping": Ping,
}
FROM_RUNNER: dict[str, type[Struct]] = {
    "hello": HelloBack,
    "spawn_ready": SpawnReady,
    "eof": Eof,
    "stdin_done": StdinDone,
    "exit": Exit,
    "tree_empty": TreeEmpty,
    "signaled": Signaled,
    "looked": Looked,
    "error": Error,
    "pong": Pong,
}
