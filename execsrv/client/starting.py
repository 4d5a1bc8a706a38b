"""What becomes of a request to start a process: its answer, and its end when its block is left."""

from __future__ import annotations

import trio

from execsrv.client.connection import Connection
from execsrv.client.mirror import Mirror
from execsrv.client.parameters import Path, string
from execsrv.errors import BadAnswerError, InvalidParamsError, ProcessExistsError
from execsrv.protocol import Failure, Nothing, ProcessList, ProcessStart, ProcessStarted, ProcessWait, ProcessWaited


def place(connection: Connection, cwd: Path | None, prepared: bool) -> str | None:
    """Return a directory as it is sent. The server's own needs no name, but for who has everything prepared."""
    if cwd is not None:
        return string("cwd", cwd)
    return None if connection.is_execsrv and not prepared else connection.greeting.environment_info.cwd


def check_known(connection: Connection, params: ProcessStart) -> None:
    """Raise `InvalidParamsError` for what a server that is not execsrv would pass over, and do something else."""
    for field, value in (("stdout", params.stdout), ("stderr", params.stderr)):
        if value != "pipe" and not connection.is_execsrv:
            raise InvalidParamsError(f"{field}: this server knows nothing but pipes", field=field)


async def pid_of(connection: Connection, mirror: Mirror) -> int | None:
    """Wait for the answer to a start. Raises the server's error."""
    assert mirror.start is not None
    try:
        answer = await connection.calls.answer_to(mirror.start, ProcessStarted)
    except ProcessExistsError:
        if not mirror.start.repeated:
            raise
        # It had started before the connection was interrupted.
        mirror.started = True
        return await _pid_listed(connection, mirror.id)
    except BadAnswerError:
        mirror.is_unsure = True
        raise
    mirror.started = True
    return answer.pid


async def _pid_listed(connection: Connection, id: str) -> int | None:
    """Return the pid of a process that the server knows, once it has been started."""
    while True:
        listing = await connection.calls.call("process/list", Nothing(), ProcessList)
        listed = next((listed for listed in listing.processes if listed.process_id == id), None)
        if listed is None or listed.pid is not None:
            return None if listed is None else listed.pid
        # It is answered when the start is over, and refused when that failed.
        await connection.calls.call("process/wait", ProcessWait(id, timeout_ms=0), ProcessWaited)


async def end(connection: Connection, mirror: Mirror, grace: float) -> None:
    """End what may run of a process. Cancelled before the answer, it may have started all the same."""
    if mirror.start is None or (isinstance(mirror.start.answer, Failure) and not mirror.started):
        return
    with trio.move_on_after(grace + connection.config.leave_timeout, shield=True) as patience:
        await mirror.end(grace)
    if patience.cancelled_caught:
        mirror.end_when_back()
