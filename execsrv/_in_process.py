"""The server as a nursery in another trio program: the same connection, without a daemon and without JSON."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext

import trio

from execsrv._nursery import check_trio, open_helpers, owned
from execsrv._processes.supervisor import open_supervisor
from execsrv._server.single_connection import serve_connection
from execsrv._wire.memory import open_memory_pair
from execsrv.client import Client
from execsrv.client.client import open_client
from execsrv.limits import CLIENT_DEFAULTS, DEFAULTS, ClientConfig, ServerConfig


@asynccontextmanager
@trio.lowlevel.enable_ki_protection
async def connect_in_process(
    *, config: ServerConfig = DEFAULTS, client_config: ClientConfig = CLIENT_DEFAULTS, own_process: bool = False
) -> AsyncIterator[Client]:
    """Open a client of a server that runs in this block, in this program.

    Leaving the block, by cancellation too, kills everything that descends from what was started through it. No setting
    of this process is changed; SIGCHLD must not be ignored.

    With `own_process` the same holds when this program is killed or crashes, and for commands that try to escape as
    soon as they start. For that it becomes a subreaper, handles SIGCHLD, and gets a small process beside it, as long as
    the block lasts. It must be the main thread, and no other thread may start processes meanwhile.
    """
    check_trio()
    ours, theirs = open_memory_pair()
    async with (
        open_supervisor(own_process=own_process, guardian_patience=config.guardian_patience) as supervisor,
        open_helpers() as nursery,
    ):
        nursery.start_soon(owned, serve_connection, theirs, supervisor, config)
        async with open_client(lambda: nullcontext(ours), client_config) as client:
            yield client
