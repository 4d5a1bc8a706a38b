"""A connection under a name by which others find it, and its sessions. One that is done with gives its name up."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from execsrv._cli.reach import Reach
from execsrv.client import Client
from execsrv.errors import ConnectionFailedError, NameTakenError


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
        for listed in await client.connections():
            if listed.name == name and listed.role == "owner" and not listed.attached and not listed.running:
                await client.end_connection(listed.connection_id)
                return True
    return False
