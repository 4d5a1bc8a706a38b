"""`process/*`: commands by ids that their client chooses, with numbered output, as the Codex exec-server has them."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import trio
from msgspec import Struct

from execsrv._processes.signals import signal_number
from execsrv._processes.stdin import Write
from execsrv._server.feed import Feed
from execsrv._server.methods.process_dialect import closed_notice, exited_notice
from execsrv._server.methods.process_passing import check_has_streams
from execsrv._server.methods.table import (
    Caller,
    Later,
    handles,
    handles_later,
)
from execsrv._server.session import Session
from execsrv.errors import InvalidParamsError, StdinClosedError, UnknownProcessError
from execsrv.protocol import (
    Graceful,
    Nothing,
    ProcessAck,
    ProcessCloseStdin,
    ProcessId,
    ProcessOutputRead,
    ProcessRead,
    ProcessResize,
    ProcessSignal,
    ProcessSignaled,
    ProcessSnapshot,
    ProcessTerminate,
    ProcessWrite,
    ProcessWritten,
    Running,
    Size,
    StreamSnapshot,
)

if TYPE_CHECKING:
    from execsrv._server.view import View

R = TypeVar("R", bound=Struct)


@handles_later("process/write", holds=False, of="process_id", brings="chunk")  # its input counts by itself
def process_write(caller: Caller, params: ProcessWrite) -> ProcessWritten | Later[ProcessWritten]:
    if not params.write_id:
        raise InvalidParamsError("writeId must not be empty", field="writeId")
    session = session_called(caller, params.process_id)
    if session is None:
        return ProcessWritten("unknownProcess")
    check_has_streams(session, "written to")
    try:
        write = session.stdin.write(params.chunk, own_name(caller, params.process_id, params.write_id))
    except StdinClosedError:
        return ProcessWritten("stdinClosed")
    return _process_written(write) if not write.settled.is_set() else _write_status(write)


async def _process_written(write: Write) -> ProcessWritten:
    await write.settled.wait()
    return _write_status(write)


def _write_status(write: Write) -> ProcessWritten:
    return ProcessWritten("accepted" if write.error is None else "stdinClosed")


@handles("process/closeStdin", of="process_id")
def process_close_stdin(caller: Caller, params: ProcessCloseStdin) -> Nothing:
    session = required_session(caller, params.process_id)
    check_has_streams(session, "closed")
    session.stdin.close(own_name(caller, params.process_id, params.write_id) if params.write_id else None)
    return Nothing()


@handles_later("process/read", of="process_id")
def process_read(caller: Caller, params: ProcessRead) -> Later[ProcessOutputRead]:
    session, heard = required_session(caller, params.process_id), heard_by(caller, params.process_id)
    return while_heard(heard, partial(_process_read, session, heard, params))


async def _process_read(session: Session, heard: Feed | View, params: ProcessRead) -> ProcessOutputRead:
    """Wait, if asked to, for a chunk or an end that is newer than `afterSeq`; then say what there is, as of this page.

    On a resumed line, what comes behind the first page is told.
    """
    log, after = session.log, params.after_seq or 0
    with trio.move_on_after((params.wait_ms or 0) / 1000):
        while log.next_seq <= after + 1 and not log.closed:
            await session.feed.wait_appended()
    gap, chunks, next_seq = log.read(after, params.max_bytes)
    heard.go_on(next_seq)
    # An end that comes behind this page is not told yet.
    exited = log.exited if log.exited and log.exited.seq < next_seq else None
    closed = log.closed if log.closed and log.closed.seq < next_seq else None
    return ProcessOutputRead(
        chunks=chunks,
        next_seq=next_seq,
        exited=exited is not None,
        exit_code=exited.exit_code if exited else None,
        closed=closed is not None,
        sandbox_denied=exited is not None and exited.denial is not None,
        gap=gap,
        exit=exited_notice(params.process_id, exited) if exited else None,
        close=closed_notice(params.process_id, closed) if closed else None,
    )


@handles("process/snapshot", of="process_id")
def process_snapshot(caller: Caller, params: ProcessId) -> ProcessSnapshot:
    session = required_session(caller, params.process_id)
    log = session.log
    return ProcessSnapshot(
        running=log.exited is None,
        exit_code=log.exited.exit_code if log.exited else None,
        signal=log.exited.signal if log.exited else None,
        reason=log.exited.reason if log.exited else None,
        closed=log.closed is not None,
        next_seq=log.next_seq,
        totals=log.totals,
        size=session.size,
        **{
            "terminal" if stream == "pty" else stream: StreamSnapshot(
                ends.head, ends.tail, ends.omitted_bytes, ends.total_bytes
            )
            for stream, ends in log.streams.items()
        },
    )


@handles("process/ack", of="process_id")
def process_ack(caller: Caller, params: ProcessAck) -> Nothing:
    heard_by(caller, params.process_id).acknowledge(params.seq)
    return Nothing()


@handles("process/resize", of="process_id")
def process_resize(caller: Caller, params: ProcessResize) -> Nothing:
    session = required_session(caller, params.process_id)
    if not session.is_terminal:
        raise InvalidParamsError(f"process {session.id} has no terminal to resize", field="processId")
    visit = caller.shared.visits.by_id.get(params.process_id)
    shared = caller.shared if visit is None else visit.member.shared
    size = Size(params.rows, params.cols, params.xpixel, params.ypixel)
    shared.sizes.ask(session, caller.shared.visits, shared.owner, size)
    return Nothing()


@handles("process/signal", of="process_id")
def process_signal(caller: Caller, params: ProcessSignal) -> ProcessSignaled | Later[ProcessSignaled]:
    number = signal_number(params.signal)
    session = session_called(caller, params.process_id)
    if session is None:
        if params.signal == "interrupt":
            return ProcessSignaled(0)  # as the Codex exec-server has it
        raise _unknown(params.process_id)
    if params.target == "foreground" and not session.is_terminal:
        raise InvalidParamsError(f"process {session.id} has no terminal, and so no job in front", field="target")
    received = session.signal(number, params.target)
    return ProcessSignaled(received) if isinstance(received, int) else _process_signaled(received)


async def _process_signaled(received: Coroutine[Any, Any, int]) -> ProcessSignaled:
    return ProcessSignaled(await received)


@handles("process/terminate", of="process_id", ends=True)
def process_terminate(caller: Caller, params: ProcessTerminate) -> Running:
    session = session_called(caller, params.process_id)
    grace = params.mode.graceful.timeout_ms / 1000 if isinstance(params.mode, Graceful) else 0
    return Running(session is not None and session.terminate(grace=grace))


def required_session(caller: Caller, id: str) -> Session:
    """Return the session that the caller calls so. Raises `UnknownProcessError`."""
    if (session := session_called(caller, id)) is None:
        raise _unknown(id)
    return session


def session_called(caller: Caller, id: str) -> Session | None:
    """Return the session that the caller calls so, of its connection or of another, or None."""
    session = caller.sessions.find(id)
    if session is None and (visit := caller.shared.visits.by_id.get(id)) is not None:
        return visit.session
    return session


def heard_by(caller: Caller, id: str) -> Feed | View:
    """Return what the caller hears of a session. Raises `UnknownProcessError`."""
    if (session := caller.sessions.find(id)) is not None:
        return session.feed
    if (visit := caller.shared.visits.by_id.get(id)) is not None:
        return visit.view
    raise _unknown(id)


def while_heard(heard: Feed | View, wait: Callable[[], Later[R]]) -> Later[R]:
    """Return a wait for something of a session that does not outlast what the caller may hear of it."""
    return wait() if isinstance(heard, Feed) else heard.wait(wait)


def own_name(caller: Caller, id: str, name: str) -> str:
    """Return the name that a caller gave to something of a session, as no other gives it to something there."""
    visit = caller.shared.visits.by_id.get(id)
    return name if visit is None else f"{visit.member.id} {name}"


def _unknown(id: str) -> UnknownProcessError:
    return UnknownProcessError(f"unknown process id {id}")
