"""Streams that are passed to the client: where they can be, how they go along, and what nobody can ask for then."""

from __future__ import annotations

from msgspec.structs import replace

from execsrv._processes.stream_ends import open_onward
from execsrv._server.methods.table import Caller
from execsrv._server.session import Session
from execsrv._server.starting import Starting
from execsrv.errors import BusyError, InvalidParamsError
from execsrv.protocol import ProcessStart, ProcessStarted


def check_passing(caller: Caller, params: ProcessStart) -> None:
    """Raise `InvalidParamsError` where the streams of a start cannot be passed, and `BusyError` where too many wait.

    Raises `SpawnError` where nothing of them could be kept.
    """
    why = ""
    if caller.passing is None:
        why = "descriptors go over a unix socket, and this channel is none"
    elif params.runner is not None:
        why = "over a runner, the pipes are not the server's to pass"
    elif params.tty:
        why = "a terminal stays the server's, who is asked for its size, its echo and its job in front"
    elif params.key is not None:
        why = "a start with a key may be asked again, and streams are passed once"
    elif params.idle_timeout_ms is not None:
        why = "idleTimeoutMs needs a server that sees what is printed"
    elif params.overflow != "block":
        why = "overflow: the server keeps nothing that it could drop"
    if why:
        raise InvalidParamsError(f"passStreams: {why}", field="passStreams")
    if caller.passing is not None and caller.passing.is_full:
        raise BusyError("passStreams: too many answers that bring streams along have not been read yet")
    if params.pass_streams == "kept":
        open_onward()  # a machine that refuses it does so before anything runs


def pass_streams(caller: Caller, starting: Starting, started: ProcessStarted) -> ProcessStarted:
    """Have the streams of a command go along with the answer to its start, which must be put next, and return that."""
    passed, starting.passed = starting.passed, {}
    naming = replace(started, passed=list(passed))
    if caller.passing is not None:
        caller.passing.lend(naming, list(passed.values()), otherwise=started)
    return naming


def check_has_streams(session: Session, asked: str) -> None:
    """Raise `InvalidParamsError` for a session whose streams its client has: nothing can be `asked` of them here."""
    if session.passes:
        message = f"process {session.id}: its streams were passed to its client, and can only be {asked} there"
        raise InvalidParamsError(message, field="processId")
