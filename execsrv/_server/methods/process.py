"""`process/*`: commands by ids that their client chooses, with numbered output, as the Codex exec-server has them."""

from __future__ import annotations

import math

import trio

from execsrv._processes.command import Command, Wishes, settle
from execsrv._processes.environment import command_environment, inherited_environment
from execsrv._processes.signals import signal_number
from execsrv._processes.terminal import checked_modes
from execsrv._server.methods.process_dialect import closed_notice, exited_notice, process_dialect
from execsrv._server.methods.table import (
    Caller,
    Later,
    check_kind,
    check_own_network,
    check_unconfined,
    handles,
    handles_later,
)
from execsrv._server.session import Session, StartOptions
from execsrv._server.starting import Deferred
from execsrv._server.stdin import Write
from execsrv._wire.paths import path_from_wire
from execsrv.errors import InvalidParamsError, LimitExceededError, StdinClosedError, UnknownProcessError
from execsrv.limits import ServerConfig
from execsrv.protocol import (
    Graceful,
    ListedProcess,
    Nothing,
    ProcessAck,
    ProcessId,
    ProcessList,
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
)


@handles("process/start")
def process_start(caller: Caller, params: ProcessStart) -> Deferred[ProcessStarted]:
    check_unconfined(params.sandbox)
    check_own_network(params.network_proxy, "networkProxy")
    check_own_network(params.managed_network, "managedNetwork")
    check_kind(caller.config, params.kind)
    if params.kind == "prepared":
        _check_prepared(params)
    options = _start_options(caller.config, params)
    cwd = None if params.cwd is None else path_from_wire(params.cwd, "cwd")
    modes = checked_modes(params.modes)
    wishes = Wishes(params.umask, params.nice, params.oom_score_adj)

    def settled() -> Command:
        inherited = inherited_environment() if params.env_policy is not None else {}
        env = command_environment(
            params.env_policy, inherited, params.env, cwd=cwd, tty=params.tty, remove=params.env_remove
        )
        return settle(params.argv, cwd, env, params.arg0, wishes)

    starting = caller.sessions.start(
        params.process_id,
        settled,
        process_dialect,
        options,
        pipe_stdin=params.pipe_stdin,
        size=(params.size or Size()) if params.tty else None,
        modes=modes,
    )
    return Deferred(starting, lambda: _process_started(starting.session()))


def _process_started(session: Session) -> ProcessStarted:
    return ProcessStarted(session.id, pid=session.pid)


def _check_prepared(params: ProcessStart) -> None:
    """A prepared command leaves nothing to be looked up or inherited."""
    if params.argv and not params.argv[0].startswith("/"):
        raise InvalidParamsError("argv[0]: a prepared command names its program by an absolute path", field="argv")
    if params.cwd is None:
        raise InvalidParamsError("cwd: a prepared command names its directory", field="cwd")
    if params.env_policy is not None:
        raise InvalidParamsError("envPolicy: a prepared command inherits nothing", field="envPolicy")


def _start_options(config: ServerConfig, params: ProcessStart) -> StartOptions:
    """Return the terms of a start. Raises `LimitExceededError` for a window or a grace that is too large."""
    window, bound = params.window_bytes, config.max_window_bytes
    if window is not None and window > bound:
        message = f"windowBytes is {window}: max_window_bytes ({bound}) would be exceeded"
        raise LimitExceededError(message, limit="max_window_bytes", value=bound)
    if params.grace_ms is not None and params.grace_ms / 1000 > config.max_grace:
        message = f"graceMs is {params.grace_ms}: max_grace ({config.max_grace:g} s) would be exceeded"
        raise LimitExceededError(message, limit="max_grace", value=config.max_grace)
    return StartOptions(
        timeout=(params.timeout_ms or math.inf) / 1000,
        idle_timeout=(params.idle_timeout_ms or math.inf) / 1000,
        window_bytes=window,
        drops=params.overflow == "drop",
        grace=None if params.grace_ms is None else params.grace_ms / 1000,
        ends_with_leader=params.end_with_leader,
    )


@handles_later("process/write")
def process_write(caller: Caller, params: ProcessWrite) -> ProcessWritten | Later[ProcessWritten]:
    if not params.write_id:
        raise InvalidParamsError("writeId must not be empty", field="writeId")
    session = caller.sessions.find(params.process_id)
    if session is None:
        return ProcessWritten("unknownProcess")
    try:
        write = session.stdin.write(params.chunk, params.write_id)
    except StdinClosedError:
        return ProcessWritten("stdinClosed")
    return _process_written(write) if not write.settled.is_set() else _write_status(write)


