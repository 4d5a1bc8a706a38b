"""Attaching to a process that was started before, here or by somebody else: it is read, and goes on when it is left."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from execsrv.client.connection import Connection
from execsrv.client.given import made
from execsrv.client.leaving import take_leave
from execsrv.client.mirror import Mirror
from execsrv.client.process import Process
from execsrv.client.text import TextMode
from execsrv.errors import InvalidParamsError, UnknownProcessError
from execsrv.protocol import (
    ConnectionJoined,
    ProcessAttach,
    ProcessAttached,
    ProcessDetach,
    ProcessList,
    ProcessListing,
    ProcessOutputRead,
    ProcessRead,
    ProcessStart,
)

NOW = 2**53
"""As the entry to go on behind: what comes from now on."""


@asynccontextmanager
async def attached_to_own(
    connection: Connection, id: str, after_seq: int | None, text: TextMode | None
) -> AsyncIterator[Process]:
    """Attach, in this block, to a process of this connection that no block of this client has."""
    listing = await connection.calls.call("process/list", ProcessListing(), ProcessList)
    listed = next((listed for listed in listing.processes if listed.process_id == id), None)
    if listed is None:
        raise UnknownProcessError(f"unknown process id {id}")
    if listed.pass_streams:
        raise InvalidParamsError(f"process {id}: its streams were passed to its client", field="id")
    with connection.new_mirror(id) as mirror:
        after = min(after_seq or 0, listed.next_seq - 1)
        mirror.begin(after)
        mirror.set_window(listed.window_bytes or None)
        async with _detached(connection, mirror):
            read = await connection.calls.call("process/read", ProcessRead(id, after), ProcessOutputRead)
            mirror.resumed(read)
            yield _process(mirror, listed.argv, listed.pid, text, tty=listed.tty)


@asynccontextmanager
async def attached_to_other(
    connection: Connection, joined: ConnectionJoined, id: str, after_seq: int | None, text: TextMode | None
) -> AsyncIterator[Process]:
    """Attach, in this block, to a process of a connection that was joined."""
    with connection.new_mirror() as mirror:
        mirror.begin(0)
        mirror.membership = joined.connection_id, joined.member_id
        params = ProcessAttach(joined.connection_id, id, mirror.id, after_seq, connection.config.window_bytes)
        async with _detached(connection, mirror):
            found = await connection.calls.call("process/attach", params, ProcessAttached)
            mirror.begin(found.next_seq - 1 if found.gap is None else found.gap.from_seq - 1)
            mirror.resumed(ProcessOutputRead([], found.next_seq, False, None, False, gap=found.gap))
            yield _process(mirror, found.argv, found.pid, text, tty=found.tty)


def _process(mirror: Mirror, argv: list[str], pid: int | None, text: TextMode | None, *, tty: bool) -> Process:
    params = ProcessStart(argv, None, {}, tty, mirror.id, overflow="drop")
    return made(Process, mirror, params, pid, text)


@asynccontextmanager
async def _detached(connection: Connection, mirror: Mirror) -> AsyncIterator[None]:
    """Hear no more of a process when the block is left. It goes on, and waits for no reader."""
    try:
        yield
    finally:
        await leave(connection, mirror)


async def leave(connection: Connection, mirror: Mirror) -> None:
    """Tell the server that a process is not read here any more. Cannot be cancelled for a moment."""
    mirror.left()
    if mirror.reader.lost is not None:
        return
    # It may be over, or was never there.
    await take_leave(mirror.calls, "process/detach", ProcessDetach(mirror.id), connection.config.leave_timeout)
