"""The way of one peer from its first byte to its conversation: who it is, and whether it may come in."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import trio

from execsrv._doors.credentials import Credentials
from execsrv._doors.doorkeeper import Doorkeeper
from execsrv._doors.newcomers import origin_of
from execsrv._doors.peers import Peer
from execsrv._doors.principal import Identify, Shown, nothing_shown
from execsrv._doors.reloads import Reloads
from execsrv._processes.supervisor import Supervisor
from execsrv._server.connections import Connections
from execsrv._server.conversation import Conversation
from execsrv._threads import run_in_thread, run_with_tls
from execsrv._wire import urls
from execsrv._wire.passing_channel import PassingChannel
from execsrv.errors import CannotListenError, InvalidConfigError, UnauthorizedError

if TYPE_CHECKING:
    from execsrv._doors.certificates import Certificates
    from execsrv._wire.http_head import Pages, Upgrade
    from execsrv._wire.websocket import Serve

logger = logging.getLogger(__name__)


async def open_certificates(
    address: urls.ListenAddress, connections: Connections, reloads: Reloads | None
) -> Certificates | None:
    """Read the certificates for an address, which can be read again. None where there is no TLS."""
    if not address.is_secure:
        return None
    from execsrv._doors.certificates import Certificates

    certificates = Certificates()

    async def read() -> None:
        fresh = Certificates()
        await run_with_tls(partial(fresh.read, connections.config))
        certificates.take(fresh)  # not in the thread: one that is left behind would take it late

    try:
        await read()
    except InvalidConfigError as error:
        raise CannotListenError(f"cannot listen on {address}: {error}") from error
    if reloads is not None:
        reloads.add("the certificates", read)
    return certificates


async def open_doors(supervisor: Supervisor, connections: Connections, reloads: Reloads | None) -> Doorkeeper:
    """Read the tokens that the settings name. Raises `InvalidConfigError`."""
    credentials = Credentials()

    async def load() -> None:
        fresh = Credentials()
        await run_in_thread(partial(fresh.load, connections.config), trio.CapacityLimiter(1))
        credentials.take(fresh)  # not in the thread: one that is left behind would take it late

    async def load_again() -> None:
        await load()
        connections.end_others(credentials.lets_in)

    await load()
    if reloads is not None:
        reloads.add("the tokens", load_again)
    return Doorkeeper(supervisor.kin, credentials.find, lambda: connections.config)


async def receive_lines(
    connections: Connections, keeper: Doorkeeper, stream: trio.SocketStream, greeted: Callable[[], None]
) -> None:
    identify = keeper.identify_later(await keeper.look(stream))
    channel = PassingChannel(stream, connections.config, is_known=False)
    await Conversation(channel, connections, identify, greeted, origin_of(stream)).run()


async def receive_websocket(
    connections: Connections,
    keeper: Doorkeeper,
    certificates: Certificates | None,
    stream: trio.SocketStream,
    greeted: Callable[[], None],
) -> None:
    # Imported where it is needed: on stdio, a third of the time to start would go into it.
    from execsrv._wire.http_head import NO_PAGES
    from execsrv._wire.websocket import serve_websocket

    origin = origin_of(stream)
    # Without this, a small message after another would wait for the peer's delayed acknowledgement: 40 ms.
    stream.setsockopt(trio.socket.IPPROTO_TCP, trio.socket.TCP_NODELAY, 1)
    secured: trio.abc.Stream = stream
    shown: Shown = nothing_shown
    if certificates is not None:
        secure = await certificates.receive(stream, connections.config.handshake_timeout)
        if secure is None:
            return
        secured, shown = secure, partial(certificates.shown, secure)

    async def admit(upgrade: Upgrade) -> Serve:
        try:
            identify = await _who_asks(upgrade, keeper, stream, shown)
        except UnauthorizedError as error:
            logger.warning("refusing a peer: %s", error)
            raise
        return lambda channel: Conversation(channel, connections, identify, greeted, origin).run()

    await serve_websocket(
        secured,
        connections.config,
        admit,
        is_secure=certificates is not None,
        is_ready=lambda: connections.is_ready,
        pages=_pages() if connections.config.web else NO_PAGES,
    )


async def _who_asks(upgrade: Upgrade, keeper: Doorkeeper, stream: trio.SocketStream, shown: Shown) -> Identify:
    """Return what tells who asks for an upgrade. Raises `UnauthorizedError`; a page may say its token later."""
    from execsrv._wire.http_head import Visitor

    if upgrade.token is None and upgrade.visitor is Visitor.OUR_PAGE:
        return keeper.identify_page
    peer = Peer(None, "it comes through a proxy") if upgrade.is_forwarded else await keeper.look(stream)
    if upgrade.token is None and upgrade.visitor is Visitor.LISTED_PAGE:
        return keeper.identify_later(peer, shown)
    return keeper.identify_first(peer, upgrade.token, shown)


def _pages() -> Pages:
    from execsrv._web import pages
    from execsrv._wire.http_head import Pages

    return Pages(pages.PATHS, pages.response)
