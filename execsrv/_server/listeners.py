"""Listeners, and the connections that come in on them, in one nursery.

A connection's faults stay its own: they are logged, and the others go on.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from functools import partial

import trio

from execsrv._doors.accepting import accept
from execsrv._doors.doorkeeper import Doorkeeper
from execsrv._doors.exposure import check_exposure, check_page
from execsrv._doors.newcomers import Door, Newcomer, origin_of, shut
from execsrv._doors.reloads import Reloads
from execsrv._memory import freed
from execsrv._nursery import open_helpers, owned
from execsrv._processes.supervisor import Supervisor
from execsrv._server.connections import Connections, open_connections
from execsrv._server.entrance import open_certificates, open_doors, receive_lines, receive_websocket
from execsrv._wire import activation, unix, urls
from execsrv.errors import CannotListenError, InvalidListenURLError
from execsrv.limits import ServerConfig

logger = logging.getLogger(__name__)

ServePeer = Callable[[trio.SocketStream, Callable[[], None]], Awaitable[None]]
"""Serves one peer from its first byte, and calls the function when it has said who it is."""


async def serve_listener(
    supervisor: Supervisor,
    listen: str,
    config: ServerConfig,
    shutdown_trigger: Callable[[], Awaitable[object]],
    hurry_trigger: Callable[[], Awaitable[object]],
    reloads: Reloads | None,
    *,
    single: bool,
    task_status: trio.TaskStatus[str],
) -> None:
    """Serve connections on a URL that is not stdio, with the parameters of `serve_url`."""
    check_page(listen, config)
    with ExitStack() as stack:
        async with open_connections(supervisor, config, reloads) as connections:
            keeper = await open_doors(supervisor, connections, reloads)
            try:
                listener, url, serve_peer = await _open_listener(listen, connections, keeper, reloads, stack)
            except OSError as error:
                raise CannotListenError(f"cannot listen on {listen}: {error.strerror or error}") from error
            if config.web:
                logger.info("a page for browsers is at %s", urls.page_url(url))
            door = Door(lambda: connections.config.max_handshakes)
            async with open_helpers() as peers:
                async with listener, open_helpers() as accepting:
                    serve = partial(_serve_peer, serve_peer, door)
                    accepting.start_soon(owned, accept, listener, peers, "connection", serve, door, single)
                    logger.info("keeping sessions together by %s", supervisor.means())
                    connections.accepts = True
                    task_status.started(url)
                    supervisor.expect_starts()
                    if single:
                        accepting.start_soon(owned, _until, connections.wait_unused, accepting.cancel_scope)
                    await shutdown_trigger()
                    await connections.drain(hurry_trigger)
                await connections.stop()


async def _until(wait: Callable[[], Awaitable[object]], scope: trio.CancelScope) -> None:
    await wait()
    scope.cancel()


async def _open_listener(
    listen: str, connections: Connections, keeper: Doorkeeper, reloads: Reloads | None, stack: ExitStack
) -> tuple[trio.SocketListener, str, ServePeer]:
    """Open the listener for a URL. Return it, the URL with its real port, and what serves one peer."""
    if urls.is_unix_url(listen):
        place = unix.listening(urls.parse_unix(listen), connections.config.allow_uids)
        listener, path, admit = stack.enter_context(place)

        async def admit_again() -> None:
            admit(connections.config.allow_uids)

        if reloads is not None:
            reloads.add("who may open the socket", admit_again)
        return listener, f"unix://{path}", partial(receive_lines, connections, keeper)
    if activation.is_passed_url(listen):
        return await _open_passed(listen, connections, keeper, reloads)
    if not urls.is_websocket_url(listen):
        expected = "expected `stdio://`, `ws://IP:PORT`, `wss://IP:PORT` or `unix://PATH`"
        raise InvalidListenURLError(f"unsupported --listen URL `{listen}`; {expected}")
    address = urls.parse_listen(listen)
    check_exposure(address, connections.config)
    certificates = await open_certificates(address, connections, reloads)
    # In bytes: for a text, what encodes the names of hosts would be loaded.
    (listener,) = await trio.open_tcp_listeners(address.port, host=address.ip.encode())
    ip, port = listener.socket.getsockname()[:2]
    serve_peer = partial(receive_websocket, connections, keeper, certificates)
    return listener, str(address._replace(ip=ip, port=port)), serve_peer


async def _open_passed(
    listen: str, connections: Connections, keeper: Doorkeeper, reloads: Reloads | None
) -> tuple[trio.SocketListener, str, ServePeer]:
    """Take the socket that the service manager has opened. What it may be reached by holds for it as for any."""
    passed = activation.taken_socket(listen)
    listener = trio.SocketListener(trio.socket.from_stdlib_socket(passed))
    name = passed.getsockname()
    if passed.family == socket.AF_UNIX:
        url = f"unix://{os.fsdecode(name)}"
        check_page(url, connections.config)
        return listener, url, partial(receive_lines, connections, keeper)
    address = urls.ListenAddress(name[0], name[1], bool(connections.config.tls_certificate_file))
    check_exposure(address, connections.config)
    certificates = await open_certificates(address, connections, reloads)
    return listener, str(address), partial(receive_websocket, connections, keeper, certificates)


async def _serve_peer(serve_peer: ServePeer, door: Door, stream: trio.SocketStream) -> None:
    """Serve one peer from first to last. That may fail; the daemon does not."""
    newcomer: Newcomer | None = None
    try:
        newcomer = door.enter(origin_of(stream), partial(shut, stream))
        await serve_peer(stream, partial(door.leave, newcomer))
    finally:
        stream.socket.close()  # at once, whatever else has failed
        if newcomer is not None:
            door.leave(newcomer)
            newcomer.is_closed.set()
        freed()
