"""The daemon as a function: `serve`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from execsrv._doors.reloads import Reloads
from execsrv._nursery import open_helpers
from execsrv._processes.supervisor import open_supervisor
from execsrv._server.listeners import serve_url
from execsrv.limits import DEFAULTS, ServerConfig


async def serve(
    listen: str = "stdio://",
    config: ServerConfig = DEFAULTS,
    *,
    own_process: bool = False,
    shutdown_trigger: Callable[[], Awaitable[object]] = trio.sleep_forever,
    reload_trigger: Callable[[], Awaitable[object]] = trio.sleep_forever,
    task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve connections on `listen`: `stdio://`, `ws://IP:PORT` or `unix://PATH`.

    Runs until `shutdown_trigger` returns, or on stdio until the peer hangs up. Then commands are asked to end and,
    after `shutdown_grace_period`, killed, and every peer is told. `task_status.started` gets the URL, with the real
    port, once connections are accepted. Cancelling kills everything at once. `own_process` is that of
    `connect_in_process`. Each time that `reload_trigger` returns, what the server reads from files is read again.

    Raises `InvalidListenURLError` and `CannotListenError`.
    """
    reloads = Reloads()

    async def reload() -> None:
        while True:
            await reload_trigger()
            await reloads.run()

    async with (
        open_supervisor(own_process=own_process, guardian_patience=config.guardian_patience) as supervisor,
        open_helpers() as nursery,
    ):
        nursery.start_soon(reload)
        await serve_url(
            supervisor, listen, config, shutdown_trigger=shutdown_trigger, reloads=reloads, task_status=task_status
        )
