"""A relay on TCP between the Codex CLI and a websocket exec-server, which listens in and can cut the line.

It passes bytes on unchanged, so what the two ends see is each other. A cut is what a network does: both sockets are
gone, without a close frame; or only the client's is, and the server has to find out. The server behind it may change,
as when it was started anew at another port.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count

import trio
from wsproto.connection import Connection, ConnectionType
from wsproto.events import TextMessage

from tests.interop.record import Record, Side


class Relay:
    """See the module. `target` is where the server listens; while it is None, nobody gets through."""

    def __init__(self, url: str, record: Record) -> None:
        self.url = url
        self.target: tuple[str, int] | None = None
        self._record = record
        self._numbers = count(1)
        self._lines: set[trio.CancelScope] = set()
        self._forgotten: set[trio.CancelScope] = set()

    def cut(self) -> None:
        """End every line that there is now, in both directions. The next one may come at once."""
        for line in self._lines:
            line.cancel()

    def cut_unnoticed(self) -> None:
        """End every line that there is now at the client's side only: what is between them has forgotten it.

        The server is told nothing, and hears nothing any more.
        """
        self._forgotten |= self._lines
        self.cut()

    async def connect(self, client: trio.SocketStream) -> None:
        """Relay one connection until either end hangs up or the line is cut."""
        async with client:
            if self.target is None:
                return
            try:
                server = await trio.open_tcp_stream(*self.target)
            except OSError:
                return
            number = next(self._numbers)
            async with server:
                async with trio.open_nursery() as nursery:
                    line = nursery.cancel_scope
                    self._lines.add(line)
                    nursery.start_soon(self._pass, client, server, _Ear(number, "client", self._record), line)
                    nursery.start_soon(self._pass, server, client, _Ear(number, "server", self._record), line)
                self._lines.discard(line)
                if line in self._forgotten:
                    await client.aclose()
                    await trio.sleep_forever()

    async def _pass(
        self, source: trio.SocketStream, sink: trio.SocketStream, ear: _Ear, line: trio.CancelScope
    ) -> None:
        source.setsockopt(trio.socket.IPPROTO_TCP, trio.socket.TCP_NODELAY, 1)
        try:
            async for data in source:
                ear.hear(bytes(data))
                await sink.send_all(data)
        except trio.BrokenResourceError:
            pass
        line.cancel()


class _Ear:
    """Hears the messages in one direction of one connection."""

    def __init__(self, connection: int, side: Side, record: Record) -> None:
        self._connection = connection
        self._side: Side = side
        self._record = record
        self._head = b""
        self._frames: Connection | None = None
        self._text = ""

    def hear(self, data: bytes) -> None:
        if self._frames is None:
            self._head += data
            _, found, data = self._head.partition(b"\r\n\r\n")
            if not found:
                return
            # It has to read what the other side of `side` would.
            kind = ConnectionType.SERVER if self._side == "client" else ConnectionType.CLIENT
            self._frames = Connection(kind)
        self._frames.receive_data(data)
        for event in self._frames.events():
            if isinstance(event, TextMessage):
                self._text += event.data
                if event.message_finished:
                    self._record.add(self._connection, self._side, json.loads(self._text))
                    self._text = ""


@asynccontextmanager
async def open_relay(record: Record) -> AsyncIterator[Relay]:
    """A relay on a free loopback port, without a target; leaving ends it and every line through it."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    relay = Relay(f"ws://127.0.0.1:{port}", record)
    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, relay.connect, listeners)
        yield relay
        nursery.cancel_scope.cancel()
