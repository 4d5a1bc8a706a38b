"""The daemon: listeners and the connections that come in on them, in one nursery.

A connection's faults stay its own: whatever goes wrong in one is logged, and the others go on.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from functools import partial

import trio

from execsrv._connection import serve_connection
from execsrv._processes.keeper import Keeper, open_keeper
from execsrv._transports import unix
from execsrv._transports.lines import LineChannel
from execsrv._transports.stdio import receive_stream, send_stream, taken_stdio
from execsrv.errors import CannotListen, InvalidListenURL
from execsrv.limits import DEFAULTS, Limits

log = logging.getLogger(__name__)

ServePeer = Callable[[trio.SocketStream], Awaitable[None]]


async def serve(
    listen: str = "stdio://",
    limits: Limits = DEFAULTS,
    *,
    own_process: bool = False,
    task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve connections on `listen`: `stdio://`, `ws://IP:PORT` or `unix://PATH`.

    Runs until cancelled; on stdio, until the peer hangs up. `task_status.started` gets the URL, with the real port,
    once connections are accepted. Cancelling ends every connection and everything that descends from what they started.
    `own_process` is as for `connect_in_process`.

    Raises `InvalidListenURL` and `CannotListen`.
    """
    async with open_keeper(own_process=own_process) as keeper:
        await serve_with(keeper, listen, limits, task_status=task_status)


async def serve_with(
    keeper: Keeper,
    listen: str,
    limits: Limits = DEFAULTS,
    *,
    task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
) -> None:
    """The same with a keeper that is there already."""
    if listen == "stdio://":
        with taken_stdio() as (protocol_in, protocol_out):
            task_status.started(listen)
            await serve_stdio(protocol_in, protocol_out, keeper, limits)
        return
    with ExitStack() as stack:
        try:
            listener, url, serve_peer = await _open_listener(listen, keeper, limits, stack)
        except OSError as error:
            raise CannotListen(f"cannot listen on {listen}: {error.strerror or error}") from error
        # Close the listener first: its end is the only thing that does not wait for its peers.
        async with listener:
            task_status.started(url)
            await trio.serve_listeners(partial(_serve_peer, serve_peer), [listener])


async def serve_stdio(protocol_in: int, protocol_out: int, keeper: Keeper, limits: Limits = DEFAULTS) -> None:
    """Serve one connection over two descriptors, which stay the caller's, until the peer hangs up."""
    channel = LineChannel(send_stream(protocol_out), receive_stream(protocol_in), limits)
    await serve_connection(channel, keeper, limits)


async def _open_listener(
    listen: str, keeper: Keeper, limits: Limits, stack: ExitStack
) -> tuple[trio.SocketListener, str, ServePeer]:
    """The listener for a URL, the URL as it really is, and how to serve what it accepts."""
    if unix.is_unix_url(listen):
        listener = stack.enter_context(unix.listening(unix.parse_path(listen)))
        return listener, listen, partial(_serve_lines, keeper, limits)
    # Imported where it is needed: on stdio, a third of the time to start would go into it.
    from execsrv._transports import websocket

    if not websocket.is_websocket_url(listen):
        expected = "expected `stdio://`, `ws://IP:PORT` or `unix://PATH`"
        raise InvalidListenURL(f"unsupported --listen URL `{listen}`; {expected}")
    host, port = websocket.parse_listen(listen)
    (listener,) = await trio.open_tcp_listeners(port, host=host)
    address, port = listener.socket.getsockname()[:2]
    url = f"ws://[{address}]:{port}" if ":" in address else f"ws://{address}:{port}"
    return listener, url, partial(_serve_websocket, keeper, limits)


async def _serve_peer(serve_peer: ServePeer, stream: trio.SocketStream) -> None:
    """One connection from first to last. It may fail; the daemon does not."""
    try:
        await serve_peer(stream)
    except Exception:
        log.exception("connection failed")


async def _serve_lines(keeper: Keeper, limits: Limits, stream: trio.SocketStream) -> None:
    await serve_connection(LineChannel(stream, stream, limits), keeper, limits)


async def _serve_websocket(keeper: Keeper, limits: Limits, stream: trio.SocketStream) -> None:
    from execsrv._transports.websocket import serve_websocket

    # Without this, a small message after another would wait for the peer's delayed acknowledgement: 40 ms.
    stream.setsockopt(trio.socket.IPPROTO_TCP, trio.socket.TCP_NODELAY, 1)
    await serve_websocket(stream, limits, partial(serve_connection, keeper=keeper, limits=limits))
