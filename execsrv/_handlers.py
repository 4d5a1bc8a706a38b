"""One short function per method: the only place that knows both the wire and the sessions.

A handler does at once what must happen in the order of the requests, and returns the result; or, where something has
to be waited for, the rest of itself to be run as a task. So nothing that one request waits for delays another, and two
writes can never overtake each other.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import trio
from msgspec import Struct

from execsrv._environment import command_environment, environment_info
from execsrv._files.files import Files
from execsrv._output import Closed, Entry, Exited
from execsrv._paths import path_from_wire
from execsrv._processes.command import settle
from execsrv._processes.spawn import spawn
from execsrv._session import Session, Write
from execsrv._sessions import Sessions
from execsrv.errors import InvalidParams, SandboxUnsupported, StdinClosed, UnknownConnection, UnknownProcess
from execsrv.protocol import (
    PROTOCOL_VERSION,
    Accepted,
    CommandExec,
    CommandExited,
    CommandId,
    CommandOutputDelta,
    CommandWrite,
    FileCall,
    Initialize,
    Initialized,
    Nothing,
    Notification,
    ProcessAck,
    ProcessClosed,
    ProcessExited,
    ProcessId,
    ProcessOutput,
    ProcessOutputRead,
    ProcessRead,
    ProcessResize,
    ProcessSignal,
    ProcessStart,
    ProcessStarted,
    ProcessWrite,
    ProcessWritten,
    Running,
    Size,
)

P = TypeVar("P", bound=Struct)
Answer = Struct | Coroutine[Any, Any, Struct]
Handler = Callable[[Sessions, Any], Answer]

HANDLERS: dict[str, Handler] = {}


def handles(method: str) -> Callable[[Callable[[Sessions, P], Answer]], Callable[[Sessions, P], Answer]]:
    """Enter a function into `HANDLERS`."""

    def enter(handler: Callable[[Sessions, P], Answer]) -> Callable[[Sessions, P], Answer]:
        HANDLERS[method] = handler
        return handler

    return enter


@handles("initialize")
def initialize(sessions: Sessions, params: Initialize) -> Answer:
    if params.resume_session_id is not None:
        raise UnknownConnection(f"unknown session id {params.resume_session_id}")
    return Initialized(sessions.connection_id, environment_info(sessions.capabilities), PROTOCOL_VERSION)


# -- process/* --


@handles("process/start")
def process_start(sessions: Sessions, params: ProcessStart) -> Answer:
    _check_unconfined(params.sandbox)
    sessions.check_window(params.window_bytes)
    id = sessions.claim(params.process_id)
    env = command_environment(params.env_policy, os.environ, params.env)
    command = settle(params.argv, path_from_wire(params.cwd, "cwd"), env, params.arg0)
    size = params.size or Size()
    spawned = spawn(command, size=size if params.tty else None, pipe_stdin=params.pipe_stdin)
    session = sessions.adopt(id, spawned, process_voice, params.window_bytes)
    return ProcessStarted(session.id)


@handles("process/write")
def process_write(sessions: Sessions, params: ProcessWrite) -> Answer:
    if not params.write_id:
        raise InvalidParams("writeId must not be empty", field="writeId")
    session = sessions.find(params.process_id)
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
def process_close_stdin(sessions: Sessions, params: ProcessId) -> Answer:
    _known(sessions, params.process_id).close_stdin()
    return Nothing()


@handles("process/read")
def process_read(sessions: Sessions, params: ProcessRead) -> Answer:
    return _process_read(_known(sessions, params.process_id), params)


async def _process_read(session: Session, params: ProcessRead) -> Struct:
    """Wait, if asked to, for a chunk or an end that is newer than `afterSeq`; then say what there is."""
    log, after = session.log, params.after_seq or 0
    with trio.move_on_after((params.wait_ms or 0) / 1000):
        while log.next_seq <= after + 1 and not log.closed:
            await session.wait_appended()
    chunks, next_seq = log.read(after, params.max_bytes)
    return ProcessOutputRead(
        chunks=chunks,
        next_seq=next_seq,
        exited=log.exited is not None,
        exit_code=log.exited.exit_code if log.exited else None,
        closed=log.closed,
    )


@handles("process/ack")
def process_ack(sessions: Sessions, params: ProcessAck) -> Answer:
    session = _known(sessions, params.process_id)
    session.log.acknowledge(params.seq)
    session.taken()
    return Nothing()


@handles("process/resize")
def process_resize(sessions: Sessions, params: ProcessResize) -> Answer:
    session = _known(sessions, params.process_id)
    if not session.is_terminal:
        raise InvalidParams(f"process {session.id} has no terminal to resize", field="processId")
    session.resize(params.rows, params.cols)
    return Nothing()


@handles("process/signal")
def process_signal(sessions: Sessions, params: ProcessSignal) -> Answer:
    session = sessions.find(params.process_id)
    if session is not None:
        session.interrupt()
    return Nothing()


@handles("process/terminate")
def process_terminate(sessions: Sessions, params: ProcessId) -> Answer:
    session = sessions.find(params.process_id)
    return Running(session is not None and session.terminate())


def process_voice(session: Session, entry: Entry) -> Notification:
    """How `process/*` tells an entry of a log."""
    match entry:
        case Exited():
            exited = ProcessExited(session.id, entry.seq, entry.exit_code, signal=entry.signal, reason=entry.reason)
            return Notification("process/exited", exited)
        case Closed():
            return Notification("process/closed", ProcessClosed(session.id, entry.seq))
        case _:
            return Notification("process/output", ProcessOutput(session.id, entry.seq, entry.stream, entry.chunk))


# -- command/* --


@handles("command/exec")
def command_exec(sessions: Sessions, params: CommandExec) -> Answer:
    command = settle(params.argv, path_from_wire(params.cwd, "cwd"), params.env, params.arg0)
    spawned = spawn(command, size=Size() if params.tty else None, pipe_stdin=False)
    return CommandId(sessions.adopt(sessions.claim(None), spawned, command_voice).id)


@handles("command/exec/write")
def command_write(sessions: Sessions, params: CommandWrite) -> Answer:
    write = _known_command(sessions, params.session_id).write(params.chunk)
    return _command_written(write)


async def _command_written(write: Write) -> Struct:
    await write.wait()
    return Accepted()


@handles("command/exec/terminate")
def command_terminate(sessions: Sessions, params: CommandId) -> Answer:
    session = sessions.find(params.session_id)
    return Running(session is not None and session.terminate())


def command_voice(session: Session, entry: Entry) -> Notification | None:
    """How `exec-server.v0` tells an entry of a log: it has no word for the close."""
    match entry:
        case Exited():
            return Notification("command/exec/exited", CommandExited(session.id, entry.exit_code))
        case Closed():
            return None
        case _:
            stream = entry.stream if entry.stream != "pty" else "stdout"
            return Notification("command/exec/outputDelta", CommandOutputDelta(session.id, stream, entry.chunk))


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
    def handler(sessions: Sessions, params: Any) -> Answer:
        if isinstance(params, FileCall):
            _check_unconfined(params.sandbox)
        assert sessions.files is not None
        return method(sessions.files, params)

    return handler


HANDLERS.update({name: _file_handler(method) for name, method in FILE_METHODS.items()})


# -- shared --


def _check_unconfined(sandbox: Any) -> None:
    """Raise `SandboxUnsupported` for a sandbox policy that asks for confinement."""
    permissions = sandbox.get("permissions") if isinstance(sandbox, dict) else None
    disabled = isinstance(permissions, dict) and permissions.get("type") == "disabled"
    if sandbox is not None and not disabled:
        raise SandboxUnsupported("this server cannot confine anything: sandbox must be null", field="sandbox")


def _known(sessions: Sessions, id: str) -> Session:
    session = sessions.find(id)
    if session is None:
        raise UnknownProcess(f"unknown process id {id}")
    return session


def _known_command(sessions: Sessions, id: str) -> Session:
    """In `exec-server.v0` an id is forgotten when its session has closed."""
    session = sessions.find(id)
    if session is None or session.log.closed:
        raise UnknownProcess(f"unknown session id {id}")
    return session
