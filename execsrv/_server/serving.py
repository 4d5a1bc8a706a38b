"""The server on a URL: on stdio for one peer, else behind a listener. What a listener needs is loaded with one."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

import trio

from execsrv._doors.reloads import Reloads
from execsrv._processes.supervisor import Supervisor
from execsrv._server.single_connection import serve_connection
from execsrv._wire.lines import LineChannel
from execsrv._wire.stdio import receive_stream, send_stream, taken_stdio
from execsrv.errors import CannotListenError
from execsrv.limits import DEFAULTS, ServerConfig

logger = logging.getLogger(__name__)


async def serve_url(
    supervisor: Supervisor,
    listen: str,
    config: ServerConfig = DEFAULTS,
    *,
    shutdown_trigger: Callable[[], Awaitable[object]] = trio.sleep_forever,
    hurry_trigger: Callable[[], Awaitable[object]] = trio.sleep_forever,
    single: bool = False,
    reloads: Reloads | None = None,
    task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve connections on a URL until the trigger returns, or on stdio until the peer hangs up.

    When `hurry_trigger` returns as well, what runs is not waited for.

    With `single` it is for one client: it ends with the last connection, and where none comes. A later peer takes the
    place of the one before, whose channel may be cut without anybody here having heard of it.

    `reloads` gets all that can be read again while it serves.

    Raises `InvalidListenURLError`, `CannotListenError` and `InvalidConfigError`. Cancelling kills everything at once.
    """
    if listen != "stdio://":
        from execsrv._server.listeners import serve_listener

        await serve_listener(
            supervisor,
            listen,
            config,
            shutdown_trigger,
            hurry_trigger,
            reloads,
            single=single,
            task_status=task_status,
        )
        return
    if config.web:
        raise CannotListenError(f"cannot serve a page on {listen}: a browser reaches only `ws://` and `wss://`")
    with taken_stdio() as (protocol_in, protocol_out):
        logger.info("keeping sessions together by %s", supervisor.means())
        task_status.started(listen)
        await serve_descriptors(
            supervisor,
            protocol_in,
            protocol_out,
            config,
            shutdown_trigger=shutdown_trigger,
            hurry_trigger=hurry_trigger,
        )


async def serve_descriptors(
    supervisor: Supervisor,
    protocol_in: int,
    protocol_out: int,
    config: ServerConfig = DEFAULTS,
    *,
    shutdown_trigger: Callable[[], Awaitable[object]] = trio.sleep_forever,
    hurry_trigger: Callable[[], Awaitable[object]] = trio.sleep_forever,
) -> None:
    """Serve one connection over two descriptors, which stay the caller's, until the peer hangs up."""
    channel = LineChannel(send_stream(protocol_out), receive_stream(protocol_in), config, is_known=False)
    await serve_connection(
        channel,
        supervisor,
        config,
        origin="stdio",
        shutdown_trigger=shutdown_trigger,
        hurry_trigger=hurry_trigger,
    )
