"""A connection under a name by which others find it, and its sessions. One that is done with gives its name up."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import trio

from execsrv._cli.finding import at_session
from execsrv._cli.reach import Reach
from execsrv.client import Client
from execsrv.errors import ConnectionFailedError, NameTakenError
from execsrv.protocol import ListedConnection

_CLOSE_SECONDS = 2.0
"""Time that a command which has exited has for its close, before its name counts as in use."""


def is_taken(error: ConnectionFailedError) -> bool:
    """Tell whether a connection has failed because another one has the name."""
    return isinstance(error.__cause__, NameTakenError)


@asynccontextmanager
async def connected_as(reach: Reach, name: str | None, **more: Any) -> AsyncIterator[Client]:
    """Connect, under that name if there is one. A kept connection of that name, where nothing runs any more, is ended.

    More keywords are those of `connect`. Raises `ConnectionFailedError`, also where the name is taken: `is_taken`.
    """
    async with AsyncExitStack() as stack:
        try:
            client = await stack.enter_async_context(reach.connect(name=name, **more))
        except ConnectionFailedError as error:
            if name is None or not is_taken(error) or not await _ended(reach, name):
                raise
            client = await stack.enter_async_context(reach.connect(name=name, **more))
        yield client


async def _ended(reach: Reach, name: str) -> bool:
    """End our connection of that name where nobody is there and nothing runs. Return whether it was so."""
    async with reach.connect() as client:
        if (there := await _unattended(client, name)) is None:
            return False
        if there.running:
            with trio.move_on_after(_CLOSE_SECONDS):
                await _close(client, there)
            if (there := await _unattended(client, name)) is None or there.running:
                return False
        await client.end_connection(there.connection_id)
        return True


async def _unattended(client: Client, name: str) -> ListedConnection | None:
    """Return our connection of that name, where nobody is there."""
    for listed in await client.connections():
        if listed.name == name and listed.role == "owner" and not listed.attached:
            return listed
    return None


async def _close(client: Client, there: ListedConnection) -> None:
    """Wait until those of its sessions are closed that have exited."""
    for listed in await client.processes(all=True):
        if listed.connection_id == there.connection_id and not listed.running and not listed.closed:
            async with at_session(client, listed, "viewer", after=listed.next_seq - 1) as process:
                while await process.next_event() is not None:
                    pass
