"""`process/attach` and `process/detach`: being there where a process of another connection prints, or of this one."""

from __future__ import annotations

from execsrv._nursery import happened
from execsrv._server.methods.process_dialect import process_dialect
from execsrv._server.methods.process_passing import check_has_streams
from execsrv._server.methods.table import Caller, Later, check_window, handles, handles_later
from execsrv._server.session import Session
from execsrv._server.view import View  # here, so that it is loaded with the descriptors that are kept for methods
from execsrv._wire.quoting import quoted
from execsrv.errors import ProcessExistsError, UnknownProcessError
from execsrv.protocol import Nothing, ProcessAttach, ProcessAttached, ProcessDetach


@handles_later("process/attach")
def process_attach(caller: Caller, params: ProcessAttach) -> ProcessAttached | Later[ProcessAttached]:
    visits = caller.shared.visits
    shared = caller.shared.directory.find(params.connection, visits)
    visits.member_of(shared)
    check_window(caller.config, params.window_bytes)
    id = params.attached_id if params.attached_id is not None else f"{shared.id}/{params.process_id}"

    def attached(session: Session) -> ProcessAttached:
        member = visits.member_of(shared)  # as it is now: who has waited for a start may have been put out meanwhile
        if caller.sessions.knows(id):
            raise ProcessExistsError(f"process ID already exists: `{id}`", processId=id)
        check_has_streams(session, "seen")
        after = params.after_seq or 0
        pace = caller.config.viewed_bytes_per_second
        view: View = visits.attach_to(member, session, id, after, params.window_bytes, process_dialect, pace)
        view.begin()
        reader = view.reader
        argv = list(session.argv)
        return ProcessAttached(id, session.pid, argv, session.is_terminal, reader.next_seq, reader.gap)

    if (session := shared.sessions.find(params.process_id)) is not None:
        return attached(session)
    starting = shared.sessions.starting(params.process_id)
    if starting is None:
        raise UnknownProcessError(f"unknown process id {quoted(params.process_id)} of connection {shared.id}")

    async def attached_later() -> ProcessAttached:
        await happened(starting.over)
        return attached(starting.session())

    return attached_later()


@handles("process/detach", of="process_id")
def process_detach(caller: Caller, params: ProcessDetach) -> Nothing:
    if (session := caller.sessions.find(params.process_id)) is not None:
        session.feed.let_run()
    else:
        caller.shared.visits.detach(params.process_id)
    return Nothing()
