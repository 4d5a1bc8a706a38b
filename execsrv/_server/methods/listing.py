"""`process/list`: the processes of this connection, and of others."""

from __future__ import annotations

from collections.abc import Iterator

import trio
from msgspec import UNSET, UnsetType

from execsrv._nursery import owned
from execsrv._processes.usage import Usage
from execsrv._server.methods.table import Caller, Later, handles_later
from execsrv._server.session import Session
from execsrv._server.sharing import Shared
from execsrv._server.starting import Starting
from execsrv._wire.paths import uri_from_path
from execsrv.protocol import ListedProcess, ProcessList, ProcessListing

ANSWER_SECONDS = 2.0
"""So long all runners together have to say what their commands take. Nobody waits for a list because one does not."""


@handles_later("process/list")
def process_list(caller: Caller, params: ProcessListing) -> ProcessList | Later[ProcessList]:
    asked_for = list(_asked_for(caller, params))
    if params.usage:
        return _with_usage(caller, asked_for)
    return ProcessList([_listed(caller, shared, process) for shared, process in asked_for])


def _asked_for(caller: Caller, params: ProcessListing) -> Iterator[tuple[Shared, Session | Starting]]:
    directory, visits = caller.shared.directory, caller.shared.visits
    if params.all:
        connections = directory.seen_by(visits)
    elif params.connection is not None:
        connections = [directory.find(params.connection, visits)]
    else:
        connections = [caller.shared]
    for shared in connections:
        for session in shared.sessions:
            yield shared, session
        for starting in shared.sessions.being_started():
            yield shared, starting


async def _with_usage(caller: Caller, asked_for: list[tuple[Shared, Session | Starting]]) -> ProcessList:
    """Look up what each takes: of those over runners at once, as far as these say so in time; then one by one."""
    told: dict[Session | Starting, Usage] = {}

    async def ask(session: Session) -> None:
        told[session] = await session.usage()

    with trio.move_on_after(ANSWER_SECONDS):
        async with trio.open_nursery() as asking:
            for _, process in asked_for:
                if isinstance(process, Session) and process.is_over_runner:
                    asking.start_soon(owned, ask, process)
    lines = []
    for shared, process in asked_for:
        if not isinstance(process, Session):
            told[process] = Usage()
        elif not process.is_over_runner:
            await ask(process)
        lines.append(_listed(caller, shared, process, told.get(process)))
        await trio.lowlevel.checkpoint()
    return ProcessList(lines)


def _listed(caller: Caller, shared: Shared, process: Session | Starting, usage: Usage | None = None) -> ListedProcess:
    is_own = shared.principal.name == caller.principal.name
    principal: str | UnsetType = UNSET if is_own else shared.principal.name
    cpu_ms: int | UnsetType = UNSET if usage is None else usage.cpu_ms
    memory: int | UnsetType = UNSET if usage is None else usage.memory_bytes
    if isinstance(process, Starting):
        return ListedProcess(
            process_id=process.id,
            pid=None,
            program=process.program,
            tty=process.is_terminal,
            running=True,
            exit_code=None,
            closed=False,
            argv=list(process.argv),
            cwd=_cwd(process),
            state="starting",
            age_ms=_since(process.begun_at),
            connection_id=shared.id,
            connection_name=shared.terms.name,
            principal=principal,
            cpu_ms=cpu_ms,
            memory_bytes=memory,
        )
    log = process.log
    return ListedProcess(
        process_id=process.id,
        pid=process.pid,
        program=process.program,
        tty=process.is_terminal,
        running=log.exited is None,
        exit_code=log.exited.exit_code if log.exited else None,
        closed=log.closed is not None,
        argv=list(process.argv),
        cwd=_cwd(process),
        state="closed" if log.closed else "exited" if log.exited else "running",
        age_ms=_since(process.started_at),
        signal=log.exited.signal if log.exited else None,
        reason=log.exited.reason if log.exited else None,
        totals=log.totals,
        next_seq=log.next_seq,
        connection_id=shared.id,
        connection_name=shared.terms.name,
        principal=principal,
        size=process.size or UNSET,
        limits=process.asked_limits or UNSET,
        pass_streams=process.passes or UNSET,
        window_bytes=log.reader.window_bytes or UNSET,
        cpu_ms=cpu_ms,
        memory_bytes=memory,
    )


def _cwd(process: Session | Starting) -> str | None:
    return None if process.cwd is None else uri_from_path(process.cwd)


def _since(then: float) -> int:
    return int((trio.current_time() - then) * 1000)
