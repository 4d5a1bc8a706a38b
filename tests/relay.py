"""A line between a client and a server, TCP or unix, that can be cut, or go silent, at any moment."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio


class Line:
    """Passes bytes on unchanged. `url` is where clients connect; `passed` counts what went from server to client."""

    def __init__(self, target: str, url: str) -> None:
        self.url = url
        self.target: str | None = target
        """Where the server is. While this is None, nobody gets through."""
        self.passed = 0
        self._open: set[trio.CancelScope] = set()
        self._silent: set[trio.CancelScope] = set()
        self._news = trio.lowlevel.ParkingLot()

    async def until_passed(self, count: int) -> None:
        """Wait until so many bytes have gone to the client."""
        while self.passed < count:
            await self._news.park()

    def cut(self) -> None:
        """Both sockets of every connection are gone, without a word of any protocol."""
        for scope in self._open:
            scope.cancel()

    def silence(self) -> None:
        """Nothing passes any more on the connections that there are, and nobody is told."""
        for scope in self._silent:
            scope.cancel()

    async def carry(self, client: trio.SocketStream) -> None:
        """One connection."""
        if self.target is None:
            await trio.aclose_forcefully(client)
            return
        if self.target.startswith("unix://"):
            server = await trio.open_unix_socket(self.target.removeprefix("unix://"))
        else:
            host, _, port = self.target.removeprefix("ws://").rpartition(":")
            server = await trio.open_tcp_stream(host, int(port))
        with trio.CancelScope() as scope:
            self._open.add(scope)
            async with client, server, trio.open_nursery() as nursery:
                with trio.CancelScope() as passing:
                    self._silent.add(passing)
                    async with trio.open_nursery() as both:
                        both.start_soon(self._pass, client, server, False, scope)
                        both.start_soon(self._pass, server, client, True, scope)
                nursery.start_soon(trio.sleep_forever)
        self._open.discard(scope)
        self._silent.discard(passing)

    async def _pass(
        self, source: trio.SocketStream, sink: trio.SocketStream, counted: bool, line: trio.CancelScope
    ) -> None:
        try:
            async for data in source:
                await sink.send_all(data)
                if counted:
                    self.passed += len(data)
                    self._news.unpark_all()
        except trio.BrokenResourceError:
            pass
        line.cancel()


@asynccontextmanager
async def open_line(target: str, path: str) -> AsyncIterator[Line]:
    """A line to the server at `target`: on a unix socket at `path` where the server listens on one, else beside it."""
    if target.startswith("unix://"):
        listening = trio.socket.socket(trio.socket.AF_UNIX)
        await listening.bind(path)
        listening.listen()
        listener, url = trio.SocketListener(listening), f"unix://{path}"
    else:
        host = target.removeprefix("ws://").rpartition(":")[0]
        (listener,) = await trio.open_tcp_listeners(0, host=host)
        url = f"ws://{host}:{listener.socket.getsockname()[1]}"
    line = Line(target, url)
    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, line.carry, [listener])
        yield line
        nursery.cancel_scope.cancel()
