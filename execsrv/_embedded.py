"""The server as a nursery in another trio program: the same connection, without a daemon and without JSON."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext

from execsrv._background import open_background
from execsrv._talk import serve_connection
from execsrv._transports.memory import open_memory_pair
from execsrv.client import Client
from execsrv.client._client import open_client
from execsrv.limits import DEFAULTS, ServerConfig


@asynccontextmanager
async def connect_in_process(*, config: ServerConfig = DEFAULTS) -> AsyncIterator[Client]:
    """A client of a server that runs in this block, in this program.

    Leaving the block, by cancellation too, kills every process group that was started through it. No setting of this
    process is changed; SIGCHLD must not be ignored.
    """
    ours, theirs = open_memory_pair()
    async with open_background() as nursery:
        nursery.start_soon(serve_connection, theirs, config)
        async with open_client(lambda: nullcontext(ours), config) as client:
            yield client