async def _process_written(write: Write) -> ProcessWritten:
    await write.settled.wait()
    return _write_status(write)


def _write_status(write: Write) -> ProcessWritten:
    return ProcessWritten("accepted" if write.error is None else "stdinClosed")


@handles("process/closeStdin")
def process_close_stdin(caller: Caller, params: ProcessId) -> Nothing:
    known(caller, params.process_id).stdin.close()
    return Nothing()


@handles_later("process/read")
def process_read(caller: Caller, params: ProcessRead) -> Later[ProcessOutputRead]:
    return _process_read(known(caller, params.process_id), params)


async def _process_read(session: Session, params: ProcessRead) -> ProcessOutputRead:
    """Wait, if asked to, for a chunk or an end that is newer than `afterSeq`; then say what there is, as of this page.

    On a resumed line, what comes behind the first page is told.
    """
    log, after = session.log, params.after_seq or 0
    with trio.move_on_after((params.wait_ms or 0) / 1000):
        while log.next_seq <= after + 1 and not log.closed:
            await session.feed.wait_appended()
    gap, chunks, next_seq = log.read(after, params.max_bytes)
    session.feed.go_on(next_seq)
    # An end that comes behind this page is not told yet.
    exited = log.exited if log.exited and log.exited.seq < next_seq else None
    closed = log.closed if log.closed and log.closed.seq < next_seq else None
    return ProcessOutputRead(
        chunks=chunks,
        next_seq=next_seq,
        exited=exited is not None,
        exit_code=exited.exit_code if exited else None,
        closed=closed is not None,
        gap=gap,
        exit=exited_notice(session.id, exited) if exited else None,
        close=closed_notice(session.id, closed) if closed else None,
    )


@handles_later("process/wait")
def process_wait(caller: Caller, params: ProcessWait) -> Later[ProcessWaited]:
    return _process_wait(known(caller, params.process_id), params)


async def _process_wait(session: Session, params: ProcessWait) -> ProcessWaited:
    """Wait for the end of the leader; then, or when the time is over, say how it stands."""
    log = session.log
    with trio.move_on_after(math.inf if params.timeout_ms is None else params.timeout_ms / 1000):
        while log.exited is None:
            await session.feed.wait_appended()
    if log.exited is None:
        return ProcessWaited(running=True)
    return ProcessWaited(False, log.exited.exit_code, log.exited.signal, log.exited.reason)


@handles("process/snapshot")
def process_snapshot(caller: Caller, params: ProcessId) -> ProcessSnapshot:
    session = known(caller, params.process_id)
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
def process_list(caller: Caller, params: Nothing) -> ProcessList:
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
def process_ack(caller: Caller, params: ProcessAck) -> Nothing:
    known(caller, params.process_id).feed.acknowledge(params.seq)
    return Nothing()


@handles("process/resize")
def process_resize(caller: Caller, params: ProcessResize) -> Nothing:
    session = known(caller, params.process_id)
    if not session.is_terminal:
        raise InvalidParamsError(f"process {session.id} has no terminal to resize", field="processId")
    session.resize(params.rows, params.cols, params.xpixel, params.ypixel)
    return Nothing()


@handles("process/signal")
def process_signal(caller: Caller, params: ProcessSignal) -> ProcessSignaled:
    number = signal_number(params.signal)
    session = caller.sessions.find(params.process_id)
    if session is None:
        if params.signal == "interrupt":
            return ProcessSignaled(0)  # as the Codex exec-server has it
        raise _unknown(params.process_id)
    if params.target == "foreground" and not session.is_terminal:
        raise InvalidParamsError(f"process {session.id} has no terminal, and so no job in front", field="target")
    return ProcessSignaled(session.signal(number, params.target))


@handles("process/terminate")
def process_terminate(caller: Caller, params: ProcessTerminate) -> Running:
    session = caller.sessions.find(params.process_id)
    grace = params.mode.graceful.timeout_ms / 1000 if isinstance(params.mode, Graceful) else 0
    return Running(session is not None and session.terminate(grace=grace))


def known(caller: Caller, id: str) -> Session:
    session = caller.sessions.find(id)
    if session is None:
        raise _unknown(id)
    return session


def _unknown(id: str) -> UnknownProcessError:
    return UnknownProcessError(f"unknown process id {id}")
