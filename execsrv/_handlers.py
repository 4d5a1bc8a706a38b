"""One short function per method: the only place that knows both the wire and the sessions.

A handler does at once what must happen in the order of the requests, and returns the result; or, where something has
to be waited for, the rest of itself to be run as a task. So nothing that one request waits for delays another, and two
writes can never overtake each other.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeVar

import trio
from msgspec import Struct

from execsrv._discovery import discover_roots
from execsrv._environment import command_environment, environment_config, environment_info
from execsrv._files.files import Files, file_capabilities
from execsrv._output import Closed, Entry, Exited, Gap
from execsrv._paths import path_from_wire
from execsrv._processes.command import settle
from execsrv._processes.spawn import spawn
from execsrv._relay import Relay
from execsrv._session import Session, Terms, Write
from execsrv._sessions import Sessions
from execsrv._signal_names import signal_number
from execsrv.errors import (
    InvalidParams,
    LimitExceeded,
    NotAllowed,
    SandboxUnsupported,
    StdinClosed,
    UnknownProcess,
)
from execsrv.limits import ServerConfig
from execsrv.protocol import (
    Accepted,
    CapabilitiesDiscover,
    CapabilitiesFound,
    CapabilityRootsDiscover,
    CommandExec,
    CommandExited,
    CommandId,
    CommandOutputDelta,
    CommandWrite,
    EnvironmentConfigRead,
    EnvironmentInfo,
    EnvironmentStatus,
    FileCall,
    Graceful,
    HttpRequest,
    ListedProcess,
    NoParams,
    Nothing,
    Notification,
    ProcessAck,
    ProcessClosed,
    ProcessExited,
    ProcessGap,
    ProcessId,
    ProcessList,
    ProcessOutput,
    ProcessOutputRead,
    ProcessRead,
    ProcessResize,
    ProcessSignal,
    ProcessSignaled,
    ProcessSnapshot,
    ProcessStart,
    ProcessStarted,
    ProcessTerminate,
    ProcessWait,
    ProcessWaited,
    ProcessWrite,
    ProcessWritten,
    Running,
    Size,
    StreamSnapshot,
    Unit,
)


class Caller(Protocol):
    """What a handler may touch: the sessions of the connection that asks, what belongs to its channel, and what the
    server allows."""

    sessions: Sessions
    files: Files
    relay: Relay
    config: ServerConfig


P = TypeVar("P", bound=Struct)
Answer = Struct | Coroutine[Any, Any, Struct]
A = TypeVar("A", bound=Answer)
Handler = Callable[[Caller, Any], Answer]

HANDLERS: dict[str, Handler] = {}


def handles(method: str) -> Callable[[Callable[[Caller, P], A]], Callable[[Caller, P], A]]:
    """Enter a function into `HANDLERS`."""

    def enter(handler: Callable[[Caller, P], A]) -> Callable[[Caller, P], A]:
        HANDLERS[method] = handler
        return handler

    return enter


# -- process/* --


@handles("process/start")
def process_start(caller: Caller, params: ProcessStart) -> Answer:
    _check_unconfined(params.sandbox)
    _check_kind(caller.config, params.kind)
    if params.kind == "prepared":
        _check_prepared(params)
    _check_window(caller.config, params.window_bytes)
    id = caller.sessions.claim(params.process_id)
    env = command_environment(params.env_policy, os.environ, params.env)
    command = settle(params.argv, path_from_wire(params.cwd, "cwd"), env, params.arg0)
    size = params.size or Size()
    terms = Terms(
        timeout=_seconds(params.timeout_ms),
        idle_timeout=_seconds(params.idle_timeout_ms),
        window_bytes=params.window_bytes,
        drops=params.overflow == "drop",
    )
    spawned = spawn(command, size=size if params.tty else None, pipe_stdin=params.pipe_stdin)
    return ProcessStarted(caller.sessions.adopt(id, spawned, process_voice, terms).id)


def _check_kind(config: ServerConfig, kind: str) -> None:
    if not (config.allow_prepared_exec if kind == "prepared" else config.allow_direct_exec):
        setting = f"allow_{kind}_exec"
        raise NotAllowed(f"this server takes no {kind} commands: {setting} is off", setting=setting)


def _check_prepared(params: ProcessStart) -> None:
    """A prepared command leaves nothing to be looked up or inherited."""
    if params.argv and not params.argv[0].startswith("/"):
        raise InvalidParams("argv[0]: a prepared command names its program by an absolute path", field="argv")
    if params.env_policy is not None:
        raise InvalidParams("envPolicy: a prepared command inherits nothing", field="envPolicy")


def _check_window(config: ServerConfig, window_bytes: int | None) -> None:
    bound = config.max_window_bytes
    if window_bytes is not None and window_bytes > bound:
        message = f"windowBytes is {window_bytes}: max_window_bytes ({bound}) would be exceeded"
        raise LimitExceeded(message, limit="max_window_bytes", value=bound)


def _seconds(milliseconds: int | None) -> float:
    return math.inf if milliseconds is None else milliseconds / 1000


@handles("process/write")
def process_write(caller: Caller, params: ProcessWrite) -> Answer:
    if not params.write_id:
        raise InvalidParams("writeId must not be empty", field="writeId")
    session = caller.sessions.find(params.process_id)
    if session is None:
        return ProcessWritten("unknownProcess")
    try:
        write = session.write(params.chunk, params.write_id)
    except StdinClosed:
        return ProcessWritten("stdinClosed")
    return _process_written(write) if not write.settled.is_set() else _write_status(write)


async def _process_written(write: Write) -> Struct:
    await write.settled.wait()
    return _write_status(write)


def _write_status(write: Write) -> ProcessWritten:
    return ProcessWritten("accepted" if write.error is None else "stdinClosed")


@handles("process/closeStdin")
def process_close_stdin(caller: Caller, params: ProcessId) -> Answer:
    _known(caller, params.process_id).close_stdin()
    return Nothing()


@handles("process/read")
def process_read(caller: Caller, params: ProcessRead) -> Answer:
    return _process_read(_known(caller, params.process_id), params)


async def _process_read(session: Session, params: ProcessRead) -> Struct:
    """Wait, if asked to, for a chunk or an end that is newer than `afterSeq`; then say what there is."""
    log, after = session.log, params.after_seq or 0
    with trio.move_on_after((params.wait_ms or 0) / 1000):
        while log.next_seq <= after + 1 and not log.closed:
            await session.wait_appended()
    gap, chunks, next_seq = log.read(after, params.max_bytes)
    return ProcessOutputRead(
        chunks=chunks,
        next_seq=next_seq,
        exited=log.exited is not None,
        exit_code=log.exited.exit_code if log.exited else None,
        closed=log.closed is not None,
        gap=gap,
        exit=_process_exited(session.id, log.exited) if log.exited else None,
        close=_process_closed(session.id, log.closed) if log.closed else None,
    )


@handles("process/wait")
def process_wait(caller: Caller, params: ProcessWait) -> Answer:
    return _process_wait(_known(caller, params.process_id), _seconds(params.timeout_ms))


async def _process_wait(session: Session, seconds: float) -> Struct:
    log = session.log
    with trio.move_on_after(seconds):
        while log.exited is None:
            await session.wait_appended()
    if log.exited is None:
        return ProcessWaited(running=True)
    return ProcessWaited(False, log.exited.exit_code, log.exited.signal, log.exited.reason)


@handles("process/snapshot")
def process_snapshot(caller: Caller, params: ProcessId) -> Answer:
    session = _known(caller, params.process_id)
    log = session.log
    return ProcessSnapshot(
        running=log.exited is None,
        exit_code=log.exited.exit_code if log.exited else None,
        signal=log.exited.signal if log.exited else None,
        reason=log.exited.reason if log.exited else None,
        closed=log.closed is not None,
        next_seq=log.next_seq,
        totals=log.totals,
        **{
            "terminal" if stream == "pty" else stream: StreamSnapshot(
                ends.head, ends.tail, ends.omitted_bytes, ends.total_bytes
            )
            for stream, ends in log.streams.items()
        },
    )


@handles("process/list")
def process_list(caller: Caller, params: NoParams) -> Answer:
    return ProcessList([_listed(session) for session in caller.sessions])


def _listed(session: Session) -> ListedProcess:
    exited = session.log.exited
    return ListedProcess(
        process_id=session.id,
        pid=session.pid,
        program=session.program,
        tty=session.is_terminal,
        running=exited is None,
        exit_code=exited.exit_code if exited else None,
        closed=session.log.closed is not None,
    )


@handles("process/ack")
def process_ack(caller: Caller, params: ProcessAck) -> Answer:
    session = _known(caller, params.process_id)
    session.log.acknowledge(params.seq)
    session.taken()
    return Nothing()


@handles("process/resize")
def process_resize(caller: Caller, params: ProcessResize) -> Answer:
    session = _known(caller, params.process_id)
    if not session.is_terminal:
        raise InvalidParams(f"process {session.id} has no terminal to resize", field="processId")
    session.resize(params.rows, params.cols)
    return Nothing()


@handles("process/signal")
def process_signal(caller: Caller, params: ProcessSignal) -> Answer:
    number = signal_number(params.signal)
    session = caller.sessions.find(params.process_id)
    if session is None:
        if params.signal == "interrupt":
            return ProcessSignaled(0)  # as the Codex exec-server has it
        raise _unknown(params.process_id)
    if params.target == "foreground" and not session.is_terminal:
        raise InvalidParams(f"process {session.id} has no terminal, and so no job in front", field="target")
    return ProcessSignaled(session.signal(number, params.target))


@handles("process/terminate")
def process_terminate(caller: Caller, params: ProcessTerminate) -> Answer:
    session = caller.sessions.find(params.process_id)
    grace = params.mode.graceful.timeout_ms / 1000 if isinstance(params.mode, Graceful) else 0
    return Running(session is not None and session.terminate(grace=grace))


def process_voice(session: Session, entry: Entry) -> Notification:
    """How `process/*` tells an entry of a log."""
    match entry:
        case Exited():
            return Notification("process/exited", _process_exited(session.id, entry))
        case Closed():
            return Notification("process/closed", _process_closed(session.id, entry))
        case Gap():
            return Notification("process/gap", ProcessGap(session.id, entry.from_seq, entry.seq, entry.omitted))
        case _:
            return Notification("process/output", ProcessOutput(session.id, entry.seq, entry.stream, entry.chunk))


def _process_exited(id: str, entry: Exited) -> ProcessExited:
    return ProcessExited(id, entry.seq, entry.exit_code, signal=entry.signal, reason=entry.reason)


def _process_closed(id: str, entry: Closed) -> ProcessClosed:
    return ProcessClosed(id, entry.seq, entry.totals, entry.remaining)


# -- command/* --


@handles("command/exec")
def command_exec(caller: Caller, params: CommandExec) -> Answer:
    _check_kind(caller.config, "direct")
    id = caller.sessions.claim(None)
    command = settle(params.argv, path_from_wire(params.cwd, "cwd"), params.env, params.arg0)
    spawned = spawn(command, size=Size() if params.tty else None, pipe_stdin=False)
    return CommandId(caller.sessions.adopt(id, spawned, command_voice, Terms()).id)


@handles("command/exec/write")
def command_write(caller: Caller, params: CommandWrite) -> Answer:
    write = _known_command(caller, params.session_id).write(params.chunk)
    return _command_written(write)


async def _command_written(write: Write) -> Struct:
    await write.wait()
    return Accepted()


@handles("command/exec/terminate")
def command_terminate(caller: Caller, params: CommandId) -> Answer:
    session = caller.sessions.find(params.session_id)
    return Running(session is not None and session.terminate())


def command_voice(session: Session, entry: Entry) -> Notification | None:
    """How `exec-server.v0` tells an entry of a log: it has no word for the close."""
    match entry:
        case Exited():
            return Notification("command/exec/exited", CommandExited(session.id, entry.exit_code))
        case Closed() | Gap():  # it cannot ask for gaps
            return None
        case _:
            stream = entry.stream if entry.stream != "pty" else "stdout"
            return Notification("command/exec/outputDelta", CommandOutputDelta(session.id, stream, entry.chunk))


# -- http/*, environment/*, capabilities --


@handles("http/request")
def http_request(caller: Caller, params: HttpRequest) -> Answer:
    return caller.relay.request(params)


@handles("environment/info")
def tell_of_environment(caller: Caller, params: Unit) -> EnvironmentInfo:
    capabilities = {"environmentConfigRead": True, "httpHeaderEnvVars": caller.relay.available}
    return environment_info(capabilities | file_capabilities(caller.config))


@handles("environment/status")
def environment_status(caller: Caller, params: Unit) -> Answer:
    return EnvironmentStatus()


@handles("environmentConfig/read")
def environment_config_read(caller: Caller, params: EnvironmentConfigRead) -> Answer:
    return environment_config(params)


@handles("capabilityRoots/discoverV1")
def capability_roots_discover(caller: Caller, params: CapabilityRootsDiscover) -> Answer:
    return discover_roots([(root, path_from_wire(root.path, "path")) for root in params.roots])


@handles("capabilities/discoverV2")
def capabilities_discover(caller: Caller, params: CapabilitiesDiscover) -> Answer:
    path_from_wire(params.cwd, "cwd")
    return CapabilitiesFound()


# -- fs/* --

FILE_METHODS: dict[str, Callable[[Files, Any], Answer]] = {
    "fs/readFile": Files.read_file,
    "fs/writeFile": Files.write_file,
    "fs/createDirectory": Files.create_directory,
    "fs/getMetadata": Files.get_metadata,
    "fs/canonicalize": Files.canonicalize,
    "fs/readDirectory": Files.read_directory,
    "fs/walk": Files.walk,
    "fs/remove": Files.remove,
    "fs/copy": Files.copy,
    "fs/open": lambda files, params: files.blocks.open(params),
    "fs/readBlock": lambda files, params: files.blocks.read_block(params),
    "fs/writeBlock": lambda files, params: files.blocks.write_block(params),
    "fs/close": lambda files, params: files.blocks.close(params),
    "fs/watchMissing": lambda files, params: files.watches.watch_missing(params),
}


def _file_handler(method: Callable[[Files, Any], Answer]) -> Handler:
    def handler(caller: Caller, params: Any) -> Answer:
        if isinstance(params, FileCall):
            _check_unconfined(params.sandbox)
        return method(caller.files, params)

    return handler


HANDLERS.update({name: _file_handler(method) for name, method in FILE_METHODS.items()})


# -- shared --


def _check_unconfined(sandbox: Any) -> None:
    """Raise `SandboxUnsupported` for a sandbox policy that asks for confinement."""
    permissions = sandbox.get("permissions") if isinstance(sandbox, dict) else None
    disabled = isinstance(permissions, dict) and permissions.get("type") == "disabled"
    if sandbox is not None and not disabled:
        raise SandboxUnsupported("this server cannot confine anything: sandbox must be null", field="sandbox")


def _known(caller: Caller, id: str) -> Session:
    session = caller.sessions.find(id)
    if session is None:
        raise _unknown(id)
    return session


def _unknown(id: str) -> UnknownProcess:
    return UnknownProcess(f"unknown process id {id}")


def _known_command(caller: Caller, id: str) -> Session:
    """In `exec-server.v0` an id is forgotten when its session has closed."""
    session = caller.sessions.find(id)
    if session is None or session.log.closed:
        raise UnknownProcess(f"unknown session id {id}")
    return session
