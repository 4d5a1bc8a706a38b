"""`command/*`: commands as `exec-server.v0` has them."""

from __future__ import annotations

from execsrv._doors.journal import Start
from execsrv._log.entries import Closed, Entry, Exited, Gap
from execsrv._policies import asked
from execsrv._processes.command import Command, settle
from execsrv._processes.environment import command_environment
from execsrv._processes.stdin import Write
from execsrv._server.methods.table import Caller, Later, check_kind, handles, handles_later
from execsrv._server.session import Session
from execsrv._server.start_options import StartOptions, shown_argv
from execsrv._server.starting import Deferred, answer_of
from execsrv._wire.paths import path_from_wire
from execsrv.errors import SandboxUnavailableError, UnknownProcessError
from execsrv.protocol import (
    Accepted,
    CommandExec,
    CommandExited,
    CommandId,
    CommandOutputDelta,
    CommandWrite,
    Notification,
    Running,
    Size,
)


@handles("command/exec", holds=True)
def command_exec(caller: Caller, params: CommandExec) -> CommandId | Deferred[CommandId]:
    if asked(params.sandbox) is not None:
        raise SandboxUnavailableError("command/exec confines nothing, as process/start does", field="sandbox")
    check_kind(caller.config, "direct")
    cwd = path_from_wire(params.cwd, "cwd")

    def settled(note: Start | None) -> Command:
        env = command_environment(None, {}, params.env)
        return settle(params.argv, cwd, env, params.arg0)

    size = Size() if params.tty else None
    options = StartOptions(is_read_again=False, argv=shown_argv(params.argv), cwd=cwd)
    starting = caller.sessions.start(None, settled, command_dialect, options, argv=params.argv, size=size)
    return answer_of(starting, lambda session: CommandId(session.id))


@handles_later("command/exec/write", holds=False, of="session_id", brings="chunk")  # its input counts by itself
def command_write(caller: Caller, params: CommandWrite) -> Later[Accepted]:
    write = _known_command(caller, params.session_id).stdin.write(params.chunk)
    return _command_written(write)


async def _command_written(write: Write) -> Accepted:
    await write.wait()
    return Accepted()


@handles("command/exec/terminate", of="session_id")
def command_terminate(caller: Caller, params: CommandId) -> Running:
    session = caller.sessions.find(params.session_id)
    return Running(session is not None and session.terminate())


def command_dialect(id: str, entry: Entry) -> Notification | None:
    """Say an entry of a log as `exec-server.v0` does, which has no word for the close."""
    match entry:
        case Exited():
            return Notification("command/exec/exited", CommandExited(id, entry.exit_code))
        case Closed() | Gap():  # it cannot ask for gaps
            return None
        case _:
            stream = entry.stream if entry.stream != "pty" else "stdout"
            return Notification("command/exec/outputDelta", CommandOutputDelta(id, stream, entry.chunk))


def _known_command(caller: Caller, id: str) -> Session:
    """Return the session of that id, which `exec-server.v0` forgets at its close. Raises `UnknownProcessError`."""
    session = caller.sessions.find(id)
    if session is None or session.log.closed:
        raise UnknownProcessError(f"unknown session id {id}")
    return session
