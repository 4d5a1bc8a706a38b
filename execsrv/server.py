"""The server as functions: `serve` listens, `serve_channel` and `open_server` take what a program has accepted."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import trio

from execsrv._doors.principal import Identify, Principal
from execsrv._doors.reloads import Reloads
from execsrv._nursery import check_trio, open_helpers
from execsrv._processes.supervisor import open_supervisor
from execsrv._server.connections import Connections, open_connections
from execsrv._server.conversation import Conversation
from execsrv._server.serving import serve_url
from execsrv._wire.channel import MessageChannel
from execsrv._wire.lines import LineChannel
from execsrv._wire.offered_websocket import OfferedChannel, WebSocket
from execsrv.errors import UnauthorizedError
from execsrv.limits import DEFAULTS, ServerConfig
from execsrv.protocol.roles import Role

if TYPE_CHECKING:
    from trio_websocket import WebSocketConnection

    Offered = trio.abc.Stream | WebSocket | WebSocketConnection


async def serve(
    listen: str = "stdio://",
    config: ServerConfig = DEFAULTS,
    *,
    own_process: bool = False,
    shutdown_trigger: Callable[[], Awaitable[object]] = trio.sleep_forever,
    reload_trigger: Callable[[], Awaitable[object]] = trio.sleep_forever,
    task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve connections on `listen`: `stdio://`, `ws://IP:PORT`, `wss://IP:PORT` or `unix://PATH`.

    Runs until `shutdown_trigger` returns, or on stdio until the peer hangs up. Then commands are asked to end and,
    after `shutdown_grace_period`, killed, and every peer is notified. `task_status.started` gets the URL, with the real
    port, once connections are accepted. Cancelling kills everything at once. `own_process` is that of
    `connect_in_process`. Each time `reload_trigger` returns, the server reads its files again.

    Raises `InvalidListenURLError` and `CannotListenError`.
    """
    check_trio()
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


class Server:
    """A server without a listener, for channels that a program has accepted itself. `open_server` makes it."""

    def __init__(self, connections: Connections, reloads: Reloads) -> None:
        self._connections = connections
        self._reloads = reloads

    def __repr__(self) -> str:
        return f"<Server {'ending' if self._connections.draining.is_set() else 'serving'}>"

    async def serve_channel(self, channel: Offered, *, identity: str, role: str = "owner") -> None:
        """Serve one peer, whom the program knows, until it hangs up. Takes ownership of the channel.

        `channel` is a trio stream, for a message a line, an accepted connection of trio-websocket, or any object with
        `receive()`, `send(text)` and `close(code, reason)`, as Quart's `websocket`. `identity` is the name under which
        the peer is known, here and in the audit log: peers with the same name may resume each other's connections.
        `role` is "owner", "writer", "viewer" or "health".

        Cancelling hangs up. Raises `ValueError` for any other role.
        """
        identify = _known_as(Principal(identity, _role(role)))
        messages = _message_channel(channel, self._connections.config)
        await Conversation(messages, self._connections, identify, origin="a channel of this program").run()

    async def reload(self) -> None:
        """Open the audit log again, which may have been moved away. The log says what could not be read."""
        await self._reloads.run()


@asynccontextmanager
async def open_server(config: ServerConfig = DEFAULTS, *, own_process: bool = False) -> AsyncIterator[Server]:
    """Open a server for channels that this program accepts itself, on a route of its own, behind its own login.

    Leaving the block ends it in order, as when `serve` is asked to end. Leaving it by an error or by cancellation kills
    everything at once. `own_process` is that of `connect_in_process`.
    """
    check_trio()
    reloads = Reloads()
    async with (
        open_supervisor(own_process=own_process, guardian_patience=config.guardian_patience) as supervisor,
        open_connections(supervisor, config, reloads) as connections,
    ):
        connections.accepts = True
        yield Server(connections, reloads)
        await connections.drain()
        await connections.stop()


async def serve_channel(
    channel: Offered,
    *,
    identity: str,
    role: str = "owner",
    config: ServerConfig = DEFAULTS,
    own_process: bool = False,
) -> None:
    """Serve one peer by a server of its own, until it hangs up. Takes ownership of the channel.

    Its parameters are those of `Server.serve_channel` and of `open_server`. What runs ends with the channel, and there
    is nothing to resume. Cancelling this hangs up.
    """
    async with open_server(replace(config, resume_grace=0), own_process=own_process) as server:
        await server.serve_channel(channel, identity=identity, role=role)


def _role(word: str) -> Role:
    for role in Role:
        if role.word == word:
            return role
    raise ValueError(f"unknown role {word!r}; expected one of {', '.join(role.word for role in Role)}")


def _known_as(principal: Principal) -> Identify:
    """Return what tells that a peer is this one. The program knows it, so a token is nothing that could be checked."""

    def identify(token: str | None) -> Principal:
        if token is not None:
            raise UnauthorizedError("this token is not one of this server, which has none")
        return principal

    return identify


def _message_channel(channel: Offered, config: ServerConfig) -> MessageChannel:
    if isinstance(channel, trio.abc.Stream):
        return LineChannel(channel, channel, config)
    if hasattr(channel, "get_message"):
        from trio_websocket import ConnectionClosed  # who gives us one of its connections has loaded it

        return OfferedChannel(_OfTrioWebsocket(cast("WebSocketConnection", channel)), config, (ConnectionClosed,))
    return OfferedChannel(channel, config)


class _OfTrioWebsocket:
    """A connection of trio-websocket, in the words of `WebSocket`."""

    def __init__(self, connection: WebSocketConnection) -> None:
        self._connection = connection

    async def receive(self) -> str | bytes:
        """Return the next message."""
        data: str | bytes = await self._connection.get_message()
        return data

    async def send(self, data: str) -> None:
        """Send a message."""
        await self._connection.send_message(data)

    async def close(self, code: int, reason: str) -> None:
        """Say goodbye."""
        await self._connection.aclose(code, reason)
