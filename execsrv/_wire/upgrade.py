"""The server's end of a websocket, as the library makes it from a request that was found right."""

from __future__ import annotations

import trio
import trio_websocket
import wsproto
from trio_websocket import ConnectionClosed, WebSocketConnection
from wsproto.connection import ConnectionState


class _ServerConnection(WebSocketConnection):
    """The library's connection, which would fail at a ping that comes behind our close frame."""

    async def _handle_ping_event(self, event: wsproto.events.Ping) -> None:
        if self._wsproto.state is ConnectionState.OPEN:
            await super()._handle_ping_event(event)


async def accept(
    reader: trio.Nursery,
    stream: trio.abc.Stream,
    *,
    queued_messages: int,
    max_message_bytes: int,
    receive_bytes: int,
) -> trio_websocket.WebSocketConnection:
    """Accept the request that `stream` gives, and return its websocket, which is read in the nursery.

    Raises `trio.BrokenResourceError` when the peer has gone.
    """
    connection = _ServerConnection(
        stream,
        wsproto.WSConnection(wsproto.ConnectionType.SERVER),
        message_queue_size=queued_messages,
        max_message_size=max_message_bytes,
        receive_buffer_size=receive_bytes,
    )
    reader.start_soon(connection._reader_task)
    try:
        return await (await connection._get_request()).accept()
    except ConnectionClosed:
        raise trio.BrokenResourceError from None
